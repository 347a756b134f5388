//! A conversion without proof accepts any bytes: it returns an error, or a model that can be read and
//! imported. Likewise its explanation graph.
//!
//! Weights would be most of an input, and changing them finds little. Inputs may leave them out: a
//! floating-point initializer without data is filled in here.

#![no_main]

use bcosc::ir::Model;
use bcosc::onnx::proto::{ModelProto, TensorProto};
use bcosc::onnx::{DataType, decode, encode};
use bcosc::passes::{Biases, InputContract, LogitBias};
use bcosc::{Options, Preset, Verify};
use libfuzzer_sys::fuzz_target;

/// Weights that are filled in have at most so many elements.
const LARGEST: u64 = 1 << 18;

fuzz_target!(|data: &[u8]| {
    let Ok(mut file) = decode(data.to_vec().into()) else {
        return;
    };
    let initializers = file
        .model
        .graph
        .iter_mut()
        .flat_map(|graph| &mut graph.initializer);
    initializers.for_each(fill);
    let bytes = encode(&file.model).expect("what was read can be written");
    let choices = data.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    let Ok(converted) = bcosc::convert(bytes, &options(choices)) else {
        return;
    };
    let bytes = converted
        .to_bytes()
        .expect("what was converted can be written");
    readable(decode(bytes).expect("what was written can be read").model);
    if let Ok(explained) = converted.explanation_graph() {
        readable(explained.to_proto());
    }
});

fn readable(model: ModelProto) {
    Model::from_proto(model).expect("the result can be imported");
}

/// The bits of a number as options, so that a corpus comes to try all of them.
fn options(choices: u8) -> Options {
    let chosen = |bit: u8| choices >> bit & 1 == 1;
    let mut options = Options::default();
    options.verification.when = Verify::Off;
    let settings = &mut options.settings;
    settings.b = if chosen(0) { 2.0 } else { 1.5 };
    settings.deploy = chosen(1);
    if chosen(2) {
        settings.biases = Some(if chosen(6) { Biases::Carry } else { Biases::Keep });
    }
    settings.keep_max_pool = chosen(3);
    settings.keep_head = chosen(4);
    settings.absorb_normalization = chosen(5) && chosen(6);
    if chosen(6) {
        settings.input = InputContract::AddInverse;
        settings.normalization = Some(Preset::Imagenet.normalization());
    }
    if chosen(7) {
        settings.logit_bias = LogitBias::None;
        settings.opset = Some(21);
    }
    options
}

/// Positive and negative numbers about 0, the same for the same shape.
fn fill(tensor: &mut TensorProto) {
    let is_empty = tensor.raw_data.is_none() && tensor.float_data.is_empty();
    if tensor.data_type != Some(DataType::Float.to_i32()) || !is_empty {
        return;
    }
    if let Ok(count @ 1..=LARGEST) = tensor.element_count() {
        let numbers = (0..count).map(|i| (i * 2_654_435_761 % 1000) as f32 / 1000.0 - 0.4);
        tensor.raw_data = Some(numbers.flat_map(f32::to_le_bytes).collect());
    }
}
