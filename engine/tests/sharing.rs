//! Networks that have weights in common.

use bcosc_engine::{Encoding, Samples, default_engine, run_all, sharing_engine};
use bcosc_ir::{Attribute, Model, Tensor};
use bcosc_testing::{input, weight};

fn network(convolution: &Tensor, gain: f32) -> Model {
    let pads = || [Attribute::ints("pads", &[1, 1, 1, 1])];
    input(13, "N,3,9,9")
        .param("stem", weight(1, &[32, 3, 3, 3]))
        .param("w", convolution.clone())
        .param("v", weight(2, &[32, 64]))
        .param("gain", Tensor::f32s(&[], vec![gain]))
        .op("Conv", &["x", "stem"], "wide", pads())
        .op("Conv", &["wide", "w"], "once", pads())
        .op("Conv", &["once", "w"], "twice", pads())
        .op("GlobalAveragePool", &["twice"], "pool", [])
        .op("Flatten", &["pool"], "flat", [])
        .op("MatMul", &["flat", "v"], "logits", [])
        .op("Mul", &["logits", "gain"], "y", [])
        .output("y")
        .finish()
        .unwrap()
}

#[test]
fn shared_weights_change_no_result() {
    let (same, other) = (weight(3, &[32, 32, 3, 3]), weight(4, &[32, 32, 3, 3]));
    let reference = network(&same, 1.0);
    let engine = sharing_engine(&reference);
    let inputs = Samples::default().draw(&reference, &Encoding::Raw);
    let inputs = inputs.unwrap();
    let models = [network(&same, 2.0), network(&other, 1.0), reference];
    for model in &models {
        let expected = run_all(default_engine(), model, &inputs).unwrap();
        assert_eq!(run_all(&*engine, model, &inputs).unwrap(), expected);
    }
}
