use bcosc_ir::{Attribute, ModelBuilder, Tensor};

use super::*;
use crate::testing::{Layers, image, inferred};

/// The attentions of a graph and the names of their layers' outputs.
fn found(builder: ModelBuilder) -> Vec<(Vec<String>, Vec<String>)> {
    let model = inferred(builder);
    let graph = &model.graph;
    let names = |layers: BTreeSet<NodeId>| -> Vec<String> {
        let name = |id| graph.value_name(graph.output(id, 0)).to_owned();
        layers.into_iter().map(name).collect()
    };
    let all = all(graph).into_iter();
    all.map(|a| (names(a.queries_and_keys), names(a.value_layers)))
        .collect()
}

fn perm(axes: &[i64]) -> [Attribute; 1] {
    [Attribute::ints("perm", axes)]
}

fn softmax() -> [Attribute; 1] {
    [Attribute::int("axis", -1)]
}

#[test]
fn three_projections_with_biases_and_a_scale() {
    let builder = image("batch,5,4")
        .matmul("x", "q", &[4, 4])
        .param("c", Tensor::f32s(&[4], vec![0.5; 4]))
        .op("Add", &["q", "c"], "qb", [])
        .matmul("x", "k", &[4, 4])
        .matmul("x", "v", &[4, 4])
        .op("Transpose", &["k"], "kt", perm(&[0, 2, 1]))
        .op("MatMul", &["qb", "kt"], "qk", [])
        .param("half", Tensor::f32s(&[], vec![0.5]))
        .op("Mul", &["qk", "half"], "scores", [])
        .op("Softmax", &["scores"], "weights", softmax())
        .op("MatMul", &["weights", "v"], "z", [])
        .matmul("z", "y", &[4, 4])
        .output("y");
    let expected = (vec!["q".to_owned(), "k".to_owned()], vec!["v".to_owned()]);
    assert_eq!(found(builder), [expected]);
}

#[test]
fn one_packed_projection_in_parts() {
    let builder = image("batch,5,4")
        .matmul("x", "qkv", &[4, 12])
        .op("Transpose", &["qkv"], "t", perm(&[2, 0, 1]))
        .op("Gather", &["t", "first"], "q0", [Attribute::int("axis", 0)])
        .param("first", Tensor::i64_vec(&[0, 1, 2, 3]))
        .op(
            "Gather",
            &["t", "second"],
            "k0",
            [Attribute::int("axis", 0)],
        )
        .param("second", Tensor::i64_vec(&[4, 5, 6, 7]))
        .op("Gather", &["t", "third"], "v0", [Attribute::int("axis", 0)])
        .param("third", Tensor::i64_vec(&[8, 9, 10, 11]))
        .op("Transpose", &["q0"], "q", perm(&[1, 2, 0]))
        .op("Transpose", &["k0"], "k", perm(&[1, 0, 2]))
        .op("Transpose", &["v0"], "v", perm(&[1, 2, 0]))
        .op("MatMul", &["q", "k"], "scores", [])
        .op("Softmax", &["scores"], "weights", softmax())
        .op("MatMul", &["weights", "v"], "y", [])
        .output("y");
    let packed = vec!["qkv".to_owned()];
    assert_eq!(found(builder), [(packed.clone(), packed)]);
}

#[test]
fn a_residual_sum_is_no_projection() {
    // Queries and keys are what two layers add up to: neither of them makes queries.
    let builder = image("batch,5,4")
        .matmul("x", "a", &[4, 4])
        .matmul("x", "b", &[4, 4])
        .op("Add", &["a", "b"], "sum", [])
        .matmul("sum", "v", &[4, 4])
        .op("Transpose", &["sum"], "kt", perm(&[0, 2, 1]))
        .op("MatMul", &["sum", "kt"], "scores", [])
        .op("Softmax", &["scores"], "weights", softmax())
        .op("MatMul", &["weights", "v"], "y", [])
        .output("y");
    assert_eq!(found(builder), [(vec![], vec!["v".to_owned()])]);
}

#[test]
fn a_softmax_at_the_end_is_no_attention() {
    let builder = image("batch,4")
        .matmul("x", "a", &[4, 4])
        .op("Softmax", &["a"], "y", softmax())
        .output("y");
    assert_eq!(found(builder), []);
}

#[test]
fn a_choice_between_branches_is_no_attention() {
    // Selective kernels: a softmax over branches scales them before they are summed.
    let builder = image("batch,2,4")
        .matmul("x", "branches", &[4, 4])
        .matmul("x", "votes", &[4, 4])
        .op(
            "Softmax",
            &["votes"],
            "weights",
            [Attribute::int("axis", 1)],
        )
        .op("Mul", &["branches", "weights"], "scaled", [])
        .param("axes", Tensor::i64_vec(&[1]))
        .op("ReduceSum", &["scaled", "axes"], "y", [])
        .output("y");
    assert_eq!(found(builder), []);
}

#[test]
fn heads_that_talk_through_layers_with_norms_are_part_of_it() {
    // Scores and weights go through 1x1 convolutions between heads, whose norms were restored.
    let builder = image("batch,2,5,4")
        .matmul("x", "q", &[4, 4])
        .matmul("x", "k", &[4, 4])
        .matmul("x", "v", &[4, 4])
        .op("Transpose", &["k"], "kt", perm(&[0, 1, 3, 2]))
        .op("MatMul", &["q", "kt"], "scores", [])
        .conv("scores", "talk", &[2, 2, 1, 1], vec![])
        .norm("talk", "n", 2)
        .op("Softmax", &["n"], "weights", softmax())
        .conv("weights", "after", &[2, 2, 1, 1], vec![])
        .norm("after", "m", 2)
        .op("MatMul", &["m", "v"], "y", [])
        .output("y");
    let expected = (vec!["q".to_owned(), "k".to_owned()], vec!["v".to_owned()]);
    assert_eq!(found(builder), [expected]);
}

#[test]
fn of_several_products_the_scores_are_those_of_projections() {
    for order in [["qk", "relative"], ["relative", "qk"]] {
        let builder = image("batch,5,4")
            .op("Relu", &["x"], "r", [])
            .matmul("r", "q", &[4, 4])
            .matmul("r", "k", &[4, 4])
            .matmul("r", "v", &[4, 4])
            .op("Transpose", &["k"], "kt", perm(&[0, 2, 1]))
            .op("Transpose", &["r"], "rt", perm(&[0, 2, 1]))
            .op("MatMul", &["q", "kt"], "qk", [])
            .op("MatMul", &["q", "rt"], "relative", [])
            .op("Add", &order, "scores", [])
            .op("Softmax", &["scores"], "weights", softmax())
            .op("MatMul", &["weights", "v"], "y", [])
            .output("y");
        let expected = (vec!["q".to_owned(), "k".to_owned()], vec!["v".to_owned()]);
        assert_eq!(found(builder), [expected]);
    }
}
