//! B that grows from that of the original.

use super::*;

#[test]
fn b_grows_in_a_phase_of_its_own() {
    let folder = workplace();
    let planned = |steps, method| {
        let options = AlignOptions {
            growth: Some(Growth { from: 1.0, steps }),
            joint_steps: Some(30),
            ..options(&folder, "planned", method)
        };
        let network = folder.path().join("net.onnx");
        let planned = plan_alignment(network, &options, &mut |_| ControlFlow::Continue(()));
        let planned = planned.unwrap().into_iter();
        let joint = planned.filter(|phase| phase.parameters.is_none());
        let named = joint.map(|phase| format!("{}: {}", phase.name, phase.steps));
        named.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(
        planned(None, Method::Joint),
        "joint, B grows: 15, joint: 15"
    );
    assert_eq!(
        planned(Some(20), Method::BlocksJoint),
        "joint, B grows: 20, joint: 10"
    );
}

/// Norms follow a growing B, and then keep their statistics; with those of batches they go on.
#[test]
fn at_the_final_b_norms_stay() {
    let folder = workplace();
    let statistics = |name: &str, steps, norm_statistics| {
        let mut options = AlignOptions {
            growth: Some(Growth {
                from: 1.0,
                steps: Some(4),
            }),
            joint_steps: Some(steps),
            norm_statistics,
            sheet: 0,
            ..options(&folder, name, Method::Joint)
        };
        options.conversion.settings.biases = Some(Biases::Carry);
        let model = run(&folder, &options).unwrap().model;
        let graph = &model.graph;
        let norms = graph.ops().into_iter().filter(|&node| {
            let op = graph.op(node);
            op.is_some_and(|op| op.is("BatchNormalization"))
        });
        let variances = norms.filter_map(|node| graph.constant(graph.input(node, 4)?));
        variances.collect::<Vec<_>>()
    };
    let kept = statistics("four", 5, None);
    assert!(!kept.is_empty());
    assert_eq!(statistics("more", 9, None), kept);
    let batch = Some(NormStatistics::Batch);
    assert_ne!(
        statistics("batch", 5, batch),
        statistics("batches", 9, batch)
    );
}

/// With its biases carried and its norms as they were, the model starts as the original. With the statistics of a batch it does not.
#[test]
fn b_grows_from_the_original() {
    let folder = workplace();
    let mut options = AlignOptions {
        growth: Some(Growth {
            from: 1.0,
            steps: None,
        }),
        joint_steps: Some(8),
        sheet: 0,
        ..options(&folder, "grown", Method::Joint)
    };
    options.conversion.settings.biases = Some(Biases::Carry);
    let before = |options: &AlignOptions| run(&folder, options).unwrap().phases[0].before;
    let exact = before(&options);
    assert!(exact < 1e-9, "{exact:e}");
    options.norm_statistics = Some(NormStatistics::Batch);
    options.work_dir = folder.path().join("batch");
    let batch = before(&options);
    assert!(batch > 1e-4, "{batch:e}");
}

#[test]
fn networks_that_segments_do_not_suit_grow() {
    let folder = workplace();
    let planned = |file: &str, method| {
        let options = options(&folder, "planned", method);
        let path = folder.path().join(file);
        let planned = plan_alignment(path, &options, &mut |_| ControlFlow::Continue(()));
        let names = planned.unwrap().into_iter().map(|phase| phase.name);
        names.collect::<Vec<_>>()
    };
    let (blocks, grow) = (["segment 1", "segment 2"], ["joint, B grows", "joint"]);
    assert_eq!(planned("net.onnx", Method::Auto), blocks);
    assert_eq!(planned("net.onnx", Method::Grow), grow);
    let depthwise = network("height", "width")
        .conv(
            "features",
            "apart",
            &[8, 1, 3, 3],
            [Attribute::int("group", 8)],
        )
        .op("GlobalAveragePool", &["apart"], "apart_pooled", [])
        .op("Flatten", &["apart_pooled"], "apart_logits", [])
        .output("apart_logits");
    let bytes = onnx::encode(&depthwise.proto()).unwrap();
    fs::write(folder.path().join("depthwise.onnx"), bytes).unwrap();
    assert_eq!(planned("depthwise.onnx", Method::Auto), grow);

    // Without biases a model does not start as its original. They cannot be carried without 1-x, but kept.
    let depthwise = |method, input, biases| {
        let mut plain = options(&folder, "plain", method);
        let settings = &mut plain.conversion.settings;
        (settings.input, settings.biases) = (input, biases);
        settings.absorb_normalization = input != InputContract::Same;
        let path = folder.path().join("depthwise.onnx");
        let phases = plan_alignment(path, &plain, &mut |_| ControlFlow::Continue(()));
        phases.map(|phases| phases[0].name.clone())
    };
    let [same, inverse] = [InputContract::Same, InputContract::AddInverse];
    for (input, biases, first) in [
        (same, None, "segment 1"),
        (same, Some(Biases::Keep), "joint, B grows"),
        (inverse, Some(Biases::Keep), "joint, B grows"),
        (inverse, Some(Biases::Remove), "segment 1"),
    ] {
        let found = depthwise(Method::Auto, input, biases).unwrap();
        assert_eq!(found, first, "{input:?} {biases:?}");
    }
    assert_eq!(
        depthwise(Method::Grow, same, None).unwrap(),
        "joint, B grows"
    );
    let error = depthwise(Method::Grow, inverse, Some(Biases::Remove)).unwrap_err();
    assert!(error.to_string().contains("keeps or carries"), "{error}");
    // Nor does a converted one.
    let converted = convert(folder.path().join("net.onnx"), &conversion()).unwrap();
    let again = AlignOptions {
        teacher: Some(folder.path().join("net.onnx").into()),
        ..options(&folder, "again", Method::Grow)
    };
    let bytes = onnx::encode(&converted.model.to_proto()).unwrap();
    let error = plan_alignment(bytes, &again, &mut |_| ControlFlow::Continue(()));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("--method joint --b-from"), "{error}");
}

#[test]
fn grow_is_joint_with_carried_biases_from_one() {
    let folder = workplace();
    let one = |name: &str, method| AlignOptions {
        joint_steps: Some(6),
        sheet: 0,
        ..options(&folder, name, method)
    };
    let grown = run(&folder, &one("grown", Method::Grow)).unwrap();
    let mut joint = one("joint", Method::Joint);
    joint.growth = Some(Growth {
        from: 1.0,
        steps: None,
    });
    joint.conversion.settings.biases = Some(Biases::Carry);
    assert!(bytes(&grown) == bytes(&run(&folder, &joint).unwrap()));
}
