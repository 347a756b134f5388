//! Biases go: what is added to W(x)x without depending on x cannot be explained.
//!
//! ```text
//! y = Conv (x, w, b)                              y = Conv (x, w)
//! y = Gemm (x, w, c)                              y = Gemm (x, w)
//! y = Add (MatMul (x, w), b)                      y = MatMul (x, w)
//! y = BatchNormalization (x, gamma, beta, 0, var) y = BatchNormalization (x, gamma, 0, 0, var)
//! ```
//!
//! Departing. Batch norms must be uncentred first, since their mean is a bias too.

use bcosc_ir::{Graph, Model, NodeId, Operand, Patch, Value};

use super::restore_norms::NORMS;
use crate::layer::{Form, Layer, added_bias};
use crate::weights::{self, WeightError};
use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

/// The pass.
pub struct RemoveBiases;

impl Pass for RemoveBiases {
    fn name(&self) -> &'static str {
        "remove-biases"
    }

    fn summary(&self) -> &'static str {
        "remove the biases of convolutions, linear layers and norms"
    }

    fn effect(&self) -> Effect {
        Effect::Departing
    }

    fn requires(&self) -> &'static [&'static str] {
        &["uncentre-norms"]
    }

    fn ensures(&self) -> &'static str {
        "linear layers and norms add nothing"
    }

    fn run(&self, model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let opset = model.opset("").unwrap_or(0);
        for node in model.graph.ops() {
            if !model.graph.contains(node) {
                continue;
            }
            match unbias(&model.graph, node, opset) {
                Ok(None) => {}
                Ok(Some(_)) if cx.settings.keep_biases => {
                    outcome.skipped(model.graph.label(node), Reason::Kept("--keep-biases"));
                }
                Ok(Some(patch)) => {
                    outcome.changed(model.graph.label(node), "bias removed");
                    model.graph.apply(patch)?;
                }
                Err(error) => error.settle(&model.graph, node, &mut outcome)?,
            }
        }
        Ok(outcome)
    }
}

/// `None` where the node has no bias.
fn unbias(graph: &Graph, node: NodeId, opset: i64) -> Result<Option<Patch>, WeightError> {
    let Some(op) = graph.op(node).filter(|op| op.domain().is_empty()) else {
        return Ok(None);
    };
    let mut patch = Patch::at(node);
    let mut found = false;
    if let Some(layer) = Layer::of(graph, node) {
        let layer = layer?;
        found |= drop_input(graph, &layer, opset, &mut patch)?;
        found |= drop_add(graph, Value { node, slot: 0 }, &mut patch);
    } else if NORMS.contains(&op.op_type()) {
        found |= clear_norm(graph, node, &mut patch)?;
        found |= drop_add(graph, Value { node, slot: 0 }, &mut patch);
    }
    Ok(found.then_some(patch))
}

/// The bias operand of `Conv` and `Gemm`.
fn drop_input(
    graph: &Graph,
    layer: &Layer,
    opset: i64,
    patch: &mut Patch,
) -> Result<bool, WeightError> {
    let node = layer.node;
    let Some(bias) = graph.input(node, 2) else {
        return Ok(false);
    };
    let required = matches!(layer.form, Form::Gemm(_)) && opset < 11;
    if !required {
        patch.set_input(node, 2, None);
        return Ok(true);
    }
    zero_input(graph, node, 2, bias, patch)
}

/// The bias operand of a norm, which batch, group and instance norms cannot do without.
fn clear_norm(graph: &Graph, node: NodeId, patch: &mut Patch) -> Result<bool, WeightError> {
    let Some(op) = graph.op(node) else {
        return Ok(false);
    };
    let Some(bias) = graph.input(node, 2) else {
        return Ok(false);
    };
    if op.is("LayerNormalization") {
        patch.set_input(node, 2, None);
        return Ok(true);
    }
    if op.is("BatchNormalization") {
        let mean = graph.input(node, 3).ok_or(Reason::Malformed)?;
        if weights::floats(graph, mean)?
            .elements
            .iter()
            .any(|&m| m != 0.0)
        {
            return Err(Reason::Centred.into());
        }
    }
    zero_input(graph, node, 2, bias, patch)
}

/// Puts zeros in the place of a constant operand; false where it is zero already.
fn zero_input(
    graph: &Graph,
    node: NodeId,
    slot: u32,
    bias: Value,
    patch: &mut Patch,
) -> Result<bool, WeightError> {
    let bias = weights::floats(graph, bias)?;
    if bias.elements.iter().all(|&b| b == 0.0) {
        return Ok(false);
    }
    let zeros = patch.parameter("bias", bias.with(&vec![0.0; bias.elements.len()]));
    patch.set_input(node, slot, Some(zeros));
    Ok(true)
}

/// A constant that a node of its own adds.
fn drop_add(graph: &Graph, product: Value, patch: &mut Patch) -> bool {
    let Some((add, _)) = added_bias(graph, product) else {
        return false;
    };
    patch.replace(Value { node: add, slot: 0 }, Operand::Old(product));
    true
}
