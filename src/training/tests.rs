//! Training steps against PyTorch: `fixtures/training/generate.py` has the cases.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bcosc_autodiff::training::{
    Adam, Clip, Exponent, Loss, NormStatistics, Optimiser, Role, Targets,
};
use bcosc_engine::{SessionOptions, default_engine, default_interpreter};
use bcosc_ir::{Interpreter, Model, Tensor, Tensors};
use bcosc_onnx::proto::ModelProto;
use bcosc_passes::{Biases, InputContract};

use super::{Batch, Numbers, Trainer, TrainingOptions, TrainingStep, training_step};
use crate::{Error, Options, Preset, Weights, convert};

const RATES: [f64; 3] = [0.1, 0.05, 0.1];
/// The largest error relative to the largest element of a tensor.
const TOLERANCE: f64 = 2e-5;

fn file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fixtures", "training", name]
        .iter()
        .collect()
}

const BCE: Loss = Loss::BinaryCrossEntropy { off_label: None };
const ADAM: Adam = Adam {
    relative: None,
    betas: [0.9, 0.999],
    eps: 1e-8,
};

fn sgd(momentum: f64, nesterov: bool) -> Optimiser {
    Optimiser::Sgd { momentum, nesterov }
}

/// The options of a case of the script.
fn options(case: &str) -> TrainingOptions {
    let (kind, name) = case.split_once('.').unwrap_or((case, ""));
    let mut options = TrainingOptions::default();
    let step = &mut options.step;
    step.optimiser = sgd(0.0, false);
    let smoothed = |label_smoothing| Loss::CrossEntropy { label_smoothing };
    match kind {
        "loss" => {
            step.loss = match name {
                "bce" | "bce_soft" | "bce_teacher" => BCE,
                "bce_plain" => Loss::BinaryCrossEntropy {
                    off_label: Some(0.0),
                },
                "cross_entropy" | "cross_entropy_soft" | "cross_entropy_teacher" => smoothed(0.0),
                "cross_entropy_smooth" => smoothed(0.1),
                "mse" => Loss::MeanSquare,
                "cosine" => Loss::Cosine,
                "sigmoid_pairs" => Loss::SIGMOID_PAIRS,
                _ => panic!("no loss {name}"),
            };
            step.targets = match name {
                _ if step.loss.needs_teacher() || name.ends_with("_teacher") => Targets::Teacher,
                _ if name.ends_with("_soft") => Targets::Probabilities,
                _ => Targets::Labels,
            };
            if step.targets == Targets::Teacher {
                options.teacher = Some(file("teacher.onnx").into());
            }
        }
        "optimizer" => {
            let decay = name.ends_with("_decay") || name == "sgd_nesterov";
            options.weight_decay = if decay { 0.1 } else { 0.0 };
            step.optimiser = match name {
                "adamw" | "adamw_decay" => Optimiser::AdamW(ADAM),
                "adamw_betas" => Optimiser::AdamW(Adam {
                    betas: [0.8, 0.95],
                    eps: 1e-3,
                    ..ADAM
                }),
                "adam_relative" => Optimiser::Adam(Adam {
                    relative: Some(1e-3),
                    ..ADAM
                }),
                "adam_decay" => Optimiser::Adam(ADAM),
                "sgd" | "sgd_decay" => sgd(0.0, false),
                "sgd_momentum" => sgd(0.9, false),
                "sgd_nesterov" => sgd(0.9, true),
                _ => panic!("no optimizer {name}"),
            };
        }
        "clip" => {
            step.clip = Some(match name {
                "adaptive" => Clip::Adaptive {
                    factor: 0.05,
                    eps: 1e-3,
                },
                "global_norm" => Clip::GlobalNorm { limit: 0.1 },
                _ => panic!("no clipping {name}"),
            });
        }
        _ => {
            step.optimiser = Optimiser::AdamW(ADAM);
            match kind {
                "accumulate" => step.accumulate = 3,
                "average" => step.average = Some(0.7),
                "running" | "fixed" => {
                    step.optimiser = sgd(0.0, false);
                    step.norm_statistics = match kind {
                        "running" => NormStatistics::Running,
                        _ => NormStatistics::Fixed,
                    };
                }
                "norm_decay" => {
                    options.weight_decay = 0.1;
                    options.norm_weight_decay = Some(0.0);
                }
                "frozen" => options.freeze = vec!["conv.*".to_owned()],
                _ => panic!("no case {case}"),
            }
        }
    }
    options
}

/// Runs the steps of the script; returns the losses and the state at the end.
fn run(step: &TrainingStep, targets: Targets, data: &Weights) -> (Vec<f64>, Weights) {
    let of = |index: usize, what: &str| data.get(&format!("batch{index}/{what}")).unwrap().clone();
    let given = |index: usize| match targets {
        Targets::Labels => Some(of(index, "labels")),
        Targets::Probabilities => Some(of(index, "soft")),
        Targets::Teacher => None,
    };
    let batch = Batch {
        input: "images".to_owned(),
        images: of(0, "images").dims(),
        targets: given(0).map(|targets| targets.dims()),
        teacher: (targets == Targets::Teacher).then(|| of(0, "images").dims()),
    };
    let engine = default_engine();
    let session = SessionOptions::default();
    let mut trainer = Trainer::new(step, 0, engine, &batch, &session).unwrap();
    let mut losses = Vec::new();
    for (index, rate) in RATES.into_iter().enumerate() {
        let images = of(index, "images");
        let teacher = batch.teacher.is_some().then(|| images.clone());
        let stepped = trainer.step(images, given(index), teacher, rate.into());
        losses.push(stepped.unwrap().loss);
    }
    (losses, trainer.weights().unwrap())
}

fn error(found: &Tensor, wanted: &Tensor) -> f64 {
    assert_eq!(found.dims(), wanted.dims());
    let (found, wanted) = (found.to_f64s().unwrap(), wanted.to_f64s().unwrap());
    let scale = wanted.iter().fold(0.0, |scale: f64, x| scale.max(x.abs()));
    let errors = found.iter().zip(&wanted).map(|(a, b)| (a - b).abs());
    errors.fold(0.0, f64::max) / scale
}

#[test]
fn steps_are_those_of_pytorch() {
    let data = Weights::read(&file("steps.safetensors")).unwrap();
    let mut cases: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, _) in data.iter() {
        let (case, rest) = name.split_once('/').unwrap();
        cases.entry(case).or_default().insert(rest);
    }
    cases.retain(|case, _| !case.starts_with("batch"));
    assert!(cases.len() >= 28, "cases are missing: {}", cases.len());
    for (case, tensors) in cases {
        let options = options(case);
        let step = training_step(file("network.onnx"), &options).unwrap();
        let (losses, state) = run(&step, options.step.targets, &data);
        let wanted = data.get(&format!("{case}/losses")).unwrap();
        let wanted = wanted.to_f64s().unwrap();
        for (found, wanted) in losses.iter().zip(wanted) {
            assert!(
                (found - wanted).abs() < 1e-5 * wanted.abs(),
                "{case}: {found}, not {wanted}"
            );
        }
        let mut compared = 0;
        for tensor in tensors {
            let Some(name) = tensor.strip_prefix("after/") else {
                continue;
            };
            let wanted = data.get(&format!("{case}/{tensor}")).unwrap();
            let Some(found) = state.get(name) else {
                let absent = match case {
                    "frozen" => "conv.",
                    "fixed" => "norm.running_",
                    _ => "nothing",
                };
                assert!(name.starts_with(absent), "{case}: no {name}");
                continue;
            };
            let error = error(found, wanted);
            assert!(error < TOLERANCE, "{case}, {name}: {error:e}");
            compared += 1;
        }
        assert!(compared >= 5, "{case}: {compared} tensors");
    }
}

/// The standard joins the inference graph and the algorithm.
fn joined(mut model: ModelProto) -> Model {
    let info = model.training_info.remove(0);
    let (mut algorithm, graph) = (*info.algorithm.unwrap(), model.graph.as_mut().unwrap());
    graph.input.append(&mut algorithm.input);
    graph.initializer.append(&mut algorithm.initializer);
    graph.node.append(&mut algorithm.node);
    graph.value_info.append(&mut algorithm.value_info);
    graph.output = algorithm.output;
    for binding in info.update_binding {
        let (key, value) = (binding.key.unwrap(), binding.value.unwrap());
        let mut constants = graph.initializer.iter();
        assert!(
            constants.any(|tensor| tensor.name.as_ref() == Some(&key)),
            "{key}"
        );
        let mut outputs = graph.output.iter();
        assert!(
            outputs.any(|output| output.name.as_ref() == Some(&value)),
            "{value}"
        );
    }
    Model::from_proto(model).unwrap()
}

#[test]
fn the_form_of_the_standard_computes_the_same() {
    let data = Weights::read(&file("steps.safetensors")).unwrap();
    let of = |what: &str| data.get(&format!("batch0/{what}")).unwrap().clone();
    let step = training_step(file("network.onnx"), &options("accumulate")).unwrap();
    let model = joined(step.training_info());
    let graph = &model.graph;
    let inputs = graph.inputs();
    let names: Vec<&str> = inputs
        .iter()
        .map(|value| graph.value_name(*value))
        .collect();
    assert_eq!(names, ["images", "targets", "learning_rate", "step"]);
    let inputs = Tensors::from([
        ("images".to_owned(), of("images")),
        ("targets".to_owned(), of("labels")),
        ("learning_rate".to_owned(), Tensor::f32s(&[], vec![0.1])),
        ("step".to_owned(), Tensor::i64s(&[], vec![1])),
    ]);
    let found = default_interpreter().run(&model, &inputs).unwrap();
    let mut given = inputs.clone();
    given.extend(
        step.state
            .iter()
            .map(|s| (s.input.clone(), s.initial.clone())),
    );
    let wanted = default_interpreter().run(&step.model, &given).unwrap();
    assert_eq!(found.len(), wanted.len());
    for (name, tensor) in wanted {
        assert_eq!(found[&format!("training/{name}")], tensor, "{name}");
    }
}

/// The loss of the first batch, and the state after a step of gradient descent with momentum.
fn first_step(exponent: Exponent, b: Option<f64>) -> (f64, TrainingStep, Weights) {
    let data = Weights::read(&file("steps.safetensors")).unwrap();
    let of = |what: &str| data.get(&format!("batch0/{what}")).unwrap().clone();
    let mut conversion = Options::default();
    conversion.settings.b = 1.5;
    let converted = convert(file("network.onnx"), &conversion).unwrap();
    let mut options = TrainingOptions::default();
    options.step.exponent = exponent;
    options.step.optimiser = sgd(0.5, false);
    let step = converted.training_step(&options).unwrap();
    let batch = Batch {
        input: "images".to_owned(),
        images: of("images").dims(),
        targets: Some(of("labels").dims()),
        teacher: None,
    };
    let session = SessionOptions::default();
    let mut trainer = Trainer::new(&step, 0, default_engine(), &batch, &session).unwrap();
    let numbers = Numbers { b, ..0.1.into() };
    let stepped = trainer
        .step(of("images"), Some(of("labels")), None, numbers)
        .unwrap();
    let state = trainer.weights().unwrap();
    (stepped.loss, step, state)
}

#[test]
fn b_is_an_input_or_learned() {
    let (fixed, ..) = first_step(Exponent::Fixed, None);
    let (learned, step, state) = first_step(Exponent::Learned, None);
    let input = |b: f64| first_step(Exponent::Input, Some(b)).0;
    assert!((learned - fixed).abs() < 1e-6 && (input(1.5) - fixed).abs() < 1e-6);
    let exponents = step.parameters.iter().filter(|p| p.role == Role::Exponent);
    let slopes = exponents.map(|p| {
        assert_eq!(p.tensor.to_f64s().unwrap(), [0.5]);
        let slope = state.get(&format!("{}.momentum_buffer", p.name)).unwrap();
        slope.to_f64s().unwrap()[0]
    });
    let slopes: Vec<f64> = slopes.collect();
    assert_eq!(slopes.len(), 2);
    // All layers have the same B: its slope is the sum over layers.
    let slope = (input(1.52) - input(1.48)) / 0.04;
    let sum: f64 = slopes.iter().sum();
    assert!(slope.abs() > 1e-3, "{slope}");
    assert!(
        (sum - slope).abs() < 0.01 * slope.abs(),
        "{sum} and {slope}"
    );
}

#[test]
fn b_of_a_model_without_b_cos_layers_is_an_error() {
    let mut options = TrainingOptions::default();
    options.step.exponent = Exponent::Input;
    let error = training_step(file("network.onnx"), &options).unwrap_err();
    let Error::Train { source, .. } = error else {
        panic!("{error}")
    };
    assert!(
        source
            .source
            .to_string()
            .contains("there are no B-cos layers"),
        "{source:?}"
    );
}

#[test]
fn biases_are_scaled() {
    let data = Weights::read(&file("steps.safetensors")).unwrap();
    let of = |what: &str| data.get(&format!("batch0/{what}")).unwrap().clone();
    let loss = |b: f64, biases: Biases, scale: Option<f64>| {
        let mut conversion = Options::default();
        conversion.settings.b = b;
        conversion.settings.biases = Some(biases);
        // The images are those of the original.
        conversion.settings.input = InputContract::Rgb;
        conversion.settings.normalization = Some(Preset::None.normalization());
        let converted = convert(file("network.onnx"), &conversion).unwrap();
        let mut options = TrainingOptions::default();
        options.step.scale_biases = scale.is_some();
        let step = converted.training_step(&options).unwrap();
        // The norm keeps zeros in place of its carried bias.
        let count = if biases == Biases::Carry { 3 } else { 2 };
        assert_eq!(step.biases.len(), if scale.is_some() { count } else { 0 });
        let batch = Batch {
            input: "images".to_owned(),
            images: of("images").dims(),
            targets: Some(of("labels").dims()),
            teacher: None,
        };
        let session = SessionOptions::default();
        let mut trainer = Trainer::new(&step, 0, default_engine(), &batch, &session).unwrap();
        let numbers = Numbers {
            bias_scale: scale,
            ..0.1.into()
        };
        let stepped = trainer.step(of("images"), Some(of("labels")), None, numbers);
        stepped.unwrap().loss
    };
    // At B = 2, norms count the constant that carries a bias, whatever its scale.
    let cases = [
        (2.0, Biases::Keep),
        (1.0, Biases::Keep),
        (1.0, Biases::Carry),
    ];
    for (b, biases) in cases {
        let (kept, removed) = (loss(b, Biases::Keep, None), loss(b, Biases::Remove, None));
        assert!((kept - removed).abs() > 1e-3);
        assert!((loss(b, biases, None) - kept).abs() < 1e-6);
        assert!((loss(b, biases, Some(1.0)) - kept).abs() < 1e-6);
        assert!((loss(b, biases, Some(0.0)) - removed).abs() < 1e-6);
    }
    let carried = |scale| loss(2.0, Biases::Carry, scale);
    assert!((carried(Some(1.0)) - carried(None)).abs() < 1e-6);
}

/// Carried biases are parameters, the weights that make the constant are not, and no other constant comes in.
#[test]
fn carried_biases_are_trained() {
    let names = |biases: Biases| {
        let mut conversion = Options::default();
        conversion.settings.biases = Some(biases);
        conversion.settings.input = InputContract::AddInverse;
        conversion.settings.normalization = Some(Preset::None.normalization());
        let converted = convert(file("network.onnx"), &conversion).unwrap();
        let step = converted
            .training_step(&TrainingOptions::default())
            .unwrap();
        let parameters = step.parameters.into_iter();
        let (biases, others): (Vec<_>, Vec<_>) = parameters
            .map(|p| (p.role, p.name))
            .partition(|(role, _)| *role == Role::Bias);
        (biases.len(), others)
    };
    let (removed, carried) = (names(Biases::Remove), names(Biases::Carry));
    assert_eq!(removed.0, 0);
    assert_eq!(carried, (2, removed.1));
}
