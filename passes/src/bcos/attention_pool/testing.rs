//! A small image encoder for the tests of these passes.

use bcosc_ir::{Attribute, ModelBuilder, Tensor};

use crate::testing::{Layers, image, weight};

/// Features [6 positions, batch, 4] of an image, pooled with one attention head into an embedding of 3.
pub(crate) fn tower(positions: bool) -> ModelBuilder {
    let perm = |axes: &[i64]| [Attribute::ints("perm", axes)];
    let first = [("starts", [0i64]), ("ends", [1]), ("axes", [0])];
    let builder = image("batch,4,3,2")
        .conv("x", "map", &[4, 4, 1, 1], vec![])
        .param("flat", Tensor::i64_vec(&[0, 4, 6]))
        .op("Reshape", &["map", "flat"], "rows", [])
        .op("Transpose", &["rows"], "features", perm(&[2, 0, 1]))
        .op(
            "ReduceMean",
            &["features"],
            "mean",
            [Attribute::ints("axes", &[0])],
        )
        .op(
            "Concat",
            &["mean", "features"],
            "tokens",
            [Attribute::int("axis", 0)],
        );
    let (builder, seen) = match positions {
        true => {
            let builder = builder.param("positions", weight(5, &[7, 1, 4]));
            (
                builder.op("Add", &["tokens", "positions"], "placed", []),
                "placed",
            )
        }
        false => (builder, "tokens"),
    };
    let builder = first.iter().fold(builder, |b, (name, value)| {
        b.param(name, Tensor::i64_vec(value))
    });
    builder
        .op("Slice", &[seen, "starts", "ends", "axes"], "asking", [])
        .matmul("asking", "q0", &[4, 4])
        .matmul(seen, "k0", &[4, 4])
        .matmul(seen, "v0", &[4, 4])
        .op("Transpose", &["q0"], "q", perm(&[1, 0, 2]))
        .op("Transpose", &["k0"], "k", perm(&[1, 2, 0]))
        .op("Transpose", &["v0"], "v", perm(&[1, 0, 2]))
        .op("MatMul", &["q", "k"], "scores", [])
        .op(
            "Softmax",
            &["scores"],
            "weights",
            [Attribute::int("axis", -1)],
        )
        .op("MatMul", &["weights", "v"], "pooled", [])
        .param("vector", Tensor::i64_vec(&[-1, 4]))
        .op("Reshape", &["pooled", "vector"], "one", [])
        .linear("one", "embedding", 4, 3)
        .output("embedding")
}
