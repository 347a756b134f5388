//! Random inputs and weights.

use bcosc_ir::{DataType, Dim, Model, Tensor, Tensors, Value};

/// Inputs without zeros, the same each time; every size that is open is `batch`, and 5 more for the height and width of images.
pub fn inputs_for(model: &Model, batch: u64) -> Tensors {
    let graph = &model.graph;
    let inputs = graph.inputs().into_iter().enumerate();
    inputs
        .map(|(i, value)| {
            (
                graph.value_name(value).to_owned(),
                input(model, value, i as u64, batch),
            )
        })
        .collect()
}

fn input(model: &Model, value: Value, seed: u64, batch: u64) -> Tensor {
    let Some(declared) = model.graph.value_type(value) else {
        panic!("an input without a type")
    };
    let shape = declared.shape.unwrap_or_default();
    let pixels = |axis| if shape.len() == 4 && axis >= 2 { 5 } else { 0 };
    let sizes = shape.iter().map(Dim::known).enumerate();
    let dims: Vec<u64> = sizes
        .map(|(axis, size)| size.unwrap_or(batch + pixels(axis)))
        .collect();
    let count = dims.iter().product();
    match declared.dtype {
        DataType::Int64 => Tensor::i64s(&dims, (1..=count as i64).collect()),
        DataType::Bool => Tensor::from_bytes(DataType::Bool, &dims, vec![1; count as usize].into()),
        dtype => match Tensor::floats(dtype, &dims, &noise(seed, count)) {
            Some(tensor) => tensor,
            None => panic!("inputs of type {dtype} are not made here"),
        },
    }
}

/// Numbers between 0.1 and 1.1 of either sign, the same for the same seed.
pub fn noise(seed: u64, count: u64) -> Vec<f64> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = |_| {
        // A linear congruential generator: its high bits are random enough.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let unit = (state >> 11) as f64 / (1u64 << 53) as f64;
        if unit < 0.5 {
            2.0 * unit + 0.1
        } else {
            -(2.0 * unit - 0.9)
        }
    };
    (0..count).map(number).collect()
}

/// A random weight.
pub fn weight(seed: u64, dims: &[u64]) -> Tensor {
    let numbers = noise(seed.wrapping_add(1000), dims.iter().product());
    Tensor::f32s(dims, numbers.into_iter().map(|x| x as f32).collect())
}

/// The numbers 1, 2, 3, ...
pub fn counting(dims: &[u64]) -> Tensor {
    let count = dims.iter().product::<u64>();
    Tensor::f32s(dims, (1..=count).map(|i| i as f32).collect())
}

/// Random inputs for a batch of 2.
pub fn batch(model: &Model) -> Tensors {
    inputs_for(model, 2)
}
