use bcosc_ir::{DataType, Model, ModelBuilder, Tensor};

use super::*;
use crate::Settings;
use crate::bcos::norms::uncentre::UNCENTRE_NORMS;
use crate::testing::{
    Layers, after, assert_same_function, image, model, passed, reasons, text, weight,
};

fn unbiased(before: &Model) -> Model {
    after(
        &[&UNCENTRE_NORMS, &REMOVE_BIASES],
        before,
        &Settings::default(),
    )
}

fn refusal(before: &Model, settings: &Settings) -> Vec<Reason> {
    match passed(&[&REMOVE_BIASES], before, settings, None) {
        Ok((_, outcome)) => {
            assert!(outcome.changes.is_empty(), "{:?}", outcome.changes);
            reasons(outcome)
        }
        Err(error) => panic!("{error}"),
    }
}

fn zeros(size: u64) -> Tensor {
    Tensor::f32s(&[size], vec![0.0; size as usize])
}

#[test]
fn convolutions_norms_and_linear_layers_lose_theirs() {
    let before = image("batch,2,4,4")
        .biased_conv("x", "a", &[3, 2, 1, 1], vec![])
        .norm("a", "n", 3)
        .op("GlobalAveragePool", &["n"], "p", [])
        .op("Flatten", &["p"], "f", [])
        .linear("f", "y", 3, 2);
    insta::assert_snapshot!(text(&unbiased(&before.typed("y"))), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 17]
    >
    main (float[batch,2,4,4] x) => (y)
    <
       float[3,2,1,1] "a.w" = {-0.8198231, -0.5585862, -1.0915186, -1.0646492, 0.34965923, 0.62712014},
       float[3] "n.gamma" = {0.34835157, 0.23100644, 0.6107821},
       float[3] "n.var" = {0.84616053, 0.5832936, 0.82128125},
       float[2,3] "y.w" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, 0.33834577, 0.61412346},
       float[3] "n.mean_2" = {0.0, 0.0, 0.0},
       float[3] "n.bias_2" = {0.0, 0.0, 0.0}
    >
    {
       a = Conv (x, "a.w")
       n = BatchNormalization (a, "n.gamma", "n.bias_2", "n.mean_2", "n.var")
       p = GlobalAveragePool (n)
       f = Flatten (p)
       y = Gemm <transB = 1> (f, "y.w")
    }
    "#);
}

#[test]
fn what_is_left_is_the_same_without_them() {
    let build = |biased: bool| {
        let own = |seed, size| {
            if biased {
                weight(seed, &[size])
            } else {
                zeros(size)
            }
        };
        let scale = weight(5, &[3]);
        let variance = Tensor::f32s(&[3], vec![0.5, 1.5, 2.0]);
        image("batch,2,4,4")
            .param("w", weight(1, &[3, 2, 3, 3]))
            .param("b", own(2, 3))
            .op("Conv", &["x", "w", "b"], "a", [])
            .param("gamma", scale)
            .param("beta", own(3, 3))
            .param("mean", own(4, 3))
            .param("var", variance)
            .op(
                "BatchNormalization",
                &["a", "gamma", "beta", "mean", "var"],
                "n",
                [],
            )
            .op("Relu", &["n"], "r", [])
            .op("GlobalAveragePool", &["r"], "p", [])
            .op("Flatten", &["p"], "f", [])
            .matmul("f", "m", &[3, 2])
            .param("c", own(6, 2))
            .op("Add", &["m", "c"], "y", [])
            .typed("y")
    };
    let after = unbiased(&build(true));
    assert_same_function(&build(false), &after, 1e-6);
    assert_eq!(after.graph.ops().len(), 6, "{}", text(&after));
}

#[test]
fn gemm_keeps_an_operand_that_its_opset_demands() {
    for opset in [7, 10, 11] {
        let before = ModelBuilder::new(opset)
            .input("x", DataType::Float, "batch,3")
            .linear("x", "y", 3, 2)
            .typed("y");
        let after = unbiased(&before);
        let gemm = after.graph.ops()[0];
        let bias = after
            .graph
            .input(gemm, 2)
            .and_then(|b| after.graph.constant(b));
        assert_eq!(
            bias.map(|b| b.to_f64s()),
            (opset < 11).then(|| Ok(vec![0.0, 0.0]))
        );
        // Once is enough.
        assert_eq!(refusal(&after, &Settings::default()), []);
    }
}

#[test]
fn other_norms_lose_theirs() {
    let operands = |builder: ModelBuilder, size| {
        builder
            .param("s", weight(1, &[size]))
            .param("b", weight(2, &[size]))
    };
    let layer = operands(image("batch,4,3"), 3)
        .op("LayerNormalization", &["x", "s", "b"], "y", [])
        .typed("y");
    let after = unbiased(&layer);
    assert_eq!(after.graph.inputs_of(after.graph.ops()[0]).len(), 2);
    let without = operands(image("batch,4,3"), 3)
        .op("LayerNormalization", &["x", "s"], "y", [])
        .typed("y");
    assert_same_function(&without, &after, 1e-6);

    let instance = operands(image("batch,4,3"), 4)
        .op("InstanceNormalization", &["x", "s", "b"], "y", [])
        .typed("y");
    let without = image("batch,4,3")
        .param("s", weight(1, &[4]))
        .param("b", zeros(4))
        .op("InstanceNormalization", &["x", "s", "b"], "y", [])
        .typed("y");
    assert_same_function(&without, &unbiased(&instance), 1e-6);
}

#[test]
fn additions_behind_norms_go_if_they_are_one_number_a_channel() {
    let normed = || image("batch,3,4").norm("x", "n", 3);
    let beside = |dims: &[u64]| {
        normed()
            .param("b", weight(9, dims))
            .op("Add", &["n", "b"], "y", [])
            .typed("y")
    };
    assert_eq!(unbiased(&beside(&[3, 1])).graph.ops().len(), 1);
    assert_eq!(unbiased(&beside(&[1, 3, 4])).graph.ops().len(), 2);
    assert_eq!(unbiased(&beside(&[4])).graph.ops().len(), 2);
}

#[test]
fn positions_stay() {
    let embedded = |dims: &[u64]| {
        let before = image("batch,4,3")
            .matmul("x", "m", &[3, 5])
            .param("p", weight(9, dims))
            .op("Add", &["m", "p"], "y", [])
            .typed("y");
        refusal(&before, &Settings::default())
    };
    assert_eq!(embedded(&[1, 4, 5]), []);
    assert_eq!(embedded(&[4, 5]), []);
    assert_eq!(embedded(&[4, 1]), []);
    let along_the_width = image("batch,2,4,4")
        .conv("x", "a", &[4, 2, 1, 1], vec![])
        .param("p", weight(9, &[4]))
        .op("Add", &["a", "p"], "y", [])
        .typed("y");
    assert_eq!(refusal(&along_the_width, &Settings::default()), []);
    // One unit that an addition spreads over three.
    let spread = image("batch,2,4,4")
        .conv("x", "a", &[1, 2, 1, 1], vec![])
        .param("p", weight(9, &[3, 1, 1]))
        .op("Add", &["a", "p"], "y", [])
        .typed("y");
    assert_eq!(refusal(&spread, &Settings::default()), []);
}

#[test]
fn what_is_computed_is_no_bias() {
    let before = image("batch,3")
        .op("Relu", &["x"], "data", [])
        .param("w", weight(1, &[3, 3]))
        .op("Gemm", &["x", "w", "data"], "y", [])
        .typed("y");
    assert_eq!(
        refusal(&before, &Settings::default()),
        [Reason::DynamicBias]
    );
    let before = image("3")
        .op("Relu", &["x"], "data", [])
        .param("s", weight(1, &[3]))
        .op("LayerNormalization", &["x", "s", "data"], "y", [])
        .typed("y");
    assert_eq!(
        refusal(&before, &Settings::default()),
        [Reason::DynamicBias]
    );
    let before = image("2,3")
        .param("w", weight(1, &[3, 3]))
        .param("rows", weight(2, &[2, 3]))
        .op("Gemm", &["x", "w", "rows"], "y", [])
        .typed("y");
    assert_eq!(refusal(&before, &Settings::default()), [Reason::BiasShape]);
}

#[test]
fn a_norm_with_a_mean_stays() {
    let before = image("batch,3,4").norm("x", "y", 3).typed("y");
    assert_eq!(refusal(&before, &Settings::default()), [Reason::Centred]);
}

#[test]
fn biases_can_be_kept() {
    let settings = Settings {
        biases: Some(Biases::Keep),
        ..Settings::default()
    };
    let before = image("batch,3,4").biased_conv("x", "y", &[2, 3, 1], vec![]);
    assert_eq!(
        refusal(&before.typed("y"), &settings),
        [Reason::Kept("--biases keep")]
    );
    let before = image("batch,3,4").conv("x", "y", &[2, 3, 1], vec![]);
    assert_eq!(refusal(&before.typed("y"), &settings), []);
}

#[test]
fn an_addition_of_three_or_none_is_no_bias() {
    for operands in [&["a", "p", "p"][..], &["a"]] {
        let before = image("batch,3,4")
            .conv("x", "a", &[2, 3, 1], vec![])
            .param("p", weight(1, &[2, 1]))
            .op("Add", operands, "y", []);
        refusal(&model(before.output("y")), &Settings::default());
    }
}
