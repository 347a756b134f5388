//! Inserts identity norms after convolutions without a norm.
//!
//! Exporters fold batch norms into convolutions. At B > 1 every layer scales by |cos| < 1, so that without norms the
//! outputs of a deep network become constant. The new norm has `var = 1 - eps` and `gamma = 1`, which is exactly the
//! identity until it is calibrated:
//!
//! ```text
//! y = Conv (x, w)
//! y = BatchNormalization (Conv (x, w), 1, 0, 0, 1 - eps)
//! ```
//!
//! A convolution needs none if every path from its output reaches a norm through concatenation, averaging and
//! structural operators only (as in DenseNet), or if it is the last layer before the logits.

use std::collections::BTreeSet;

use bcosc_ir::ops::Trait;
use bcosc_ir::views::Conv;
use bcosc_ir::{DataType, Graph, Model, Op, Patch, Use, Value};

use crate::analysis::layers::{Form, Layer, data_consumers};
use crate::analysis::linearity::layers_on_constants;
use crate::analysis::weights;
use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

/// Epsilon of restored norms, PyTorch's default.
pub const EPSILON: f32 = 1e-5;

/// Key of the node metadata that marks a norm as restored; calibration looks for it.
pub const RESTORED: &str = "bcosc.restored";

/// The pass.
pub static RESTORE_NORMS: Pass = Pass {
    name: "restore-norms",
    summary: "insert identity norms after convolutions whose norm was folded",
    effect: Effect::Exact,
    requires: &[],
    run,
};

fn run(model: &mut Model, _: &Context<'_>) -> Result<Outcome, PassError> {
    let mut outcome = Outcome::default();
    let constant_layers = layers_on_constants(&model.graph);
    for node in model.graph.ops() {
        let graph = &model.graph;
        let Some(Ok(layer)) = Layer::of(graph, node) else {
            continue;
        };
        let Form::Conv(conv) = &layer.form else {
            continue;
        };
        if constant_layers.contains(&node) || reaches_norm(graph, layer.out) {
            continue;
        }
        if layer.is_head(graph) {
            outcome.skipped(graph.label(node), Reason::Head);
            continue;
        }
        let patch = restore(graph, conv, layer.out);
        outcome.changed(graph.label(node), "identity norm inserted");
        model.graph.apply(patch)?;
    }
    Ok(outcome)
}

fn restore(graph: &Graph, conv: &Conv, out: Value) -> Patch {
    let channels = conv.out_channels();
    let dtype = weights::constant_type(graph, conv.w).map_or(DataType::Float, |t| t.dtype);
    let filled = |x: f64| weights::tensor(dtype, &[channels], &vec![x; channels as usize]);
    let mut patch = Patch::at(conv.node);
    let gamma = patch.parameter("norm.weight", filled(1.0));
    let beta = patch.parameter("norm.bias", filled(0.0));
    let mean = patch.parameter("norm.running_mean", filled(0.0));
    let var = patch.parameter("norm.running_var", filled(1.0 - f64::from(EPSILON)));
    let mut op = Op::new("", "BatchNormalization")
        .named("norm")
        .with_float("epsilon", EPSILON);
    op.set_metadata(RESTORED, "true");
    let normed = patch.op(op, &[out.into(), gamma, beta, mean, var]);
    patch.replace(out, normed);
    patch
}

/// Whether an operator is structural, a concatenation or an average.
fn is_transparent(op: &Op) -> bool {
    op.has(Trait::Structural) || op.is("AveragePool") || op.is("GlobalAveragePool")
}

/// Whether every path from a value reaches a norm through such operators only.
fn reaches_norm(graph: &Graph, value: Value) -> bool {
    let mut open = vec![value];
    let mut seen = BTreeSet::new();
    while let Some(value) = open.pop() {
        let ends_here = |usage: &Use| matches!(usage, Use::Output(_));
        let consumers = data_consumers(graph, value);
        if consumers.is_empty() || graph.uses(value).iter().any(ends_here) {
            return false;
        }
        for node in consumers {
            let Some(op) = graph.op(node) else {
                return false;
            };
            if op.has(Trait::Norm) {
                continue;
            }
            if !is_transparent(op) {
                return false;
            }
            let outputs = (0..graph.output_count(node)).map(|slot| graph.output(node, slot));
            open.extend(outputs.filter(|&v| seen.insert(v)));
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{Attribute, DataType, ModelBuilder};

    use super::*;
    use crate::testing::{Layers, apply, image, reasons, rewritten, text};

    /// Ends in a pool and a linear head.
    fn headed(builder: ModelBuilder, from: &str, channels: u64) -> Model {
        builder
            .op("GlobalAveragePool", &[from], "pooled", [])
            .op("Flatten", &["pooled"], "flat", [])
            .linear("flat", "logits", channels, 3)
            .typed("logits")
    }

    fn norms(model: &Model) -> usize {
        let ops = model.graph.ops().into_iter();
        ops.filter(|&id| {
            model
                .graph
                .op(id)
                .is_some_and(|op| op.is("BatchNormalization"))
        })
        .count()
    }

    #[test]
    fn a_bare_convolution_gets_a_norm() {
        let builder = image("batch,2,4,4").biased_conv("x", "y", &[3, 2, 3, 3], vec![]);
        let before = headed(builder.op("Relu", &["y"], "z", []), "z", 3);
        insta::assert_snapshot!(text(&rewritten(&RESTORE_NORMS, &before)), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,2,4,4] x) => (logits)
        <
           float[3,2,3,3] "y.w" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, ... e0664f54},
           float[3] "y.b" = {0.6823779, -0.77477896, 0.9362561},
           float[3,3] "logits.w" = {0.93555224, 0.72995305, 0.80742854, -0.68031746, ... ec06c1e4},
           float[3] "logits.b" = {-0.13005446, -0.85860074, 1.0012181},
           float[3] "y.norm.weight" = {1.0, 1.0, 1.0},
           float[3] "y.norm.bias" = {0.0, 0.0, 0.0},
           float[3] "y.norm.running_mean" = {0.0, 0.0, 0.0},
           float[3] "y.norm.running_var" = {0.99999, 0.99999, 0.99999}
        >
        {
           y = Conv (x, "y.w", "y.b")
           ["y.norm"] "y.norm" = BatchNormalization <epsilon = 1e-5> (y, "y.norm.weight", "y.norm.bias", "y.norm.running_mean", "y.norm.running_var")  # from y
           z = Relu ("y.norm")
           pooled = GlobalAveragePool (z)
           flat = Flatten (pooled)
           logits = Gemm <transB = 1> (flat, "logits.w", "logits.b")
        }
        "#);
    }

    #[test]
    fn the_norm_comes_after_the_bias_and_has_the_layers_type() {
        let double = |dims: &[u64], x: &[f64]| weights::tensor(DataType::Double, dims, x);
        let before = ModelBuilder::new(17)
            .input("x", DataType::Double, "batch,1,4")
            .param("w", double(&[2, 1, 1], &[0.5, -0.25]))
            .op("Conv", &["x", "w"], "y", [])
            .param("b", double(&[2, 1], &[0.1, 0.2]))
            .op("Add", &["y", "b"], "z", [])
            .op("Relu", &["z"], "r", [])
            .param("v", double(&[1, 2, 1], &[1.0, 3.0]))
            .op("Conv", &["r", "v"], "u", [])
            .typed("u");
        insta::assert_snapshot!(text(&rewritten(&RESTORE_NORMS, &before)), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (double[batch,1,4] x) => (u)
        <
           double[2,1,1] w = {0.5, -0.25},
           double[2,1] b = {0.1, 0.2},
           double[1,2,1] v = {1.0, 3.0},
           double[2] "y.norm.weight" = {1.0, 1.0},
           double[2] "y.norm.bias" = {0.0, 0.0},
           double[2] "y.norm.running_mean" = {0.0, 0.0},
           double[2] "y.norm.running_var" = {0.9999900000002526, 0.9999900000002526}
        >
        {
           y = Conv (x, w)
           z = Add (y, b)
           ["y.norm"] "y.norm" = BatchNormalization <epsilon = 1e-5> (z, "y.norm.weight", "y.norm.bias", "y.norm.running_mean", "y.norm.running_var")  # from y
           r = Relu ("y.norm")
           u = Conv (r, v)
        }
        "#);
    }

    #[test]
    fn every_branch_of_a_residual_block_gets_one() {
        let builder = image("batch,2,4,4")
            .conv("x", "a", &[3, 2, 1, 1], vec![])
            .conv("x", "b", &[3, 2, 1, 1], vec![])
            .op("Add", &["a", "b"], "sum", [])
            .op("Relu", &["sum"], "z", []);
        let after = rewritten(&RESTORE_NORMS, &headed(builder, "z", 3));
        assert_eq!(norms(&after), 2);
    }

    #[test]
    fn a_norm_behind_a_concatenation_is_enough() {
        let builder = image("batch,2,4,4")
            .conv("x", "a", &[3, 2, 1, 1], vec![])
            .conv("x", "b", &[3, 2, 1, 1], vec![])
            .op("Concat", &["a", "b"], "c", [Attribute::int("axis", 1)])
            .norm("c", "n", 6);
        let outcome = apply(&RESTORE_NORMS, &mut headed(builder, "n", 6));
        assert_eq!((outcome.changes.len(), outcome.skips.len()), (0, 0));
    }

    #[test]
    fn a_norm_on_one_path_is_not_enough() {
        let builder = image("batch,2,4,4")
            .conv("x", "a", &[3, 2, 1, 1], vec![])
            .norm("a", "n", 3)
            .op("Add", &["a", "n"], "z", []);
        assert_eq!(
            norms(&rewritten(&RESTORE_NORMS, &headed(builder, "z", 3))),
            2
        );
    }

    #[test]
    fn reading_the_shape_does_not_count() {
        let builder = image("batch,2,4,4")
            .conv("x", "a", &[3, 2, 1, 1], vec![])
            .norm("a", "n", 3)
            .op("Shape", &["a"], "shape", []);
        let outcome = apply(&RESTORE_NORMS, &mut headed(builder.output("shape"), "n", 3));
        assert_eq!(outcome.changes.len(), 0);
    }

    #[test]
    fn a_convolution_that_gives_the_logits_has_none() {
        // SqueezeNet.
        let mut model = image("batch,2,4,4")
            .conv("x", "a", &[3, 2, 1, 1], vec![])
            .op("Relu", &["a"], "z", [])
            .op("GlobalAveragePool", &["z"], "logits", [])
            .typed("logits");
        let outcome = apply(&RESTORE_NORMS, &mut model);
        assert!(outcome.changes.is_empty());
        assert_eq!(reasons(outcome), [Reason::Head]);
    }
}
