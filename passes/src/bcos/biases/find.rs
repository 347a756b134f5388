//! Where biases are: constants added by layers and norms, or by a sum behind them.

use std::collections::BTreeSet;

use bcosc_ir::ops::Trait;
use bcosc_ir::{Graph, NodeId, Value};

use crate::PassError;
use crate::analysis::carried;
use crate::analysis::channels::Channels;
use crate::analysis::layers::{Layer, Units, added_bias};
use crate::analysis::linearity::{Linearity, Standing, layers_on_constants};
use crate::analysis::weights;

/// All biases of a model that is converted, as the operands that read them, sorted: those that `remove-biases` would
/// remove, and those that the input carries. Convolutions with ones, in the norms of B-cos layers, have none. The types
/// of values must be known.
///
/// # Errors
/// If a weight is broken.
pub fn operands(graph: &Graph) -> Result<Vec<(NodeId, u32)>, PassError> {
    let mut found = places(graph, &|layer| !sums(graph, layer))?;
    found.extend(carried::weights(graph));
    Ok(found.into_iter().collect())
}

/// The constants that `remove-biases` removes, as the operands that read them, with the own biases of the layers that
/// `has_own` accepts.
pub(crate) fn places(
    graph: &Graph,
    has_own: &dyn Fn(&Layer) -> bool,
) -> Result<BTreeSet<(NodeId, u32)>, PassError> {
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
        let layer = layer.filter(has_own);
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
    Ok(found)
}

/// Whether a layer only sums, as those in the norms of B-cos layers do.
fn sums(graph: &Graph, layer: &Layer) -> bool {
    let weight = weights::floats(graph, layer.w);
    weight.is_ok_and(|weight| weight.elements.iter().all(|&w| w == 1.0))
}

/// Sums of data and one constant per channel, after the first layer: biases of decomposed norms and of affine
/// layers. Sums before the first layer normalise images; position embeddings differ between
/// positions.
pub(super) fn shifts(graph: &Graph) -> Result<Vec<(NodeId, Value)>, PassError> {
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

/// The axis of the scale of a norm.
pub(crate) fn norm_units(graph: &Graph, node: NodeId) -> Option<Units> {
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
