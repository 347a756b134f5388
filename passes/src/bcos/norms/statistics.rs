//! Measures the input variance of norms by running a copy of the network.

use std::collections::BTreeMap;

use bcosc_ir::views::{AxesOp, BatchNorm, reduce};
use bcosc_ir::{Graph, Model, NodeId, Op, Operand, Patch, Value};

use crate::analysis::weights;
use crate::bcos::lower::LOWER;
use crate::{Context, PassError, Reason};

/// Maximum epsilon, as a share of the mean variance of the channels. With a larger epsilon, a norm does not
/// scale small signals up, and they vanish in later layers.
const LARGEST_EPSILON: f64 = 1e-3;

/// The smallest epsilon; representable in half precision.
const LEAST_EPSILON: f64 = 1e-7;

/// The epsilon for these variances: that of the norm if it is small enough.
pub(crate) fn fitting_epsilon(own: f32, variance: &[f64]) -> f32 {
    let mean = variance.iter().sum::<f64>() / variance.len().max(1) as f64;
    let most = (LARGEST_EPSILON * mean) as f32;
    if most > 0.0 { own.min(most) } else { own }
}

/// The statistics that norms use during the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Statistics {
    /// Running statistics.
    Running,
    /// Batch statistics, so that the norms before a measured one already have the right scale.
    Batch,
}

/// Biased variance per channel of the input of each norm, over images and positions.
pub(crate) fn variances(
    model: &Model,
    norms: &[NodeId],
    statistics: Statistics,
    cx: &Context<'_>,
) -> Result<BTreeMap<NodeId, Vec<f64>>, PassError> {
    let Some(images) = cx.calibration else {
        return Ok(BTreeMap::new());
    };
    let mut probe = model.clone();
    let opset = probe.opset("").unwrap_or(0);
    let mut taps = Vec::new();
    for &node in norms {
        let tap = tap(&mut probe.graph, node, statistics, opset)?;
        taps.push((node, tap));
    }
    let outputs: Vec<Value> = taps.iter().map(|&(_, tap)| tap).collect();
    let names: Vec<String> = outputs
        .iter()
        .map(|&tap| probe.graph.value_name(tap).to_owned())
        .collect();
    let mut probe = probe.extract(&probe.graph.inputs(), &outputs)?;
    (LOWER.run)(&mut probe, cx)?;
    let measured = cx.interpreter.run(&probe, images)?;
    let mut found = BTreeMap::new();
    for ((node, _), name) in taps.into_iter().zip(names) {
        let label = model.graph.label(node);
        let tensor = measured
            .get(&name)
            .ok_or_else(|| PassError::Model(Reason::NotMeasured(label.clone())))?;
        let variance = tensor.to_f64s().map_err(|source| PassError::Weight {
            node: label.clone(),
            source,
        })?;
        if variance.iter().any(|v| !v.is_finite()) {
            return Err(PassError::Model(Reason::NotFinite(label)));
        }
        found.insert(node, variance);
    }
    Ok(found)
}

/// Adds the variance of a norm's input to a graph; returns the value that holds it.
fn tap(
    graph: &mut Graph,
    node: NodeId,
    statistics: Statistics,
    opset: i64,
) -> Result<Value, PassError> {
    let missing = || PassError::Model(Reason::NotMeasured(graph.label(node)));
    let norm = BatchNorm::of(graph, node).ok_or_else(missing)?;
    let x_type = graph.value_type(norm.x).ok_or_else(missing)?;
    let rank = x_type.rank().filter(|&rank| rank > 1).ok_or_else(missing)?;
    let axes: Vec<i64> = (0..rank as i64).filter(|&axis| axis != 1).collect();
    let mut patch = Patch::at(node);
    let x = Operand::Old(norm.x);
    let mean = reduce(&mut patch, opset, AxesOp::ReduceMean, x, &axes);
    let centred = patch.op(Op::new("", "Sub"), &[x, mean]);
    let squares = patch.op(Op::new("", "Mul"), &[centred, centred]);
    let variance = reduce(&mut patch, opset, AxesOp::ReduceMean, squares, &axes);
    if statistics == Statistics::Batch {
        let shaped = |value| -> Result<_, PassError> {
            let found = weights::floats(graph, value).map_err(|_| missing())?;
            let mut dims = vec![1; rank];
            dims[1] = found.elements.len() as u64;
            Ok(found.shaped(&dims, &found.elements))
        };
        let (gamma, beta) = (shaped(norm.scale)?, shaped(norm.bias)?);
        let epsilon = patch.parameter(
            "epsilon",
            weights::tensor(x_type.dtype, &[], &[f64::from(norm.epsilon)]),
        );
        let level = reduce(&mut patch, opset, AxesOp::ReduceMean, variance, &[1]);
        let share = weights::tensor(x_type.dtype, &[], &[LARGEST_EPSILON]);
        let share = patch.parameter("share", share);
        let level = patch.op(Op::new("", "Mul"), &[level, share]);
        let epsilon = patch.op(Op::new("", "Min"), &[epsilon, level]);
        // Avoid division by zero for constant channels.
        let least = weights::tensor(x_type.dtype, &[], &[LEAST_EPSILON]);
        let least = patch.parameter("least", least);
        let epsilon = patch.op(Op::new("", "Max"), &[epsilon, least]);
        let gamma = patch.parameter("gamma", gamma);
        let beta = patch.parameter("beta", beta);
        let shifted = patch.op(Op::new("", "Add"), &[variance, epsilon]);
        let deviation = patch.op(Op::new("", "Sqrt"), &[shifted]);
        let factor = patch.op(Op::new("", "Div"), &[gamma, deviation]);
        let scaled = patch.op(Op::new("", "Mul"), &[x, factor]);
        let normed = patch.op(Op::new("", "Add"), &[scaled, beta]);
        patch.replace(norm.y(), normed);
    }
    let flat = patch.op(
        Op::new("", "Flatten").named("variance").with_int("axis", 0),
        &[variance],
    );
    patch.keep(flat);
    let label = graph.label(node);
    let added = graph.apply(patch)?;
    flat.applied(&added)
        .ok_or(PassError::Model(Reason::NotMeasured(label)))
}

/// Batch norms of a graph in topological order.
pub(crate) fn batch_norms(graph: &Graph) -> Vec<NodeId> {
    graph
        .ops()
        .into_iter()
        .filter(|&id| BatchNorm::of(graph, id).is_some())
        .collect()
}
