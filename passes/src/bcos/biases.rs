//! Removes biases: constants added to W(x)x are not part of the explanation.
//!
//! ```text
//! y = Conv (x, w, b)                              y = Conv (x, w)
//! y = Gemm (x, w, c)                              y = Gemm (x, w)
//! y = Add (MatMul (x, w), b)                      y = MatMul (x, w)
//! y = BatchNormalization (x, gamma, beta, 0, var) y = BatchNormalization (x, gamma, 0, 0, var)
//! ```
//!
//! Also removes other constants with one element per channel, such as the biases of decomposed norms.
//!
//! Altering. Requires uncentred batch norms, since a running mean is a bias too.

pub(crate) mod find;

use bcosc_ir::ops::Trait;
use bcosc_ir::{Graph, Model, NodeId, Patch, Value};

use crate::analysis::layers::{Form, Layer, added_bias};
use crate::analysis::linearity::layers_on_constants;
use crate::analysis::weights::{self, WeightError};
use crate::{Biases, Context, Effect, Outcome, Pass, PassError, Reason};
pub use find::operands;
use find::{norm_units, shifts};

/// The pass.
pub static REMOVE_BIASES: Pass = Pass {
    name: "remove-biases",
    summary: "remove the biases of convolutions, linear layers and norms",
    effect: Effect::Altering,
    requires: &[&crate::bcos::norms::uncentre::UNCENTRE_NORMS],
    run,
};

fn run(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
    let mut outcome = Outcome::default();
    // `carry-biases` needs them all.
    if cx.settings.biases() == Biases::Carry {
        return Ok(outcome);
    }
    let keep = cx.settings.biases() == Biases::Keep;
    let opset = model.opset("").unwrap_or(0);
    let constant_layers = layers_on_constants(&model.graph);
    for node in model.graph.ops() {
        if !model.graph.contains(node) || constant_layers.contains(&node) {
            continue;
        }
        match unbias(&model.graph, node, opset) {
            Ok(None) => {}
            Ok(Some(_)) if keep => {
                outcome.skipped(model.graph.label(node), Reason::Kept("--biases keep"));
            }
            Ok(Some(patch)) => {
                outcome.changed(model.graph.label(node), "bias removed");
                model.graph.apply(patch)?;
            }
            Err(error) => error.skip_or_fail(&model.graph, node, &mut outcome)?,
        }
    }
    // In reverse order, so that the data operand of a sum still exists when it replaces the sum.
    for (node, data) in shifts(&model.graph)?.into_iter().rev() {
        let label = model.graph.label(node);
        if keep {
            outcome.skipped(label, Reason::Kept("--biases keep"));
            continue;
        }
        let mut patch = Patch::at(node);
        patch.replace(Value { node, slot: 0 }, data);
        model.graph.apply(patch)?;
        outcome.changed(label, "bias of channels removed");
    }
    Ok(outcome)
}

/// `None` if the node has no bias.
fn unbias(graph: &Graph, node: NodeId, opset: i64) -> Result<Option<Patch>, WeightError> {
    let Some(op) = graph.op(node).filter(|op| op.domain().is_empty()) else {
        return Ok(None);
    };
    let mut patch = Patch::at(node);
    let (own, added) = if let Some(layer) = Layer::of(graph, node) {
        let layer = layer?;
        let own = drop_operand(graph, &layer, opset, &mut patch)?;
        if layer.out != layer.product() {
            patch.replace(layer.out, layer.product());
        }
        (own, layer.out != layer.product())
    } else if op.has(Trait::Norm) {
        let own = clear_norm(graph, node, opset, &mut patch)?;
        let y = Value { node, slot: 0 };
        let added = norm_units(graph, node).and_then(|units| added_bias(graph, y, units));
        if let Some((add, _)) = added {
            patch.replace(Value { node: add, slot: 0 }, y);
        }
        (own, added.is_some())
    } else {
        return Ok(None);
    };
    Ok((own || added).then_some(patch))
}

/// The bias operand of `Conv` and `Gemm`.
pub(super) fn drop_operand(
    graph: &Graph,
    layer: &Layer,
    opset: i64,
    patch: &mut Patch,
) -> Result<bool, WeightError> {
    let Some(bias) = graph.input(layer.node, 2) else {
        return Ok(false);
    };
    let dims = constant_dims(graph, bias)?;
    if let (Form::Gemm(_), Some((_, outer))) = (&layer.form, dims.split_last())
        && outer.iter().any(|&d| d != 1)
    {
        // One vector per row of the batch is data, not a bias.
        return Err(Reason::BiasShape.into());
    }
    let op = graph.op(layer.node);
    if !op.is_some_and(|op| op.can_omit(2, opset)) {
        return zero_operand(graph, layer.node, bias, patch);
    }
    patch.set_input(layer.node, 2, None);
    Ok(true)
}

/// The bias operand of a norm.
pub(super) fn clear_norm(
    graph: &Graph,
    node: NodeId,
    opset: i64,
    patch: &mut Patch,
) -> Result<bool, WeightError> {
    let (Some(op), Some(bias)) = (graph.op(node), graph.input(node, 2)) else {
        return Ok(false);
    };
    constant_dims(graph, bias)?;
    if op.can_omit(2, opset) {
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
    zero_operand(graph, node, bias, patch)
}

/// Replaces the bias operand by zeros; false if it is already zero.
fn zero_operand(
    graph: &Graph,
    node: NodeId,
    bias: Value,
    patch: &mut Patch,
) -> Result<bool, WeightError> {
    let bias = weights::floats(graph, bias)?;
    if bias.elements.iter().all(|&b| b == 0.0) {
        return Ok(false);
    }
    let zeros = patch.parameter("bias", bias.with(&vec![0.0; bias.elements.len()]));
    patch.set_input(node, 2, Some(zeros));
    Ok(true)
}

fn constant_dims(graph: &Graph, bias: Value) -> Result<Vec<u64>, Reason> {
    let found = weights::constant_type(graph, bias).ok_or(Reason::DynamicBias)?;
    found.known_shape().ok_or(Reason::DynamicBias)
}

#[cfg(test)]
mod tests;
