//! Values of a converted model equal the values they stand for: both graphs are cut at matching places, and
//! both parts are run.

mod common;

use std::collections::BTreeSet;

use bcosc::Preset;
use bcosc::passes::{
    Context, Effect, InputContract, LogitBias, Normalization, Pass, Settings, pipeline, recipe,
};
use bcosc_engine::default_interpreter;
use bcosc_ir::{Graph, Interpreter, Model, Node, Tensor, Tensors, Value};
use common::{fixture, golden, normalised, with_inverse};

type Recipe = &'static [&'static [&'static Pass]];

const EXPORTS: [&str; 3] = ["model.onnx", "model.folded.onnx", "model.opset13.onnx"];

const NETWORKS: [(&str, Recipe); 5] = [
    ("resnet_tiny", recipe::CNN),
    ("densenet_tiny", recipe::CNN),
    ("vit_tiny", recipe::VIT),
    ("vitc_tiny", recipe::VIT),
    ("clip_rn_tiny", recipe::CLIP),
];

/// Single precision has too few digits below this; uncalibrated networks get there at B = 2.
const DEAD: f64 = 1e-30;

fn read(network: &str, export: &str) -> Option<Model> {
    let path = fixture(network, export);
    let file = path
        .exists()
        .then(|| bcosc_ir::onnx::read(&path).unwrap())?;
    Some(Model::from_proto(file.model).unwrap())
}

fn passed(model: &Model, passes: &[&'static Pass], settings: &Settings) -> Model {
    let cx = Context {
        settings,
        interpreter: default_interpreter(),
        calibration: None,
    };
    let mut model = model.clone();
    pipeline::run(&mut model, passes, &cx, |_, _| {}).unwrap();
    model
}

fn settings(b: f64) -> Settings {
    Settings {
        b,
        logit_bias: LogitBias::None,
        normalization: Some(Preset::Imagenet.normalization()),
        ..Settings::default()
    }
}

fn inputs(model: &Model, images: Tensor) -> Tensors {
    let input = model.graph.value_name(model.graph.inputs()[0]);
    [(input.to_owned(), images)].into()
}

/// Some intermediate values of a model, by cutting the model after them.
fn computed(model: &Model, values: &BTreeSet<Value>, inputs: &Tensors) -> Tensors {
    let values: Vec<Value> = values.iter().copied().collect();
    let part = model.extract(&model.graph.inputs(), &values).unwrap();
    default_interpreter().run(&part, inputs).unwrap()
}

/// Values that stand for something and are computed from the input's elements, not from its shape or type alone.
fn activations(graph: &Graph) -> Vec<Value> {
    let is_size = |value: Value| {
        let producer = graph.producer(value);
        producer.is_some_and(|(_, op)| ["Shape", "Size", "CastLike"].iter().any(|name| op.is(name)))
    };
    let is_activation = |value: &Value| {
        let cone = graph.cone(&[*value], is_size);
        let input = |id| matches!(graph.node(id), Node::Input(_));
        !graph.stands_for(*value).is_empty() && cone.nodes.into_iter().any(input)
    };
    let ops = graph.ops().into_iter();
    let values =
        ops.flat_map(|id| (0..graph.output_count(id)).map(move |slot| graph.output(id, slot)));
    values.filter(is_activation).collect()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    let integers = || {
        tensor
            .to_i64s()
            .map(|v| v.into_iter().map(|x| x as f64).collect())
    };
    tensor.to_f64s().or_else(|_| integers()).unwrap()
}

/// Checks that values of two models that stand for the same value are equal; returns the share of the first
/// model's activations that was found in the second.
fn assert_match(one: (&Model, Tensor), other: (&Model, Tensor), label: &str) -> f64 {
    let [(a, a_images), (b, b_images)] = [one, other];
    let found = b.graph.provenance();
    let all = activations(&a.graph);
    let mut pairs: Vec<(String, Value, Value)> = Vec::new();
    let mut matched = 0;
    for &value in &all {
        let names = a.graph.stands_for(value);
        matched += usize::from(names.iter().any(|name| found.contains_key(name)));
        for name in names {
            let twin = found.get(name).filter(|v| b.graph.op(v.node).is_some());
            pairs.extend(twin.map(|&twin| (name.to_string(), value, twin)));
        }
    }
    let ours = computed(
        a,
        &pairs.iter().map(|p| p.1).collect(),
        &inputs(a, a_images),
    );
    let theirs = computed(
        b,
        &pairs.iter().map(|p| p.2).collect(),
        &inputs(b, b_images),
    );
    for (name, value, twin) in pairs {
        let ours = &ours[a.graph.value_name(value)];
        let theirs = &theirs[b.graph.value_name(twin)];
        assert_eq!(ours.dims(), theirs.dims(), "{label}: {name}");
        let (ours, theirs) = (numbers(ours), numbers(theirs));
        let scale = ours.iter().fold(0.0, |scale: f64, x| scale.max(x.abs()));
        if scale < DEAD {
            continue;
        }
        let differences = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs());
        let largest = differences.fold(0.0, f64::max);
        assert!(
            largest <= 1e-5 * scale,
            "{label}: \"{}\" is not \"{name}\": {largest:e} of {scale:e}",
            b.graph.value_name(twin)
        );
    }
    matched as f64 / all.len() as f64
}

#[test]
fn values_are_what_they_stand_for_after_exact_passes() {
    for (network, recipe) in NETWORKS {
        let passes = pipeline::exact(&recipe.concat());
        assert!(passes.iter().all(|pass| pass.effect == Effect::Exact));
        let images = golden(network, "image");
        let imagenet: Normalization = Preset::Imagenet.normalization();
        let taken = normalised(&images, &imagenet);
        for export in EXPORTS {
            let Some(original) = read(network, export) else {
                continue;
            };
            let contracts = [
                (InputContract::Same, false, taken.clone()),
                (InputContract::AddInverse, false, with_inverse(&images)),
                (InputContract::Rgb, true, images.clone()),
            ];
            for (input, absorb_normalization, given) in contracts {
                let settings = Settings {
                    input,
                    absorb_normalization,
                    ..settings(1.0)
                };
                let converted = passed(&original, &passes, &settings);
                let label = format!("{network}/{export} {input:?}");
                // The original takes normalised pixels, not raw ones.
                let image = original.graph.value_name(original.graph.inputs()[0]);
                let image = converted.graph.standing_for(image);
                assert_eq!(image.is_some(), input == InputContract::Same, "{label}");
                let share = assert_match((&original, taken.clone()), (&converted, given), &label);
                assert!(share > 0.85, "{label}: {share}");
            }
        }
    }
}

#[test]
fn values_of_a_recipe_are_those_of_the_altered_original() {
    for (network, recipe) in NETWORKS {
        let passes = recipe.concat();
        let images = normalised(&golden(network, "image"), &Preset::Imagenet.normalization());
        for export in EXPORTS {
            let Some(original) = read(network, export) else {
                continue;
            };
            let settings = settings(1.0);
            // Biases are constants only in the canonical form.
            let canonical = passed(&original, recipe::CANONICAL, &settings);
            let altered = passed(&canonical, &pipeline::altering(&passes), &settings);
            let converted = passed(&original, &passes, &settings);
            let label = format!("{network}/{export}");
            let share = assert_match(
                (&altered, images.clone()),
                (&converted, images.clone()),
                &label,
            );
            assert!(share > 0.8, "{label}: {share}");
        }
    }
}

#[test]
fn values_of_the_deploy_form_are_those_of_the_plain_one() {
    for (network, recipe) in NETWORKS {
        let passes = recipe.concat();
        let images = normalised(&golden(network, "image"), &Preset::Imagenet.normalization());
        let Some(original) = read(network, "model.onnx") else {
            continue;
        };
        let plain = passed(&original, &passes, &settings(2.0));
        let settings = Settings {
            deploy: true,
            ..settings(2.0)
        };
        let deployed = passed(&original, &passes, &settings);
        let share = assert_match((&plain, images.clone()), (&deployed, images), network);
        assert!(share > 0.3, "{network}: {share}");
    }
}
