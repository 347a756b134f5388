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

use std::collections::BTreeSet;

use bcosc_ir::ops::Trait;
use bcosc_ir::{Graph, Model, NodeId, Patch, Value};

use crate::analysis::channels::Channels;
use crate::analysis::layers::{Form, Layer, Units, added_bias};
use crate::analysis::linearity::{Linearity, Standing, layers_on_constants};
use crate::analysis::weights::{self, WeightError};
use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

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
    let opset = model.opset("").unwrap_or(0);
    let constant_layers = layers_on_constants(&model.graph);
    for node in model.graph.ops() {
        if !model.graph.contains(node) || constant_layers.contains(&node) {
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
            Err(error) => error.skip_or_fail(&model.graph, node, &mut outcome)?,
        }
    }
    // In reverse order, so that the data operand of a sum still exists when it replaces the sum.
    for (node, data) in shifts(&model.graph)?.into_iter().rev() {
        let label = model.graph.label(node);
        if cx.settings.keep_biases {
            outcome.skipped(label, Reason::Kept("--keep-biases"));
            continue;
        }
        let mut patch = Patch::at(node);
        patch.replace(Value { node, slot: 0 }, data);
        model.graph.apply(patch)?;
        outcome.changed(label, "bias of channels removed");
    }
    Ok(outcome)
}

/// The constants that this pass removes, as the operands that read them, sorted; also in a model that is converted, whose
/// convolutions with ones, in the norms of B-cos layers, have no biases. The types of values must be known.
///
/// # Errors
/// If a weight is broken.
pub fn operands(graph: &Graph) -> Result<Vec<(NodeId, u32)>, PassError> {
    let constant_layers = layers_on_constants(graph);
    let mut found = BTreeSet::new();
    let mut constant_of = |node: NodeId| {
        let slots = graph.inputs_of(node).into_iter().zip(0..);
        found.extend(slots.filter_map(|(value, slot)| {
            graph.constant(value?)?;
            Some((node, slot))
        }));
    };
    for (node, _) in shifts(graph)? {
        constant_of(node);
    }
    let mut own = Vec::new();
    for node in graph.ops() {
        if constant_layers.contains(&node) {
            continue;
        }
        let is_norm = graph.op(node).is_some_and(|op| op.has(Trait::Norm));
        let layer = Layer::of(graph, node).and_then(Result::ok);
        let layer = layer.filter(|layer| !sums(graph, layer));
        if let Some(layer) = layer.as_ref().filter(|layer| layer.out != layer.product()) {
            constant_of(layer.out.node);
        }
        if layer.is_some() || is_norm {
            own.push(node);
        }
        let y = Value { node, slot: 0 };
        let units = norm_units(graph, node).filter(|_| is_norm);
        if let Some((add, _)) = units.and_then(|units| added_bias(graph, y, units)) {
            constant_of(add);
        }
    }
    for node in own {
        let bias = graph.input(node, 2);
        found.extend(
            bias.and_then(|bias| graph.constant(bias))
                .map(|_| (node, 2)),
        );
    }
    Ok(found.into_iter().collect())
}

/// Whether a layer only sums, as those in the norms of B-cos layers do.
fn sums(graph: &Graph, layer: &Layer) -> bool {
    let weight = weights::floats(graph, layer.w);
    weight.is_ok_and(|weight| weight.elements.iter().all(|&w| w == 1.0))
}

/// Sums of data and one constant per channel, after the first layer: biases of decomposed norms and of affine
/// layers. Sums before the first layer normalise images; position embeddings differ between
/// positions.
fn shifts(graph: &Graph) -> Result<Vec<(NodeId, Value)>, PassError> {
    let linearity = Linearity::of(graph);
    let channels = Channels::of(graph);
    let ops = graph.ops().into_iter();
    let shifted = ops.filter_map(|node| Some((node, shifted(graph, node, &channels)?)));
    let linear = shifted.filter(|(_, data)| linearity.standing(*data) == Standing::Linear);
    Ok(linear.collect())
}

/// The data operand of a sum with one constant per channel.
fn shifted(graph: &Graph, node: NodeId, channels: &Channels<'_>) -> Option<Value> {
    let op = graph.op(node).filter(|op| op.domain().is_empty())?;
    let (data, constant) = match (op.op_type(), &graph.inputs_of(node)[..]) {
        ("Add", &[Some(a), Some(b)]) if graph.constant(a).is_some() => (b, a),
        ("Add" | "Sub", &[Some(a), Some(b)]) if graph.constant(b).is_some() => (a, b),
        _ => return None,
    };
    let shape = graph.value_type(data)?.shape?;
    let dims = weights::constant_type(graph, constant)?.known_shape()?;
    let mut wide = dims.iter().rev().enumerate().filter(|(_, d)| **d > 1);
    let (behind, count) = wide.next()?;
    let one_axis = wide.next().is_none() && dims.len() <= shape.len();
    let fits = one_axis && shape[shape.len() - 1 - behind].known() == Some(*count);
    (fits && channels.has(data, behind)).then_some(data)
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
fn clear_norm(
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

/// The axis of the scale of a norm.
fn norm_units(graph: &Graph, node: NodeId) -> Option<Units> {
    let op = graph.op(node)?;
    let scale = weights::constant_type(graph, graph.input(node, 1)?)?;
    let count = *scale.known_shape()?.last()?;
    let rank = graph.value_type(graph.input(node, 0)?)?.rank()?;
    let behind = match op.has(Trait::VectorNorm) {
        true => 0,
        false => rank.checked_sub(2)?,
    };
    Some(Units { behind, count })
}

#[cfg(test)]
mod tests;
