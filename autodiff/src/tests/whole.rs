use bcosc_engine::default_interpreter;
use bcosc_ir::{Attribute, DataType, ModelBuilder, Tensor};

use crate::explanation::{Kind, explanation};
use crate::testing::{backward, floats, graph, pulled_back};
use bcosc_passes::{Context, Settings};
use bcosc_testing::{model, weight};

#[test]
fn a_norm_that_does_nothing_leaves_nothing() {
    let ones = || Tensor::f32s(&[4], vec![1.0; 4]);
    let zeros = || Tensor::f32s(&[4], vec![0.0; 4]);
    let builder = ModelBuilder::new(18)
        .input("x", DataType::Float, "batch,3,8,8")
        .param("w", weight(0, &[4, 3, 3, 3]))
        .param("scale", ones())
        .param("bias", zeros())
        .param("mean", zeros())
        .param("var", Tensor::f32s(&[4], vec![1.0 - 1e-5; 4]))
        .param("v", weight(1, &[4, 4, 3, 3]))
        .param("u", weight(1, &[4, 5]))
        .op(
            "Conv",
            &["x", "w"],
            "c",
            [
                Attribute::ints("pads", &[1, 1, 1, 1]),
                Attribute::ints("strides", &[2, 2]),
            ],
        )
        .op(
            "BatchNormalization",
            &["c", "scale", "bias", "mean", "var"],
            "n",
            [],
        )
        .op("Relu", &["n"], "r", [])
        .op("Conv", &["r", "v"], "d", [])
        .op("GlobalAveragePool", &["d"], "p", [])
        .op("Flatten", &["p"], "f", [])
        .op("MatMul", &["f", "u"], "y", []);
    let mut found = model(builder.output("y"));
    let settings = Settings::default();
    let cx = Context {
        settings: &settings,
        interpreter: default_interpreter(),
        calibration: None,
    };
    explanation(&mut found, Kind::Logits, &cx).unwrap();
    let kinds: Vec<&str> = found
        .graph
        .ops()
        .into_iter()
        .filter_map(|id| found.graph.op(id).map(|op| op.op_type()))
        .collect();
    // One for each layer and gate, the mean, and the contributions.
    let back = kinds.iter().skip_while(|kind| **kind != "Cast").skip(1);
    let back: Vec<&str> = back.copied().collect();
    assert_eq!(
        back,
        [
            "MatMul",
            "Reshape",
            "Div",
            "Expand",
            "ConvTranspose",
            "Where",
            "ConvTranspose",
            "Mul",
            "ReduceSum"
        ]
    );
}

/// A deviation of 0 is no divisor.
#[test]
fn a_flat_picture_has_a_cotangent() {
    let builder = graph("batch,2,3,3").op("MeanVarianceNormalization", &["x"], "y", []);
    let (_, both) = backward("flat", model(builder.output("y")));
    let [x, s] = [0.25, 1.0].map(|v| Tensor::f32s(&[1, 2, 3, 3], vec![v; 18]));
    let found = floats(&pulled_back(&both, &x, &s));
    assert!(found.iter().all(|dx| dx.is_finite()), "{found:?}");
}
