//! Converts linear layers to B-cos layers.
//!
//! With y = w.x (plus the bias, if kept), the layer outputs `(|y| / ||x||)^(B-1) * y`: inputs that are not aligned
//! with the weights are suppressed. w is not normalised. ||x|| is over the inputs of one output: the patch and the
//! group's channels of a convolution, the vector of a linear layer.
//!
//! ```text
//! y = Conv (x, w)
//! y = bcosc.Scale <b = 2> (Conv (x, w), bcosc.PatchNorm (x))
//! ```
//!
//! With `--biases carry`, a bias is to be a weight on a channel of ones, so ||x|| of a layer with a bias counts that channel, too. With
//! `--biases keep`, ||x|| leaves the bias out.
//!
//! Every layer has a B of its own: that of the model, unless `--b-last` or `--b-layer` choose another. Layers that compute
//! queries, keys and values of attention stay linear. At B = 1 the factor is 1, and the pass does nothing. Layers with the
//! same patches share a norm, and with the same channel of ones.

mod exponents;

use std::collections::{BTreeMap, BTreeSet};

use bcosc_ir::ops::Trait;
use bcosc_ir::{Graph, Model, NodeId, Op, Operand, Patch, Value};

use crate::analysis::layers::{Form, Layer, OPERATORS};
use crate::analysis::linearity::layers_on_constants;
use crate::analysis::raise::{attention, attention_pool};
use crate::dialect::{PatchNorm, Scale, VectorNorm};
use crate::{Biases, Context, Effect, Outcome, Pass, PassError, Reason};
use exponents::{described, exponents};

/// Key of the node metadata that marks a layer that stays linear.
pub const LINEAR: &str = "bcosc.linear";

/// Key of the model metadata that holds B of the model.
pub const B: &str = "bcosc.b";

/// Key of the model metadata that holds B of the layers that have another one: a JSON object, by name.
pub const B_LAYERS: &str = "bcosc.b_layers";

/// The pass.
pub static BCOS: Pass = Pass {
    name: "bcos",
    summary: "convert linear layers to B-cos layers",
    effect: Effect::Exact,
    requires: &[],
    run,
};

fn run(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
    let mut outcome = Outcome::default();
    // Unused nodes are removed at the end, since another layer may still share the norm of an unused one.
    model.graph.remove_dead();
    let attentions = attention::all(&model.graph);
    let linear = attention::projections(&attentions);
    let constant_layers = layers_on_constants(&model.graph);
    let pools = attention_pool::among(&model.graph, attentions);
    let behind_pools: BTreeSet<NodeId> = pools.iter().map(|p| p.projection.node).collect();
    let graph = &model.graph;
    let mut layers = Vec::new();
    for node in graph.ops() {
        match Layer::of(graph, node) {
            None => {
                if graph.op(node).is_some_and(has_other_weights) {
                    outcome.skipped(graph.label(node), Reason::NoBcosForm);
                }
                continue;
            }
            Some(Err(reason)) => {
                outcome.skipped(graph.label(node), reason);
                continue;
            }
            Some(Ok(_)) => {}
        }
        if constant_layers.contains(&node) {
            outcome.skipped(graph.label(node), Reason::NotOfInput);
            continue;
        }
        if behind_pools.contains(&node) && !cx.settings.bcos_projection {
            outcome.skipped(graph.label(node), Reason::OutputProjection);
            continue;
        }
        let marked = graph
            .op(node)
            .is_some_and(|op| op.metadata(LINEAR).is_some());
        if marked || linear.contains(&node) {
            outcome.skipped(graph.label(node), Reason::Projection);
            continue;
        }
        layers.push(node);
    }
    let exponents = exponents(graph, &layers, cx.settings).map_err(PassError::Model)?;
    let others = described(graph, &exponents, cx.settings.b);
    let mut norms = BTreeMap::new();
    for (node, b) in layers
        .into_iter()
        .filter_map(|node| Some((node, *exponents.get(&node)?)))
    {
        // What a layer reads may have become the output of a B-cos layer.
        let Some(Ok(layer)) = Layer::of(&model.graph, node).filter(|_| b != 1.0) else {
            continue;
        };
        let carries = cx.settings.biases() == Biases::Carry && layer.has_bias(&model.graph);
        let norm = Norm::of(&layer, carries);
        let shared = norms.get(&norm).copied();
        let patch = scale(&layer, &norm, shared, b);
        outcome.changed(model.graph.label(node), format!("B-cos, B = {b}"));
        let added = model.graph.apply(patch)?;
        if shared.is_none() {
            norms.insert(
                norm,
                Value {
                    node: added[0],
                    slot: 0,
                },
            );
        }
    }
    if let Some(others) = others {
        model.set_metadata(B_LAYERS, &others);
    }
    Ok(outcome)
}

/// Whether an operator has weights but is never a [`Layer`].
fn has_other_weights(op: &Op) -> bool {
    op.has(Trait::Weights) && !OPERATORS.contains(&op.op_type())
}

/// The norm that a layer divides by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Norm {
    Patch(PatchNorm),
    Vector(VectorNorm),
}

impl Norm {
    fn of(layer: &Layer, constant: bool) -> Self {
        let x = layer.x;
        match &layer.form {
            Form::Conv(conv) => Norm::Patch(PatchNorm {
                x,
                channels: conv.in_channels(),
                window: conv.window.clone(),
                group: conv.group,
                constant,
            }),
            Form::Gemm(gemm) if gemm.trans_a => Norm::Vector(VectorNorm {
                x,
                axis: 0,
                transposed: true,
                constant,
            }),
            Form::Gemm(_) | Form::RightMatMul => Norm::Vector(VectorNorm {
                x,
                axis: -1,
                transposed: false,
                constant,
            }),
            Form::LeftMatMul => Norm::Vector(VectorNorm {
                x,
                axis: -2,
                transposed: false,
                constant,
            }),
        }
    }
}

fn scale(layer: &Layer, norm: &Norm, shared: Option<Value>, b: f64) -> Patch {
    let mut patch = Patch::at(layer.node);
    let norm = match (shared, norm) {
        (Some(value), _) => Operand::Old(value),
        (None, Norm::Patch(norm)) => patch.op(norm.op(), &[norm.x.into()]),
        (None, Norm::Vector(norm)) => patch.op(norm.op(), &[norm.x.into()]),
    };
    let op = match &layer.form {
        Form::Conv(conv) => Scale::op(b, conv.group, conv.out_channels(), conv.window.rank()),
        Form::Gemm(_) | Form::RightMatMul | Form::LeftMatMul => Scale::op(b, 1, 1, 0),
    };
    let scaled = patch.op(op, &[layer.out.into(), norm]);
    patch.replace(layer.out, scaled);
    patch
}

/// Whether a graph has B-cos layers.
pub fn has_bcos_layers(graph: &Graph) -> bool {
    graph.unordered().any(|id| Scale::of(graph, id).is_some())
}

#[cfg(test)]
mod tests;
