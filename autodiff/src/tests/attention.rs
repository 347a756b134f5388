use bcosc_ir::{Attribute, DataType, ModelBuilder, Tensor};

use crate::testing::{Law, holds_in_single, refusal};
use bcosc_passes::Reason;
use bcosc_testing::{input, weight};

/// Why these cases run in single precision only.
const IN_SINGLE: &str = "tract computes attention in single precision";

fn heads(queries: i64, values: i64) -> Vec<Attribute> {
    vec![
        Attribute::int("q_num_heads", queries),
        Attribute::int("kv_num_heads", values),
    ]
}

/// Queries, keys and values of tokens `x`, as channels side by side.
fn packed(dims: &str, queries: u64, values: u64) -> ModelBuilder {
    input(23, dims)
        .param("wq", weight(0, &[6, queries]))
        .param("wk", weight(1, &[6, values]))
        .param("wv", weight(2, &[6, values]))
        .op("MatMul", &["x", "wq"], "q", [])
        .op("MatMul", &["x", "wk"], "k", [])
        .op("MatMul", &["x", "wv"], "v", [])
}

#[test]
fn heads_side_by_side() {
    for dims in ["batch,5,6", "batch,length,6"] {
        let builder = packed(dims, 8, 8).op("Attention", &["q", "k", "v"], "y", heads(4, 4));
        holds_in_single(dims, Law::Dynamic, builder, IN_SINGLE);
        let builder = packed(dims, 8, 4).op("Attention", &["q", "k", "v"], "y", heads(4, 2));
        holds_in_single("shared heads", Law::Dynamic, builder, IN_SINGLE);
    }
}

#[test]
fn heads_on_an_axis() {
    let split = |builder: ModelBuilder, name: &str, of: &str, heads: i64| {
        let shape = format!("{name}.shape");
        let apart = format!("{name}.apart");
        builder
            .param(&shape, Tensor::i64_vec(&[0, 0, heads, 2]))
            .op("Reshape", &[of, &shape], &apart, [])
            .op(
                "Transpose",
                &[&apart],
                name,
                [Attribute::ints("perm", &[0, 2, 1, 3])],
            )
    };
    let all = [
        vec![],
        vec![Attribute::int("is_causal", 1)],
        vec![Attribute::float("scale", 0.3)],
    ];
    for attributes in all {
        let mut builder = packed("batch,5,6", 8, 4);
        for (name, of, heads) in [("q4", "q", 4), ("k4", "k", 2), ("v4", "v", 2)] {
            builder = split(builder, name, of, heads);
        }
        let builder = builder.op("Attention", &["q4", "k4", "v4"], "y", attributes);
        holds_in_single("on an axis", Law::Dynamic, builder, IN_SINGLE);
    }
}

#[test]
fn masks() {
    let added = packed("batch,5,6", 8, 8).param("mask", weight(3, &[5, 5]));
    let operands = ["q", "k", "v", "mask"];
    let added = added.op("Attention", &operands, "y", heads(4, 4));
    holds_in_single("added", Law::Dynamic, added, IN_SINGLE);
}

#[test]
fn a_window_has_no_rule() {
    let mut attributes = heads(4, 4);
    attributes.push(Attribute::int("left_window_size", 1));
    let builder = packed("batch,5,6", 8, 8)
        .op("Attention", &["q", "k", "v"], "y", attributes)
        .value("y", DataType::Float, "batch,5,8");
    let why = "an Attention with a window";
    assert_eq!(refusal(builder), Reason::NoBackwardRuleFor(why));
}

#[test]
fn a_cache_has_no_rule() {
    let builder = packed("batch,5,6", 8, 8)
        .param("past", weight(3, &[1, 4, 3, 2]))
        .op(
            "Attention",
            &["q", "k", "v", "", "past", "past"],
            "y",
            heads(4, 4),
        )
        .value("y", DataType::Float, "batch,5,8");
    let why = "an Attention with a cache";
    assert_eq!(refusal(builder), Reason::NoBackwardRuleFor(why));
}
