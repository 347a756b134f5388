//! Biases go: what is added to W(x)x without depending on x cannot be explained.
//!
//! ```text
//! y = Conv (x, w, b)                              y = Conv (x, w)
//! y = Gemm (x, w, c)                              y = Gemm (x, w)
//! y = Add (MatMul (x, w), b)                      y = MatMul (x, w)
//! y = BatchNormalization (x, gamma, beta, 0, var) y = BatchNormalization (x, gamma, 0, 0, var)
//! ```
//!
//! So do the shifts of decomposed norms, behind the scale or without one.
//!
//! Departing. Batch norms must be uncentred first, since their mean is a bias too.

use bcosc_ir::{Graph, Model, NodeId, Patch, Value};

use super::restore_norms::NORMS;
use crate::layer::{Form, Layer, Units, added_bias};
use crate::raise::{Kind, Raised};
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
        let shifts = shifts(&model.graph)?;
        for (node, norm) in shifts {
            let graph = &model.graph;
            if cx.settings.keep_biases {
                outcome.skipped(graph.label(node), Reason::Kept("--keep-biases"));
                continue;
            }
            let mut patch = Patch::at(node);
            patch.replace(Value { node, slot: 0 }, norm);
            outcome.changed(graph.label(node), "bias of a decomposed norm removed");
            model.graph.apply(patch)?;
        }
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

/// The sums that shift what a decomposed norm puts out, and what they shift.
fn shifts(graph: &Graph) -> Result<Vec<(NodeId, Value)>, PassError> {
    let raised = Raised::of(graph)?;
    let decomposed = raised.norms().filter(|norm| norm.nodes.len() > 1);
    let shifts = decomposed.filter_map(|norm| {
        let scaled = scaled(graph, norm.out);
        let rank = graph.value_type(scaled)?.rank()?;
        let behind = match norm.kind {
            Kind::GroupNorm => rank.checked_sub(2)?,
            _ => 0,
        };
        let shape = graph.value_type(scaled)?.shape?;
        let count = shape.get(rank - 1 - behind)?.known()?;
        let (add, _) = added_bias(graph, scaled, Units { behind, count })?;
        Some((add, scaled))
    });
    Ok(shifts.collect())
}

/// A norm's output after its scale, where a node of its own multiplies by it.
fn scaled(graph: &Graph, norm: Value) -> Value {
    let scale = graph.sole_consumer(norm).filter(|&(node, slot)| {
        let is_scale = graph.op(node).is_some_and(|op| op.is("Mul"));
        let factor = graph.input(node, 1 - slot);
        is_scale && factor.is_some_and(|v| weights::constant_type(graph, v).is_some())
    });
    scale.map_or(norm, |(node, _)| graph.output(node, 0))
}

/// `None` where the node has no bias.
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
    } else if NORMS.contains(&op.op_type()) {
        let own = clear_norm(graph, node, &mut patch)?;
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
fn drop_operand(
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
        // One vector for each row of the batch: data, not a bias.
        return Err(Reason::BiasShape.into());
    }
    if matches!(layer.form, Form::Gemm(_)) && opset < 11 {
        return zero_operand(graph, layer.node, bias, patch);
    }
    patch.set_input(layer.node, 2, None);
    Ok(true)
}

/// The bias operand of a norm, which only layer norms can do without.
fn clear_norm(graph: &Graph, node: NodeId, patch: &mut Patch) -> Result<bool, WeightError> {
    let (Some(op), Some(bias)) = (graph.op(node), graph.input(node, 2)) else {
        return Ok(false);
    };
    constant_dims(graph, bias)?;
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
    zero_operand(graph, node, bias, patch)
}

/// Puts zeros in the place of the bias operand; false where it is zero already.
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

/// The axis that a norm has one factor an element for.
fn norm_units(graph: &Graph, node: NodeId) -> Option<Units> {
    let op = graph.op(node)?;
    let scale = weights::constant_type(graph, graph.input(node, 1)?)?;
    let count = *scale.known_shape()?.last()?;
    let rank = graph.value_type(graph.input(node, 0)?)?.rank()?;
    let behind = match op.op_type() {
        "LayerNormalization" | "RMSNormalization" => 0,
        _ => rank.checked_sub(2)?,
    };
    Some(Units { behind, count })
}

#[cfg(test)]
mod tests;
