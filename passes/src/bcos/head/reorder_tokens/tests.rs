use bcosc_ir::{Attribute, DataType, ModelBuilder, Tensor};

use super::*;
use crate::Settings;
use crate::testing::{Layers, image, outputs, passed, reasons, rewritten, text, weight};

fn mean(builder: ModelBuilder, x: &str, y: &str) -> ModelBuilder {
    let attributes = [Attribute::ints("axes", &[1]), Attribute::int("keepdims", 0)];
    builder.op("ReduceMean", &[x], y, attributes)
}

fn layer_norm(builder: ModelBuilder, x: &str, y: &str) -> ModelBuilder {
    let builder = builder
        .param("gamma", weight(7, &[4]))
        .param("beta", weight(8, &[4]));
    let axis = [Attribute::int("axis", 1)];
    builder.op("LayerNormalization", &[x, "gamma", "beta"], y, axis)
}

fn tokens() -> ModelBuilder {
    image("batch,5,4").matmul("x", "t", &[4, 4])
}

fn skipped(pass: &Pass, before: &Model, settings: &Settings) -> Vec<Reason> {
    match passed(&[pass], before, settings, None) {
        Ok((_, outcome)) => {
            assert!(outcome.changes.is_empty(), "{:?}", outcome.changes);
            reasons(outcome)
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_mean_over_tokens_moves_behind_the_head() {
    let before = mean(tokens(), "t", "m").linear("m", "y", 4, 3).typed("y");
    insta::assert_snapshot!(text(&rewritten(&REORDER_TOKEN_HEAD, &before)), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 17]
    >
    main (float[batch,5,4] x) => (y)
    <
       float[4,4] "t.w" = {-0.5153647, 1.0028927, -0.7735191, 0.78603554, ... 75ab3b84},
       float[4,3] "y.weight" = {0.48787567, 0.33834577, -0.82715636, 0.6461313, ... f8bee3f1},
       float[3] "y.bias" = {0.6823779, -0.77477896, 0.9362561}
    >
    {
       t = MatMul (x, "t.w")
       ["y.scores"] "y.scores" = MatMul (t, "y.weight")  # from y
       ["y.biased"] "y.biased" = Add ("y.scores", "y.bias")  # from y
       ["y.reducemean"] y = ReduceMean <keepdims = 0, axes = [1]> ("y.biased")  # from y
    }
    "#);
}

#[test]
fn positions_of_an_image_become_tokens() {
    let before = image("batch,4,3,2")
        .conv("x", "f", &[4, 4, 1, 1], vec![])
        .op("GlobalAveragePool", &["f"], "m", [])
        .op("Flatten", &["m"], "v", []);
    let before = layer_norm(before, "v", "n")
        .linear("n", "y", 4, 3)
        .typed("y");
    let after = altered(&before);
    // The same, written by hand: every position is normed and judged by itself.
    let reference = image("batch,4,3,2")
        .conv("x", "f", &[4, 4, 1, 1], vec![])
        .op(
            "Transpose",
            &["f"],
            "p",
            [Attribute::ints("perm", &[0, 2, 3, 1])],
        )
        .param("gamma", weight(7, &[4]))
        .param("beta", weight(8, &[4]))
        .op(
            "LayerNormalization",
            &["p", "gamma", "beta"],
            "n",
            [Attribute::int("axis", -1)],
        )
        .param("flat", Tensor::i64_vec(&[-1, 4]))
        .op("Reshape", &["n", "flat"], "rows", [])
        .linear("rows", "y", 4, 3)
        .param("back", Tensor::i64_vec(&[-1, 6, 3]))
        .op("Reshape", &["y", "back"], "scores", []);
    let reference = mean(reference, "scores", "z").typed("z");
    let inputs = crate::testing::batch(&before);
    outputs(&after, &inputs)[0].assert_close(&outputs(&reference, &inputs)[0], 1e-5);
}

fn altered(before: &Model) -> Model {
    match passed(
        &[&REORDER_HEAD_AND_NORM],
        before,
        &Settings::default(),
        None,
    ) {
        Ok((after, outcome)) => {
            assert_eq!(outcome.changes.len(), 1, "{:?}", outcome.skips);
            after
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_norm_moves_with_the_head() {
    let before = layer_norm(mean(tokens(), "t", "m"), "m", "n")
        .linear("n", "y", 4, 3)
        .typed("y");
    assert_eq!(
        skipped(&REORDER_TOKEN_HEAD, &before, &Settings::default()),
        []
    );
    insta::assert_snapshot!(text(&altered(&before)), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 17]
    >
    main (float[batch,5,4] x) => (y)
    <
       float[4,4] "t.w" = {-0.5153647, 1.0028927, -0.7735191, 0.78603554, ... 75ab3b84},
       float[4] gamma = {0.3146259, -0.980292, 0.6504635, -0.80545115},
       float[4] beta = {0.5091281, -0.10893973, 0.844253, 0.4749978},
       float[4,3] "y.weight" = {0.48787567, 0.33834577, -0.82715636, 0.6461313, ... f8bee3f1},
       float[3] "y.bias" = {0.6823779, -0.77477896, 0.9362561}
    >
    {
       t = MatMul (x, "t.w")
       ["y.LayerNormalization"] "y.LayerNormalization" = LayerNormalization <axis = -1> (t, gamma, beta)  # from y
       ["y.scores"] "y.scores" = MatMul ("y.LayerNormalization", "y.weight")  # from y
       ["y.biased"] "y.biased" = Add ("y.scores", "y.bias")  # from y
       ["y.reducemean"] y = ReduceMean <keepdims = 0, axes = [1]> ("y.biased")  # from y
    }
    "#);
}

#[test]
fn a_decomposed_norm_moves_too_and_computes_the_same() {
    let axes = || [Attribute::ints("axes", &[-1])];
    let number = |x: f32| Tensor::f32s(&[], vec![x]);
    let before = mean(tokens(), "t", "m")
        .op("ReduceMean", &["m"], "mu", axes())
        .op("Sub", &["m", "mu"], "c", [])
        .param("two", number(2.0))
        .op("Pow", &["c", "two"], "s", [])
        .op("ReduceMean", &["s"], "var", axes())
        .param("eps", number(1e-5))
        .op("Add", &["var", "eps"], "p", [])
        .op("Sqrt", &["p"], "d", [])
        .op("Div", &["c", "d"], "z", [])
        .param("gamma", weight(7, &[4]))
        .op("Mul", &["z", "gamma"], "zg", [])
        .param("beta", weight(8, &[4]))
        .op("Add", &["zg", "beta"], "n", [])
        .linear("n", "y", 4, 3)
        .typed("y");
    let whole = layer_norm(mean(tokens(), "t", "m"), "m", "n")
        .linear("n", "y", 4, 3)
        .typed("y");
    let inputs = crate::testing::batch(&before);
    outputs(&altered(&before), &inputs)[0]
        .assert_close(&outputs(&altered(&whole), &inputs)[0], 1e-5);
}

#[test]
fn an_activation_between_is_no_norm() {
    let before = mean(tokens(), "t", "m")
        .op("Tanh", &["m"], "a", [])
        .linear("a", "y", 4, 3)
        .typed("y");
    for pass in [&REORDER_TOKEN_HEAD, &REORDER_HEAD_AND_NORM] {
        let expected = Reason::NotNorm("a".to_owned());
        assert_eq!(skipped(pass, &before, &Settings::default()), [expected]);
    }
}

#[test]
fn a_power_between_is_no_norm() {
    // Generalised-mean pooling.
    let before = mean(tokens(), "t", "m")
        .param("third", Tensor::f32s(&[], vec![1.0 / 3.0]))
        .op("Pow", &["m", "third"], "p", [])
        .linear("p", "y", 4, 3)
        .typed("y");
    let reason = Reason::NotNorm("p".to_owned());
    for pass in [&REORDER_TOKEN_HEAD as &Pass, &REORDER_HEAD_AND_NORM] {
        assert_eq!(
            skipped(pass, &before, &Settings::default()),
            std::slice::from_ref(&reason)
        );
    }
}

#[test]
fn constant_factors_commute_with_the_mean() {
    let before = mean(tokens(), "t", "m")
        .param("gamma", weight(7, &[4]))
        .op("Mul", &["m", "gamma"], "g", [])
        .param("beta", weight(8, &[4]))
        .op("Add", &["beta", "g"], "b", [])
        .linear("b", "y", 4, 3)
        .typed("y");
    let after = rewritten(&REORDER_TOKEN_HEAD, &before);
    let last = after.graph.producer(after.graph.outputs()[0].value);
    assert!(last.is_some_and(|(_, op)| op.is("ReduceMean")));
}

#[test]
fn a_mean_that_is_put_out_too_stays() {
    let before = mean(tokens(), "t", "m")
        .linear("m", "y", 4, 3)
        .output("m")
        .typed("y");
    let reason = Reason::UsedElsewhere("m".to_owned());
    assert_eq!(
        skipped(&REORDER_TOKEN_HEAD, &before, &Settings::default()),
        [reason]
    );
}

#[test]
fn a_layer_that_is_not_the_last_stays() {
    let before = mean(tokens(), "t", "m")
        .linear("m", "h", 4, 3)
        .matmul("h", "y", &[3, 2])
        .typed("y");
    assert_eq!(
        skipped(&REORDER_TOKEN_HEAD, &before, &Settings::default()),
        []
    );
}

#[test]
fn the_head_can_be_kept() {
    let before = mean(tokens(), "t", "m").linear("m", "y", 4, 3).typed("y");
    let keep = Settings {
        keep_head: true,
        ..Settings::default()
    };
    assert_eq!(
        skipped(&REORDER_TOKEN_HEAD, &before, &keep),
        [Reason::Kept("--keep-head")]
    );
}

#[test]
fn half_precision_stays_half() {
    let dtype = DataType::Float16;
    let halves = |dims: &[u64], seed: u64| {
        let floats = weight(seed, dims).to_f64s().unwrap_or_default();
        weights::tensor(dtype, dims, &floats)
    };
    let builder = ModelBuilder::new(17)
        .input("x", dtype, "batch,5,4")
        .op("Relu", &["x"], "t", []);
    let before = mean(builder, "t", "m")
        .param("w", halves(&[3, 4], 1))
        .param("b", halves(&[3], 2))
        .op("Gemm", &["m", "w", "b"], "y", [Attribute::int("transB", 1)])
        .typed("y");
    let after = match passed(&[&REORDER_TOKEN_HEAD], &before, &Settings::default(), None) {
        Ok((after, _)) => after,
        Err(error) => panic!("{error}"),
    };
    let logits = after.graph.outputs()[0].value;
    assert!(
        after
            .graph
            .value_type(logits)
            .is_none_or(|t| t.dtype == dtype)
    );
    let all_half = |id| {
        after
            .graph
            .constant(after.graph.output(id, 0))
            .is_none_or(|t| t.dtype() == dtype || t.dtype() == DataType::Int64)
    };
    assert!(after.graph.unordered().all(all_half));
}
