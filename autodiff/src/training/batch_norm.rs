//! Batch norms in training mode.
//!
//! ```text
//! mean = mean of x        var = mean of (x - mean)^2        over the batch and all positions, per channel
//! f    = scale / sqrt(var + epsilon)
//! y    = x f + bias               uncentred, where the running mean is 0
//! y    = (x - mean) f + bias      centred
//! ```
//!
//! Until it is lowered, a norm is one operator:
//!
//! ```text
//! y, mean, var = bcosc.BatchNorm <epsilon, centred> (x, scale, bias)
//! ```
//!
//! With s the cotangent of y, m the number of elements per channel and d = sum of s x (centred: s (x - mean)):
//!
//! ```text
//! s_bias = sum of s        s_scale = d / sqrt(var + epsilon)
//! s_x    = s f - (x - mean) f d / (m (var + epsilon))    centred: minus f s_bias / m
//! ```
//!
//! With [`NormStatistics::Running`] mean and var are the running ones, as in inference: for the derivative they are numbers. Those of
//! the batch only move them. With [`NormStatistics::Fixed`] nothing does.
//!
//! Running statistics move towards the batch's by a share of `momentum`. The variance is the biased one; for centred
//! norms PyTorch would use the unbiased one.

use bcosc_ir::views::{AxesOp, BatchNorm};
use bcosc_ir::{
    DataType, Dim, Graph, Model, NodeId, Op, Operand, Patch, Tensor, TensorType, Value,
};
use bcosc_passes::dialect::DOMAIN;
use bcosc_passes::{Context, PassError, Reason};

use super::inputs::apply;
use crate::build::Build;
use crate::context::{Found, RuleContext};
use crate::transpose::arithmetic::cells;

/// The operator, as the table of rules names it.
pub(crate) const BATCH_NORM: &str = "BatchNorm";

/// What norms divide by in a training step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NormStatistics {
    /// The statistics of the batch.
    #[default]
    Batch,
    /// The running statistics, as in inference. They move from step to step all the same.
    Running,
    /// The statistics of the model, as in inference. They stay as they are.
    Fixed,
}

/// A statistic of a norm.
pub(super) struct Statistic {
    /// The batch's `[C]`.
    pub batch: Value,
    /// The running one, now an input.
    pub running: Value,
    /// What the running one was.
    pub initial: Tensor,
}

/// Puts the batch norms among some nodes into training mode, if their statistics are constants. The running mean of an
/// uncentred norm stays 0.
pub(super) fn train(
    model: &mut Model,
    among: &[NodeId],
    used: NormStatistics,
    cx: &Context<'_>,
) -> Result<Vec<Statistic>, PassError> {
    let mut statistics = Vec::new();
    for &node in among {
        if !model.graph.contains(node) {
            continue;
        }
        let Some(norm) = BatchNorm::of(&model.graph, node) else {
            continue;
        };
        let constants = [norm.mean, norm.var].map(|value| model.graph.constant(value));
        let [Some(mean), Some(var)] = constants else {
            continue;
        };
        let elements = mean.to_f64s().unwrap_or_default();
        let centred = elements.iter().any(|&x| x != 0.0);
        let per_channel = var.tensor_type();
        let whole = model.graph.value_type(norm.y()).ok_or_else(|| {
            let name = model.graph.value_name(norm.y()).to_owned();
            PassError::unsupported(model, node, Reason::UnknownShape(name))
        })?;
        // As inputs they outlive the operator that reads them.
        let mut running = Vec::new();
        for (slot, value) in [(1, norm.mean), (2, norm.var)] {
            if used != NormStatistics::Fixed && (slot == 2 || centred) {
                running.push((slot, value, model.graph.promote(value)?));
            }
        }
        let [mean, var] = match used {
            NormStatistics::Batch => {
                normalised_by_batch(model, node, &norm, centred, whole, per_channel)?
            }
            NormStatistics::Running => {
                let batch = measured(model, node, norm.x, &whole)?;
                normalised_as_in_inference(model, node, &norm, centred, &whole)?;
                batch
            }
            NormStatistics::Fixed => {
                normalised_as_in_inference(model, node, &norm, centred, &whole)?;
                continue;
            }
        };
        statistics.extend(
            running
                .into_iter()
                .map(|(slot, running, initial)| Statistic {
                    batch: [mean, var][slot - 1],
                    running,
                    initial,
                }),
        );
    }
    if used != NormStatistics::Batch {
        cx.infer(model)?;
    }
    Ok(statistics)
}

/// Puts the marker in the place of a norm. Returns the batch's mean and variance.
fn normalised_by_batch(
    model: &mut Model,
    node: NodeId,
    norm: &BatchNorm,
    centred: bool,
    whole: TensorType,
    per_channel: TensorType,
) -> Result<[Value; 2], PassError> {
    let mut patch = Patch::at(node);
    let op = Op::new(DOMAIN, BATCH_NORM)
        .named("batch_norm")
        .with_float("epsilon", norm.epsilon)
        .with_int("centred", centred.into());
    let operands = [norm.x, norm.scale, norm.bias].map(|value| Some(Operand::Old(value)));
    let y = patch.multi_op(op, &operands, 3);
    patch.typed(y, whole);
    for statistic in [1, 2].map(|slot| nth(y, slot)) {
        patch.typed(statistic, per_channel.clone());
    }
    patch.replace(norm.y(), y);
    let added = model.graph.apply(patch)?;
    let y = y
        .applied(&added)
        .ok_or(PassError::Model(Reason::Malformed))?;
    Ok([1, 2].map(|slot| Value { slot, ..y }))
}

/// The rank of what enters a norm, whose channels are on axis 1.
fn rank(model: &Model, node: NodeId, whole: &TensorType) -> Result<usize, PassError> {
    let found = whole.shape.as_ref().map(Vec::len).filter(|&rank| rank >= 2);
    found.ok_or_else(|| {
        let name = model.graph.value_name(Value { node, slot: 0 }).to_owned();
        PassError::unsupported(model, node, Reason::UnknownShape(name))
    })
}

/// Adds the batch's mean and variance of what enters a norm.
fn measured(
    model: &mut Model,
    node: NodeId,
    x: Value,
    whole: &TensorType,
) -> Result<[Value; 2], PassError> {
    let rank = rank(model, node, whole)?;
    let mut patch = Patch::at(node);
    let mut build = Build {
        patch: &mut patch,
        opset: model.opset("").unwrap_or(0),
        dtype: whole.dtype,
    };
    let [_, mean, var] = statistics(&mut build, x, rank);
    apply(model, patch, [mean, var])
}

/// Writes a norm with the model's own statistics in arithmetic.
fn normalised_as_in_inference(
    model: &mut Model,
    node: NodeId,
    norm: &BatchNorm,
    centred: bool,
    whole: &TensorType,
) -> Result<(), PassError> {
    let rank = rank(model, node, whole)?;
    let mut patch = Patch::at(node);
    let mut build = Build {
        patch: &mut patch,
        opset: model.opset("").unwrap_or(0),
        dtype: whole.dtype,
    };
    let factor = factor(&mut build, norm.scale, norm.var.into(), norm.epsilon.into());
    let along = channels(&mut build, rank);
    let x = match centred {
        true => {
            let running = build.op("Reshape", &[norm.mean.into(), along]);
            build.sub(norm.x, running)
        }
        false => norm.x.into(),
    };
    let y = affine(&mut build, &model.graph, x, factor, norm.bias, along);
    patch.replace(norm.y(), y);
    model.graph.apply(patch)?;
    Ok(())
}

/// Deviations of x from its mean per channel, the means, and the variances.
fn statistics(build: &mut Build<'_>, x: Value, rank: usize) -> [Operand; 3] {
    let axes: Vec<i64> = (0..rank as i64).filter(|&axis| axis != 1).collect();
    let wide = build.reduce(AxesOp::ReduceMean, x, &axes);
    let deviations = build.sub(x, wide);
    let squares = build.mul(deviations, deviations);
    let var = build.reduce_to(AxesOp::ReduceMean, squares, &axes);
    let channels = build.ints(&[-1]);
    let mean = build.op("Reshape", &[wide, channels]);
    [deviations, mean, var]
}

/// `scale / sqrt(var + epsilon)`, of shape `[C]`.
fn factor(build: &mut Build<'_>, scale: Value, var: Operand, epsilon: f64) -> Operand {
    let epsilon = build.number(epsilon);
    let sum = build.add(var, epsilon);
    let deviation = build.op("Sqrt", &[sum]);
    build.div(scale, deviation)
}

/// The shape that brings `[C]` to the rank of images.
fn channels(build: &mut Build<'_>, rank: usize) -> Operand {
    let shape: Vec<i64> = std::iter::once(-1).chain(vec![1; rank - 2]).collect();
    build.ints(&shape)
}

/// `x f + bias`, without a bias that is 0.
fn affine(
    build: &mut Build<'_>,
    graph: &Graph,
    x: Operand,
    factor: Operand,
    bias: Value,
    along: Operand,
) -> Operand {
    let factor = build.op("Reshape", &[factor, along]);
    let y = build.mul(x, factor);
    let zero = graph.constant(bias).is_some_and(|bias| {
        let elements = bias.to_f64s().unwrap_or_default();
        elements.iter().all(|&x| x == 0.0)
    });
    if zero {
        return y;
    }
    let bias = build.op("Reshape", &[bias.into(), along]);
    build.add(y, bias)
}

/// Another output of a new operator.
fn nth(first: Operand, slot: u32) -> Operand {
    match first {
        Operand::New { node, .. } => Operand::New { node, slot },
        Operand::Old(value) => Operand::Old(Value { slot, ..value }),
    }
}

/// The derivative.
pub(crate) fn derivative(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x, scale) = (cx.dy()?, cx.operand(0)?, cx.operand(1)?);
    let centred: bool = cx.attribute("centred")?;
    let [mean, var] = [1, 2].map(|slot| cx.graph.output(cx.node, slot));
    let rank = cx.dims(x)?.len();
    let axes: Vec<usize> = (0..rank).filter(|&axis| axis != 1).collect();
    let along: Vec<i64> = axes.iter().map(|&axis| axis as i64).collect();
    let products = cx.mul(dy, x.into());
    let mut dot = cx.reduce_to(AxesOp::ReduceSum, products, &along);
    let sums = (centred || cx.wants(2)).then(|| cx.reduce_to(AxesOp::ReduceSum, dy, &along));
    if let Some(sums) = sums.filter(|_| centred) {
        let of_mean = cx.mul(mean.into(), sums);
        dot = cx.op("Sub", &[dot, of_mean]);
    }
    let epsilon: f32 = cx.attribute("epsilon")?;
    let epsilon = cx.number(var, epsilon.into());
    let variance = cx.op("Add", &[var.into(), epsilon]);
    let deviation = cx.op("Sqrt", &[variance]);
    let mut found = Vec::new();
    if cx.wants(0) {
        let count = cells(cx, &axes)?;
        let factor = cx.div(scale.into(), deviation);
        let share = cx.mul(variance, count);
        let share = cx.div(dot, share);
        let slope = cx.mul(factor, share);
        let mut offset = cx.mul(slope, mean.into());
        if let Some(sums) = sums.filter(|_| centred) {
            let part = cx.div(sums, count);
            let part = cx.mul(factor, part);
            offset = cx.op("Sub", &[offset, part]);
        }
        let shape: Vec<i64> = std::iter::once(-1).chain(vec![1; rank - 2]).collect();
        let [factor, slope, offset] =
            [factor, slope, offset].map(|numbers| cx.reshape(numbers, &shape));
        let direct = cx.mul(dy, factor);
        let through = cx.mul(x.into(), slope);
        let difference = cx.op("Sub", &[direct, through]);
        found.push((0, cx.op("Add", &[difference, offset])));
    }
    if cx.wants(1) {
        found.push((1, cx.div(dot, deviation)));
    }
    if let Some(sums) = sums.filter(|_| cx.wants(2)) {
        found.push((2, sums));
    }
    Ok(found)
}

/// Writes the norms as standard operators.
pub(super) fn lower(model: &mut Model) -> Result<(), PassError> {
    let opset = model.opset("").unwrap_or(0);
    for node in model.graph.ops() {
        let Some(norm) = Marker::of(&model.graph, node) else {
            continue;
        };
        let dtype = |value| model.graph.value_type(value).map(|found| found.dtype);
        let mut patch = Patch::at(node);
        let mut build = Build {
            patch: &mut patch,
            opset,
            dtype: dtype(norm.x).unwrap_or(DataType::Float),
        };
        let [deviations, mean, var] = statistics(&mut build, norm.x, norm.rank);
        let factor = factor(&mut build, norm.scale, var, norm.epsilon);
        let along = channels(&mut build, norm.rank);
        let x = match norm.centred {
            true => deviations,
            false => norm.x.into(),
        };
        let y = affine(&mut build, &model.graph, x, factor, norm.bias, along);
        for (slot, new) in [(0, y), (1, mean), (2, var)] {
            patch.replace(Value { node, slot }, new);
        }
        model.graph.apply(patch)?;
    }
    Ok(())
}

/// A view of the operator.
struct Marker {
    x: Value,
    scale: Value,
    bias: Value,
    epsilon: f64,
    centred: bool,
    rank: usize,
}

impl Marker {
    fn of(graph: &Graph, node: NodeId) -> Option<Self> {
        let op = graph.op(node)?;
        if op.domain() != DOMAIN || op.op_type() != BATCH_NORM {
            return None;
        }
        let x = graph.input(node, 0)?;
        let dims: Vec<Dim> = graph
            .value_type(x)
            .and_then(|TensorType { shape, .. }| shape)?;
        Some(Marker {
            x,
            scale: graph.input(node, 1)?,
            bias: graph.input(node, 2)?,
            epsilon: op.get::<f32>("epsilon")?.into(),
            centred: op.get("centred")?,
            rank: dims.len(),
        })
    }
}
