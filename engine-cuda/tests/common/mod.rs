//! Graphs for tests of plans, and plans run on the CPU.

#![allow(dead_code)]

pub mod cpu;
pub mod device;

use std::path::{Path, PathBuf};

use bcosc::autodiff::training::{Clip, StepOptions};
use bcosc::passes::InputContract;
use bcosc::{Converted, Options, Preset, TrainingOptions, TrainingStep, convert};
use bcosc_engine::{InputShapes, default_interpreter};
use bcosc_ir::{Dim, Interpreter, Model, Tensor, Tensors};
use bcosc_testing::noise;

/// The golden networks.
pub const NETWORKS: [&str; 6] = [
    "resnet_tiny",
    "resnet_tiny_grouped",
    "densenet_tiny",
    "vit_tiny",
    "vitc_tiny",
    "clip_rn_tiny",
];

/// The folder of fixtures. Where tests run without cargo, the variable says where the crate is now.
pub fn fixtures() -> PathBuf {
    let now = std::env::var_os("CARGO_MANIFEST_DIR");
    let crate_folder = now.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    crate_folder.join("..").join("fixtures")
}

/// What is made of a network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Graph {
    Forward,
    Explanation,
    Step,
}

impl Graph {
    pub const ALL: [Graph; 3] = [Graph::Forward, Graph::Explanation, Graph::Step];
}

pub fn converted(network: &str, b: f64) -> Converted {
    converted_from(&fixtures().join(network).join("model.onnx"), network, b)
}

/// A network from a file. CLIP's names begin with its own.
pub fn converted_from(file: &Path, network: &str, b: f64) -> Converted {
    let mut options = Options::default();
    options.settings.b = b;
    options.settings.input = InputContract::AddInverse;
    let preset = if network.starts_with("clip") {
        Preset::Clip
    } else {
        Preset::Imagenet
    };
    options.settings.normalization = Some(preset.normalization());
    options.verification.when = bcosc::Verify::Off;
    convert(file, &options).unwrap()
}

/// The graph of a network for the engine, and the same in standard operators alone.
pub fn graph(network: &str, graph: Graph) -> (Model, Model) {
    graph_of(&converted(network, 2.0), graph)
}

/// As [`graph`], of a network that is converted.
pub fn graph_of(converted: &Converted, graph: Graph) -> (Model, Model) {
    match graph {
        Graph::Forward => (converted.model.clone(), converted.model.clone()),
        Graph::Explanation => {
            let model = converted.explanation_graph().unwrap();
            (model.clone(), model)
        }
        Graph::Step => {
            let step = |whole_gradients| training_step(converted, whole_gradients).model;
            (step(true), step(false))
        }
    }
}

/// A training step that clips gradients.
pub fn training_step(converted: &Converted, whole_gradients: bool) -> TrainingStep {
    let step = StepOptions {
        whole_gradients,
        clip: Some(Clip::ADAPTIVE),
        ..StepOptions::default()
    };
    let options = TrainingOptions {
        step,
        ..TrainingOptions::default()
    };
    converted.training_step(&options).unwrap()
}

/// Shapes of all inputs; sizes that are open are `batch`, and `pixels` for height and width.
pub fn shapes(model: &Model, batch: u64, pixels: u64) -> InputShapes {
    let graph = &model.graph;
    let shape = |value| {
        let dims = graph.value_type(value).unwrap().shape.unwrap();
        let rank = dims.len();
        let size = |(axis, dim): (usize, Dim)| match dim.known() {
            Some(size) => size,
            None if rank == 4 && axis >= 2 => pixels,
            None => batch,
        };
        dims.into_iter().enumerate().map(size).collect()
    };
    let inputs = graph.inputs().into_iter();
    inputs
        .map(|value| (graph.value_name(value).to_owned(), shape(value)))
        .collect()
}

/// Values for inputs: images in [0, 1] with their inverse, small weights, classes.
pub fn inputs(model: &Model, shapes: &InputShapes) -> Tensors {
    let graph = &model.graph;
    let mut found = Tensors::new();
    for (seed, value) in graph.inputs().into_iter().enumerate() {
        let name = graph.value_name(value).to_owned();
        let dims = &shapes[&name];
        let count: u64 = dims.iter().product();
        let dtype = graph.value_type(value).unwrap().dtype;
        let numbers = noise(seed as u64, count);
        let tensor = match dtype {
            bcosc_ir::DataType::Int64 if name == "step" => Tensor::i64s(dims, vec![3]),
            bcosc_ir::DataType::Int64 => Tensor::i64s(
                dims,
                (0..count as i64)
                    .map(|n| n * 3 % 10 - i64::from(name == "target"))
                    .collect(),
            ),
            dtype => {
                let image = dims.len() == 4 && dims[1] == 6 && seed == 0;
                let numbers: Vec<f64> = match name.as_str() {
                    "learning_rate" => vec![1e-3],
                    _ if image => with_inverse(dims, &numbers),
                    // Second moments and running variances are positive.
                    _ => numbers.iter().map(|x| x.abs() * 0.3).collect(),
                };
                Tensor::floats(dtype, dims, &numbers).unwrap()
            }
        };
        found.insert(name, tensor);
    }
    found
}

/// `[x, 1-x]` for images in [0, 1].
fn with_inverse(dims: &[u64], numbers: &[f64]) -> Vec<f64> {
    let image = (dims[1] * dims[2] * dims[3]) as usize;
    let places = (0..numbers.len()).map(|at| {
        let (of_image, inside) = (at / image * image, at % image);
        let half = image / 2;
        let x = numbers[of_image + inside % half].abs() / 1.1;
        if inside < half { x } else { 1.0 - x }
    });
    places.collect()
}

/// What tract computes.
pub fn reference(model: &Model, inputs: &Tensors) -> Tensors {
    default_interpreter().run(model, inputs).unwrap()
}

/// The largest difference relative to the range of the numbers, and where: logits may be close to one another.
pub fn difference(found: &Tensors, expected: &Tensors) -> (f64, String) {
    let mut worst = (0.0, String::new());
    for (name, wanted) in expected {
        let found = &found[name];
        assert_eq!(found.dims(), wanted.dims(), "{name}");
        let numbers = |tensor: &Tensor| match tensor.to_f64s() {
            Ok(numbers) => numbers,
            Err(_) => tensor
                .to_i64s()
                .unwrap()
                .into_iter()
                .map(|n| n as f64)
                .collect(),
        };
        let (a, b) = (numbers(found), numbers(wanted));
        let finite = b.iter().filter(|x| x.is_finite());
        let (low, high) = finite.fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(*x), h.max(*x)));
        let scale = match high - low {
            range if range > 0.0 => range,
            _ => high.abs().max(1e-30),
        };
        for (x, y) in a.iter().zip(&b) {
            let same = x == y || x.is_nan() && y.is_nan();
            let error = if same { 0.0 } else { (x - y).abs() / scale };
            let error = if error.is_nan() { f64::INFINITY } else { error };
            if error > worst.0 {
                worst = (error, format!("{name}: {x} for {y} in a range of {scale}"));
            }
        }
    }
    worst
}
