use bcosc_ir::{Attribute, DataType, ModelBuilder, Tensor};

use super::*;
use crate::analysis::weights;
use crate::testing::{Layers, apply, image, reasons, rewritten, text, weight};

fn ends_in_pool(model: &Model) {
    let graph = &model.graph;
    let pooled = graph
        .ops()
        .into_iter()
        .rposition(|id| Pool::is_global_average(graph, id));
    let linear = Layer::all(graph).len();
    let ops = graph.ops();
    let last = ops
        .iter()
        .rposition(|&id| matches!(Layer::of(graph, id), Some(Ok(_))));
    assert!(linear > 0 && last < pooled, "{}", text(model));
}

/// Holds the rewritten model to the function of the one before, with the head before the pool.
fn reordered(before: &Model) -> Model {
    let after = rewritten(&REORDER_HEAD, before);
    ends_in_pool(&after);
    after
}

fn left_alone(mut model: Model) -> Vec<Reason> {
    let outcome = apply(&REORDER_HEAD, &mut model);
    assert!(outcome.changes.is_empty(), "{}", text(&model));
    reasons(outcome)
}

/// [N, 4] from an image of 4 channels.
fn pooled(opset: i64) -> ModelBuilder {
    ModelBuilder::new(opset)
        .input("x", DataType::Float, "batch,4,6,8")
        .op("GlobalAveragePool", &["x"], "p", [])
        .op("Flatten", &["p"], "f", [Attribute::int("axis", 1)])
}

#[test]
fn a_linear_layer_becomes_a_convolution() {
    let before = pooled(17).linear("f", "y", 4, 3).typed("y");
    insta::assert_snapshot!(text(&reordered(&before)), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 17]
    >
    main (float[batch,4,6,8] x) => (y)
    <
       float[3,4,1,1] "y.weight" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, ... 73524159},
       float[3] "y.bias" = {0.6823779, -0.77477896, 0.9362561}
    >
    {
       ["y.conv"] "y.conv" = Conv <kernel_shape = [1, 1]> (x, "y.weight", "y.bias")  # from y
       ["y.pool"] "y.pool" = GlobalAveragePool ("y.conv")  # from y
       ["y.flatten"] y = Flatten <axis = 1> ("y.pool")  # from y
    }
    "#);
}

#[test]
fn a_product_and_its_addition_do() {
    for bias in [&[3][..], &[1, 3], &[1], &[]] {
        let before = pooled(17)
            .matmul("f", "p3", &[4, 3])
            .param("b", weight(9, bias))
            .op("Add", &["b", "p3"], "y", [])
            .typed("y");
        let after = reordered(&before);
        let ops = after.graph.ops();
        assert_eq!(ops.len(), 3, "{}", text(&after));
    }
}

#[test]
fn factors_and_transpositions_are_kept() {
    for trans_b in [0, 1] {
        let dims: [u64; 2] = if trans_b == 1 { [3, 4] } else { [4, 3] };
        let attributes = [
            Attribute::int("transB", trans_b),
            Attribute::float("alpha", 0.7),
            Attribute::float("beta", -1.5),
        ];
        let before = pooled(17)
            .param("w", weight(1, &dims))
            .param("c", weight(2, &[3]))
            .op("Gemm", &["f", "w", "c"], "y", attributes);
        reordered(&before.typed("y"));
    }
}

#[test]
fn every_global_pool_is_one() {
    for axes in [[2, 3], [-1, -2]] {
        for keep in [0, 1] {
            let attribute = Attribute::int("keepdims", keep);
            let old = image("batch,4,6,8").op(
                "ReduceMean",
                &["x"],
                "p",
                [Attribute::ints("axes", &axes), attribute.clone()],
            );
            let new = ModelBuilder::new(18)
                .input("x", DataType::Float, "batch,4,6,8")
                .param("axes", Tensor::i64_vec(&axes))
                .op("ReduceMean", &["x", "axes"], "p", [attribute]);
            for builder in [old, new] {
                let builder = builder.op("Flatten", &["p"], "f", []);
                reordered(&builder.linear("f", "y", 4, 3).typed("y"));
            }
        }
    }
    let window = Attribute::ints("kernel_shape", &[6, 8]);
    let builder = image("batch,4,6,8").op("AveragePool", &["x"], "p", [window]);
    let builder = builder.op("Flatten", &["p"], "f", []);
    reordered(&builder.linear("f", "y", 4, 3).typed("y"));
    let builder = image("batch,4,6").op("GlobalAveragePool", &["x"], "p", []);
    let builder = builder.op("Flatten", &["p"], "f", []);
    reordered(&builder.linear("f", "y", 4, 3).typed("y"));
}

#[test]
fn every_change_of_shape_may_lie_between() {
    let pool = || image("batch,4,6,8").op("GlobalAveragePool", &["x"], "p", []);
    let reshape =
        pool()
            .param("shape", Tensor::i64_vec(&[-1, 4]))
            .op("Reshape", &["p", "shape"], "f", []);
    let squeeze =
        pool()
            .param("axes", Tensor::i64_vec(&[2, 3]))
            .op("Squeeze", &["p", "axes"], "f", []);
    let dropout = pool()
        .op("Flatten", &["p"], "d", [])
        .op("Dropout", &["d"], "f", []);
    for builder in [reshape, squeeze, dropout] {
        reordered(&builder.linear("f", "y", 4, 3).typed("y"));
    }
}

#[test]
fn heads_on_one_pool_move_each() {
    let before = pooled(17)
        .linear("f", "a", 4, 3)
        .linear("f", "b", 4, 2)
        .output("f")
        .output("a")
        .typed("b");
    let after = reordered(&before);
    assert_eq!(after.graph.outputs().len(), 3);
    let products = Layer::all(&after.graph);
    assert!(products.iter().all(|l| matches!(l.form, Form::Conv(_))));
}

#[test]
fn the_new_layer_has_the_type_of_the_old() {
    let before = ModelBuilder::new(17)
        .input("x", DataType::Double, "batch,2,3,3")
        .op("GlobalAveragePool", &["x"], "p", [])
        .op("Flatten", &["p"], "f", [])
        .param(
            "w",
            weights::tensor(DataType::Double, &[2, 2], &[0.1, 0.2, 0.3, -0.4]),
        )
        .op("MatMul", &["f", "w"], "y", [])
        .typed("y");
    let after = reordered(&before);
    let layer = &Layer::all(&after.graph)[0];
    let found = after.graph.value_type(layer.out).map(|t| t.to_string());
    assert_eq!(found.as_deref(), Some("double[batch,2,3,3]"));
}

#[test]
fn maps_laid_side_by_side_stay() {
    // VGG: the layer sees 2x2 positions.
    let window = Attribute::ints("kernel_shape", &[3, 4]);
    let before = image("batch,4,6,8")
        .op(
            "AveragePool",
            &["x"],
            "p",
            [window, Attribute::ints("strides", &[3, 4])],
        )
        .op("Flatten", &["p"], "f", [])
        .linear("f", "y", 16, 3);
    assert_eq!(left_alone(before.typed("y")), []);
}

#[test]
fn gates_stay() {
    let before = pooled(17)
        .linear("f", "squeezed", 4, 2)
        .op("Relu", &["squeezed"], "r", [])
        .linear("r", "excited", 2, 4)
        .op("Sigmoid", &["excited"], "s", [])
        .param("axes", Tensor::i64_vec(&[2, 3]))
        .op("Unsqueeze", &["s", "axes"], "gate", [])
        .op("Mul", &["x", "gate"], "z", [])
        .conv("z", "y", &[3, 4, 1, 1], vec![]);
    assert_eq!(left_alone(before.typed("y")), [Reason::NotHead]);
}

#[test]
fn what_sees_more_than_a_vector_an_image_stays() {
    let before = image("batch,4,6,8")
        .op("GlobalAveragePool", &["x"], "p", [])
        .param("shape", Tensor::i64_vec(&[0, 1, 4]))
        .op("Reshape", &["p", "shape"], "f", [])
        .matmul("f", "y", &[4, 3]);
    assert_eq!(left_alone(before.typed("y")), [Reason::NotOneVector]);
}

#[test]
fn a_bias_for_each_image_stays() {
    let before = pooled(17)
        .param("w", weight(1, &[4, 3]))
        .param("c", weight(2, &[1, 1]))
        .op("Mul", &["f", "c"], "scaled", [])
        .op("ReduceSum", &["scaled"], "dynamic", [])
        .op("Gemm", &["f", "w", "dynamic"], "y", []);
    assert_eq!(left_alone(before.typed("y")), [Reason::DynamicBias]);
}

#[test]
fn an_image_without_a_size_stays() {
    let before = image("batch,?,6,8")
        .op("GlobalAveragePool", &["x"], "p", [])
        .op("Flatten", &["p"], "f", [])
        .linear("f", "y", 4, 3);
    let reasons = left_alone(crate::testing::model(before.output("y")));
    assert!(
        matches!(reasons[..], [Reason::UnknownShape(_)]),
        "{reasons:?}"
    );
}
