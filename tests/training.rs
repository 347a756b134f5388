//! Training steps of converted fixtures against the published implementation.
//!
//! Parameters have other names and, in transformers, transposed weights in ONNX. So each golden gradient is
//! assigned the parameter of its shape whose gradient is closest, no parameter twice.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use bcosc::autodiff::training::{Clip, StateKind, StepOptions};
use bcosc::engine::SessionOptions;
use bcosc::passes::InputContract;
use bcosc::{
    Batch, Converted, Options, Preset, Source, Trainer, TrainingOptions, TrainingStep, convert,
    training_step,
};
use bcosc_ir::{DataType, Tensor};
use common::{densenet_as_published, engine, fixture, golden, with_inverse};
use safetensors::SafeTensors;

const NETWORKS: [&str; 5] = [
    "resnet_tiny",
    "resnet_tiny_grouped",
    "densenet_tiny",
    "vit_tiny",
    "vitc_tiny",
];

/// The tensors of a part of the golden training data, by parameter.
fn part(network: &str, part: &str) -> BTreeMap<String, Tensor> {
    let bytes = std::fs::read(fixture(network, "training.safetensors")).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let mut found = BTreeMap::new();
    for (name, view) in all.iter() {
        let Some(parameter) = name.strip_prefix(part) else {
            continue;
        };
        let dims: Vec<u64> = view.shape().iter().map(|&d| d as u64).collect();
        let dtype = match view.dtype() {
            safetensors::Dtype::F32 => DataType::Float,
            safetensors::Dtype::F64 => DataType::Double,
            safetensors::Dtype::I64 => DataType::Int64,
            other => panic!("{other:?}"),
        };
        let tensor = Tensor::from_bytes(dtype, &dims, view.data().to_vec().into());
        found.insert(parameter.to_owned(), tensor);
    }
    assert!(!found.is_empty(), "{network} has no {part}");
    found
}

fn converted(network: &str) -> Converted {
    let mut options = Options::default();
    options.settings.input = InputContract::AddInverse;
    options.settings.normalization = Some(Preset::Imagenet.normalization());
    let source: Source = match network {
        "densenet_tiny" => {
            options.settings.keep_max_pool = true;
            densenet_as_published().into()
        }
        _ => fixture(network, "model.onnx").into(),
    };
    convert(source, &options).unwrap()
}

/// What the published implementation does not train.
fn frozen(network: &str) -> Vec<String> {
    match network {
        "vit_tiny" | "vitc_tiny" => vec!["node_cat*".to_owned()],
        _ => Vec::new(),
    }
}

fn step(network: &str, options: StepOptions) -> TrainingStep {
    let model = converted(network).to_bytes().unwrap();
    let options = TrainingOptions {
        step: StepOptions {
            whole_gradients: engine().has_markers(),
            ..options
        },
        freeze: frozen(network),
        ..TrainingOptions::default()
    };
    training_step(model.to_vec(), &options).unwrap()
}

/// Runs steps at a rate of 1e-3; returns the losses and the state after each.
fn run(network: &str, step: &TrainingStep, steps: usize) -> (Vec<f64>, Vec<bcosc::Weights>) {
    let images = with_inverse(&golden(network, "image"));
    let labels = part(network, "train.labels").remove("").unwrap();
    let graph = &step.model.graph;
    let batch = Batch {
        input: graph.value_name(graph.inputs()[0]).to_owned(),
        images: images.dims(),
        targets: Some(labels.dims()),
        teacher: None,
    };
    let engine = engine();
    let options = SessionOptions::default();
    let mut trainer = Trainer::new(step, 0, &*engine, &batch, &options).unwrap();
    let (mut losses, mut states) = (Vec::new(), Vec::new());
    for _ in 0..steps {
        let stepped = trainer.step(images.clone(), Some(labels.clone()), None, 1e-3.into());
        losses.push(stepped.unwrap().loss);
        states.push(trainer.weights().unwrap());
    }
    (losses, states)
}

/// A weight as it is, turned, and with the channels [x, 1-x] of each pixel of a patch side by side; those of the
/// golden tensor's shape.
fn forms(tensor: &Tensor, golden: &Tensor) -> Vec<Vec<f64>> {
    let (dims, wanted) = (tensor.dims(), golden.dims());
    let elements = tensor.to_f64s().unwrap();
    let mut forms = Vec::new();
    if let [rows, columns] = dims[..]
        && wanted == [columns, rows]
    {
        let (rows, columns) = (rows as usize, columns as usize);
        let turned = |row: &dyn Fn(usize) -> usize| -> Vec<f64> {
            let places = (0..columns).flat_map(|c| (0..rows).map(move |r| (c, r)));
            places
                .map(|(c, r)| elements[row(r) * columns + c])
                .collect()
        };
        forms.push(turned(&|r| r));
        if rows % 6 == 0 {
            // Three channels of x for every pixel, then three of 1 - x.
            let half = rows / 2;
            forms.push(turned(&|r| r % 6 / 3 * half + r / 6 * 3 + r % 3));
        }
    }
    let long = |dims: &[u64]| dims.iter().copied().filter(|&d| d != 1).collect::<Vec<_>>();
    if dims == wanted || (wanted.len() == 1 && long(&dims) == wanted) {
        forms.push(elements);
    }
    forms
}

/// The largest difference.
fn distance(found: &[f64], golden: &Tensor) -> f64 {
    let golden = golden.to_f64s().unwrap();
    let errors = found.iter().zip(&golden).map(|(a, b)| (a - b).abs());
    errors.fold(0.0, f64::max)
}

/// The form of a weight that is closest to a golden one.
fn like(tensor: &Tensor, golden: &Tensor) -> Option<Vec<f64>> {
    let forms = forms(tensor, golden).into_iter();
    forms.min_by(|a, b| distance(a, golden).total_cmp(&distance(b, golden)))
}

/// The largest difference relative to the largest element of the golden tensor.
fn error(tensor: &Tensor, golden: &Tensor) -> Option<f64> {
    let found = like(tensor, golden)?;
    let golden_elements = golden.to_f64s().unwrap();
    let scale = golden_elements
        .iter()
        .fold(0.0, |scale: f64, x| scale.max(x.abs()));
    Some(distance(&found, golden) / scale)
}

/// The parameter of each golden gradient, and the largest error.
fn assigned(
    gradients: &BTreeMap<String, Tensor>,
    golden: &BTreeMap<String, Tensor>,
) -> (BTreeMap<String, String>, f64) {
    // What is far smaller than all others is rounding: the loss does not depend on the scale of a norm that only
    // scale-invariant layers read, as in densenet_tiny's stem.
    let largest = |tensor: &Tensor| {
        let elements = tensor.to_f64s().unwrap();
        elements
            .iter()
            .fold(0.0, |scale: f64, x| scale.max(x.abs()))
    };
    let floor = 1e-5 * golden.values().map(largest).fold(0.0, f64::max);
    let mut taken = BTreeSet::new();
    let (mut names, mut worst) = (BTreeMap::new(), 0.0f64);
    for (name, wanted) in golden {
        let errors = gradients
            .iter()
            .filter(|(parameter, _)| !taken.contains(*parameter))
            .filter_map(|(parameter, found)| Some((error(found, wanted)?, parameter)));
        let closest = errors.min_by(|a, b| a.0.total_cmp(&b.0));
        let (error, parameter) =
            closest.unwrap_or_else(|| panic!("nothing has the shape of {name}"));
        taken.insert(parameter.clone());
        names.insert(name.clone(), parameter.clone());
        if largest(wanted) > floor {
            worst = worst.max(error);
        }
    }
    (names, worst)
}

/// The gradients of the first step: what momentum has after it.
fn steep(network: &str, clip: Option<Clip>) -> BTreeMap<String, Tensor> {
    let options = StepOptions {
        optimiser: bcosc::autodiff::training::Optimiser::Sgd {
            momentum: 0.5,
            nesterov: false,
        },
        clip,
        ..StepOptions::default()
    };
    let step = step(network, options);
    let (_, states) = run(network, &step, 1);
    let of = |name: &str| {
        let buffer = states[0].get(&format!("{name}.momentum_buffer"));
        buffer.unwrap().clone()
    };
    let parameters = step.parameters.iter();
    parameters.map(|p| (p.name.clone(), of(&p.name))).collect()
}

#[test]
fn gradients_are_those_of_the_published_implementation() {
    for network in NETWORKS {
        let wanted = part(network, "train.grad/");
        let found = steep(network, None);
        assert_eq!(found.len(), wanted.len(), "{network}: {:?}", found.keys());
        let (_, worst) = assigned(&found, &wanted);
        assert!(worst < 1e-4, "{network}: {worst:e}");
    }
}

#[test]
fn clipped_gradients_too() {
    for network in NETWORKS {
        let wanted = part(network, "train.grad_agc/");
        let (_, worst) = assigned(&steep(network, Some(Clip::ADAPTIVE)), &wanted);
        assert!(worst < 1e-4, "{network}: {worst:e}");
    }
}

#[test]
fn five_clipped_steps_of_adamw_are_those_of_the_published_implementation() {
    for network in NETWORKS {
        let (names, _) = assigned(&steep(network, None), &part(network, "train.grad/"));
        let options = StepOptions {
            clip: Some(Clip::ADAPTIVE),
            ..StepOptions::default()
        };
        let step = step(network, options);
        let (losses, states) = run(network, &step, 5);
        let wanted = part(network, "losses").remove("").unwrap();
        for (found, wanted) in losses.iter().zip(wanted.to_f64s().unwrap()) {
            assert!(
                (found - wanted).abs() < 1e-5,
                "{network}: {found}, not {wanted}"
            );
        }
        for (state, steps) in [(&states[0], "train.step1/"), (&states[4], "train.step5/")] {
            let (mut far, mut all) = (0, 0);
            for (name, wanted) in part(network, steps) {
                let found = like(state.get(&names[&name]).unwrap(), &wanted).unwrap();
                for (found, wanted) in found.iter().zip(wanted.to_f64s().unwrap()) {
                    all += 1;
                    far += usize::from((found - wanted).abs() > 1e-5);
                }
            }
            // AdamW divides a gradient by its size: where it is rounding, so is the step.
            assert!(
                far * 1000 < all,
                "{network}, {steps}: {far} of {all} differ"
            );
        }
        let statistics = step.state.iter().filter(|s| s.kind == StateKind::Statistic);
        let found: BTreeMap<String, Tensor> = statistics
            .map(|s| (s.input.clone(), states[4].get(&s.input).unwrap().clone()))
            .collect();
        if !found.is_empty() {
            let wanted = part(network, "train.step5_running_var/");
            assert_eq!(found.len(), wanted.len());
            let (_, worst) = assigned(&found, &wanted);
            assert!(worst < 2e-5, "{network}: running variances at {worst:e}");
        }
    }
}
