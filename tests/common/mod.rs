//! Helpers for end-to-end tests: fixtures, golden tensors, inputs in every format.

#![allow(dead_code)]

use std::path::PathBuf;

use bcosc::passes::Normalization;
use bcosc::{Converted, DeviceChoice};
use bcosc_engine::{Engine, EngineInterpreter};
use bcosc_ir::{Interpreter, Model, Op, Patch, Tensor, Use, Value};
use safetensors::SafeTensors;

/// The root of the repository. Where tests run without cargo, the variable says where it is now.
fn root() -> PathBuf {
    let now = std::env::var_os("CARGO_MANIFEST_DIR");
    now.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

pub fn fixture(network: &str, file: &str) -> PathBuf {
    root().join("fixtures").join(network).join(file)
}

/// The engine that runs models: tract, or that of the device that `BCOSC_TEST_DEVICE` names.
pub fn engine() -> Box<dyn Engine> {
    let device = std::env::var("BCOSC_TEST_DEVICE");
    let device: DeviceChoice = device.map_or(DeviceChoice::Cpu, |name| name.parse().unwrap());
    device.open().unwrap()
}

pub fn golden(network: &str, name: &str) -> Tensor {
    let bytes = std::fs::read(fixture(network, "golden.safetensors")).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = all.tensor(name).unwrap();
    let dims: Vec<u64> = tensor.shape().iter().map(|&d| d as u64).collect();
    Tensor::from_bytes(
        bcosc_ir::DataType::Float,
        &dims,
        tensor.data().to_vec().into(),
    )
}

/// Images per channel as `(x - mean) / std`.
pub fn normalised(images: &Tensor, by: &Normalization) -> Tensor {
    let dims = images.dims();
    let plane = (dims[2] * dims[3]) as usize;
    let values = images
        .to_f32s()
        .unwrap()
        .into_iter()
        .enumerate()
        .map(|(i, x)| {
            let c = i / plane % 3;
            ((f64::from(x) - by.mean[c]) / by.std[c]) as f32
        });
    Tensor::f32s(&dims, values.collect())
}

/// `[x, 1-x]` along the channels.
pub fn with_inverse(images: &Tensor) -> Tensor {
    let dims = images.dims();
    let image = dims[1..].iter().product::<u64>() as usize;
    let values = images.to_f32s().unwrap();
    let doubled = values
        .chunks(image)
        .flat_map(|x| x.iter().copied().chain(x.iter().map(|x| 1.0 - x)));
    Tensor::f32s(&[dims[0], 2 * dims[1], dims[2], dims[3]], doubled.collect())
}

pub fn outputs(converted: &Converted, images: Tensor) -> Vec<f32> {
    let model = &converted.model;
    let input = model.graph.value_name(model.graph.inputs()[0]).to_owned();
    let engine = engine();
    let outputs = EngineInterpreter::new(&*engine)
        .run(model, &[(input, images)].into())
        .unwrap();
    outputs.into_values().next().unwrap().to_f32s().unwrap()
}

pub fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

/// The largest range of a class's logit over the images.
pub fn spread(logits: &[f32]) -> f32 {
    let ranges = (0..10).map(|class| {
        let of_class = logits.iter().skip(class).step_by(10);
        let (low, high) = of_class.fold((f32::MAX, f32::MIN), |(low, high), x| {
            (low.min(*x), high.max(*x))
        });
        high - low
    });
    ranges.fold(0.0, f32::max)
}

/// The classes that the golden explanations are of.
pub fn golden_classes(network: &str) -> Vec<i64> {
    let bytes = std::fs::read(fixture(network, "golden.safetensors")).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let data = all.tensor("explain.class").unwrap().data().to_vec();
    let numbers = data
        .chunks_exact(8)
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()));
    numbers.collect()
}

/// densenet_tiny as the published implementation ran it: an average pool (3x3, stride 2, padding 1)
/// after the last norm. Its stem keeps the max pool that this one was meant to replace; `fixtures/README.md`
/// has the evidence.
pub fn densenet_as_published() -> Vec<u8> {
    let file = bcosc_ir::onnx::read(&fixture("densenet_tiny", "model.onnx")).unwrap();
    let mut model = Model::from_proto(file.model).unwrap();
    let scale = model.graph.value_named("features.norm5.weight").unwrap();
    let [Use::Input { node: norm, .. }] = model.graph.uses(scale)[..] else {
        panic!("one norm uses the scale");
    };
    let normed = Value {
        node: norm,
        slot: 0,
    };
    let pool = Op::new("", "AveragePool")
        .with_ints("kernel_shape", &[3, 3])
        .with_ints("strides", &[2, 2])
        .with_ints("pads", &[1, 1, 1, 1])
        .with_int("count_include_pad", 1);
    let mut patch = Patch::at(norm);
    let pooled = patch.op(pool, &[normed.into()]);
    patch.replace(normed, pooled);
    model.graph.apply(patch).unwrap();
    bcosc_ir::onnx::encode(&model.to_proto()).unwrap().to_vec()
}
