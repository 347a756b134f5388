//! Biases that decay.

use super::*;

/// Biases of convolutions and norms.
fn biases(model: &Model) -> Vec<Vec<f64>> {
    let graph = &model.graph;
    let found = graph.ops().into_iter().filter_map(|node| {
        graph
            .op(node)
            .filter(|op| op.is("Conv") || op.is("BatchNormalization"))?;
        graph.constant(graph.input(node, 2)?)
    });
    found.map(|bias| bias.to_f64s().unwrap()).collect()
}

fn decaying(folder: &TempDir, name: &str, steps: u64) -> AlignOptions {
    AlignOptions {
        joint_steps: Some(12),
        bias_decay: Some(steps),
        sheet: 0,
        ..options(folder, name, Method::Joint)
    }
}

#[test]
fn biases_decay_at_the_final_b() {
    let folder = workplace();
    let mut options = decaying(&folder, "run", 8);
    options.growth = Some(Growth {
        from: 1.0,
        steps: Some(4),
    });
    let aligned = run(&folder, &options).unwrap();
    assert_eq!(aligned.model.metadata("bcosc.biases_kept"), Some("false"));
    let left = biases(&aligned.model);
    assert!(!left.is_empty() && left.iter().flatten().all(|bias| *bias == 0.0));

    // They stay where they are not asked to go.
    options.conversion.settings.biases = Some(Biases::Keep);
    options.bias_decay = None;
    options.work_dir = folder.path().join("kept");
    let kept = run(&folder, &options).unwrap();
    assert_eq!(kept.model.metadata("bcosc.biases_kept"), Some("true"));
    assert!(
        biases(&kept.model)
            .iter()
            .flatten()
            .any(|bias| *bias != 0.0)
    );
}

#[test]
fn a_decay_goes_on_where_it_stopped() {
    let folder = workplace();
    let whole = run(&folder, &decaying(&folder, "whole", 10)).unwrap();
    let mut options = decaying(&folder, "stopped", 10);
    stop(&folder, &options, 5);
    options.resume = true;
    assert_eq!(bytes(&run(&folder, &options).unwrap()), bytes(&whole));
}

#[test]
fn what_has_no_biases_cannot_lose_them() {
    let folder = workplace();
    let mut options = decaying(&folder, "run", 8);
    options.conversion.settings.biases = Some(Biases::Remove);
    let error = run(&folder, &options).unwrap_err().to_string();
    assert!(error.contains("must be kept or carried"), "{error}");
    // Nor does anything decay before B is final, or what is frozen.
    let mut options = decaying(&folder, "blocks", 8);
    options.method = Method::Blocks;
    let error = run(&folder, &options).unwrap_err().to_string();
    assert!(error.contains("there are none"), "{error}");
    let mut options = decaying(&folder, "frozen", 8);
    options.freeze = vec!["stem*".to_owned()];
    let error = run(&folder, &options).unwrap_err().to_string();
    assert!(error.contains("is frozen, but biases decay"), "{error}");
}

#[test]
fn carried_biases_decay_too() {
    let folder = workplace();
    let mut options = decaying(&folder, "run", 4);
    options.method = Method::Grow;
    options.conversion.settings.biases = Some(Biases::Carry);
    let aligned = run(&folder, &options).unwrap();
    assert_eq!(aligned.model.metadata("bcosc.biases_kept"), Some("false"));
    // As weights of the constant, [outputs, 1, 1, 1].
    let graph = &aligned.model.graph;
    let carried = graph
        .ops()
        .into_iter()
        .flat_map(|node| graph.inputs_of(node));
    let carried = carried.flatten().filter(|&value| {
        let name = graph.value_name(value);
        name.ends_with(".bias") && graph.constant(value).is_some_and(|x| x.dims().len() == 4)
    });
    let left: Vec<f64> = carried
        .flat_map(|value| graph.constant(value).unwrap().to_f64s().unwrap())
        .collect();
    assert!(
        !left.is_empty() && left.iter().all(|bias| *bias == 0.0),
        "{left:?}"
    );
}
