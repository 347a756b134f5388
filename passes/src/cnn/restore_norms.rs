//! Convolutions without a norm get one that is the identity.
//!
//! Exporters fold batch norm into the convolution before it. At B > 1 every layer scales by
//! |cos| < 1, and without a norm after it a deep network fades to a constant. The new norm has
//! `var = 1 - eps`, `gamma = 1`, so that it is exactly `x / sqrt(1)` until it is calibrated:
//!
//! ```text
//! y = Conv (x, w)
//! y = BatchNormalization (Conv (x, w), 1, 0, 0, 1 - eps)
//! ```
//!
//! A convolution whose output reaches a norm on every path, through nothing but concatenation,
//! averaging and moves (as in DenseNet), has one. The last layer before the logits has none.

use bcosc_ir::views::Conv;
use bcosc_ir::{Graph, Model, NodeId, Op, Patch, Use, Value};

use crate::layer::Layer;
use crate::{Context, Effect, Outcome, Pass, PassError, Reason, weights};

/// The pass.
pub struct RestoreNorms;

/// Epsilon of restored norms, PyTorch's default.
pub const EPSILON: f32 = 1e-5;

/// Name hint of the nodes; calibration looks for it.
pub const HINT: &str = "norm";

/// Key of the node metadata that marks a norm as restored.
pub const RESTORED: &str = "bcosc.restored";

impl Pass for RestoreNorms {
    fn name(&self) -> &'static str {
        "restore-norms"
    }

    fn summary(&self) -> &'static str {
        "give convolutions whose norm was folded away an identity norm"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn ensures(&self) -> &'static str {
        "every convolution but the head has a norm"
    }

    fn run(&self, model: &mut Model, _: &Context<'_>) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        for node in model.graph.ops() {
            let graph = &model.graph;
            let Some(Ok(layer)) = Layer::of(graph, node) else {
                continue;
            };
            let Some(conv) = Conv::of(graph, node) else {
                continue;
            };
            if reaches_norm(graph, layer.out) {
                continue;
            }
            if is_head(graph, layer.out) {
                outcome.skipped(graph.label(node), Reason::Head);
                continue;
            }
            let patch = restore(graph, &conv, layer.out);
            outcome.changed(graph.label(node), "identity norm inserted");
            model.graph.apply(patch)?;
        }
        Ok(outcome)
    }
}

fn restore(graph: &Graph, conv: &Conv, out: Value) -> Patch {
    let channels = conv.out_channels();
    let dtype = graph
        .value_type(conv.w)
        .map_or(bcosc_ir::DataType::Float, |t| t.dtype);
    let filled = |x: f64| weights::tensor(dtype, &[channels], &vec![x; channels as usize]);
    let mut patch = Patch::at(conv.node);
    let gamma = patch.parameter("norm.weight", filled(1.0));
    let beta = patch.parameter("norm.bias", filled(0.0));
    let mean = patch.parameter("norm.running_mean", filled(0.0));
    let var = patch.parameter("norm.running_var", filled(1.0 - f64::from(EPSILON)));
    let mut op = Op::new("", "BatchNormalization")
        .named(HINT)
        .with_float("epsilon", EPSILON);
    op.set_metadata(RESTORED, "true");
    let normed = patch.op(op, &[out.into(), gamma, beta, mean, var]);
    patch.replace(out, normed);
    patch
}

/// Norms of any kind.
pub(crate) const NORMS: &[&str] = &[
    "BatchNormalization",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "MeanVarianceNormalization",
    "RMSNormalization",
];

/// Operators that move or average values without deciding anything.
const TRANSPARENT: &[&str] = &[
    "AveragePool",
    "Concat",
    "DepthToSpace",
    "GlobalAveragePool",
    "Identity",
    "Pad",
    "Reshape",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Transpose",
];

/// Whether every path from a value meets a norm before anything else happens to it.
fn reaches_norm(graph: &Graph, value: Value) -> bool {
    let mut open = vec![value];
    let mut seen = std::collections::BTreeSet::new();
    while let Some(value) = open.pop() {
        let uses = graph.uses(value);
        if uses.is_empty() {
            return false;
        }
        for usage in uses {
            let Use::Input { node, .. } = usage else {
                return false;
            };
            let Some(op) = graph.op(node).filter(|op| op.domain().is_empty()) else {
                return false;
            };
            if NORMS.contains(&op.op_type()) {
                continue;
            }
            if !TRANSPARENT.contains(&op.op_type()) {
                return false;
            }
            let outputs = (0..graph.output_count(node)).map(|slot| graph.output(node, slot));
            open.extend(outputs.filter(|&v| seen.insert(v)));
        }
    }
    true
}

/// Whether no further linear layer comes after a value on the way to the outputs.
fn is_head(graph: &Graph, value: Value) -> bool {
    let mut open = vec![value];
    let mut seen = std::collections::BTreeSet::<NodeId>::new();
    while let Some(value) = open.pop() {
        for usage in graph.uses(value) {
            let (Use::Input { node, .. } | Use::Capture { node, .. }) = usage else {
                continue;
            };
            if matches!(Layer::of(graph, node), Some(Ok(_))) {
                return false;
            }
            if seen.insert(node) {
                open.extend((0..graph.output_count(node)).map(|slot| graph.output(node, slot)));
            }
        }
    }
    true
}
