//! Norms: the deviation is held fixed, the mean is not.
//!
//! ```text
//! y = g (x - mean(x)) / d + b      s_x = t - mean(t), t = s_y g / d
//! ```
//!
//! Centring is a projection that is its own transpose. What is added does not matter.

use bcosc_ir::views::{AxesOp, BatchNorm};
use bcosc_ir::{DataType, Operand, Value};

use super::step::{Found, Step};
use bcosc_passes::Reason;
use bcosc_passes::analysis::weights;

/// What a deviation is the root of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Centre {
    /// The variance.
    Mean,
    /// The mean square.
    Zero,
}

pub(super) fn batch(step: &mut Step<'_>) -> Found {
    let dy = step.dy()?;
    let norm = BatchNorm::of(step.graph, step.node).ok_or(Reason::TrainingMode)?;
    let factor = match constant_factor(step, &norm) {
        // A norm that was put in for its statistics may not scale at all.
        Some(factor) if factor.iter().all(|&x| is_one(step.dtype(norm.x), x)) => {
            return Ok(vec![(0, dy)]);
        }
        Some(factor) => {
            let dims = [factor.len() as u64];
            let factor = weights::tensor(step.dtype(norm.scale), &dims, &factor);
            step.patch.parameter("factor", factor)
        }
        None => {
            let epsilon = step.number(norm.var, norm.epsilon.into());
            let sum = step.op("Add", &[norm.var.into(), epsilon]);
            let deviation = step.op("Sqrt", &[sum]);
            step.div(norm.scale.into(), deviation)
        }
    };
    let factor = per_channel(step, factor, norm.x)?;
    Ok(vec![(0, step.mul(dy, factor))])
}

fn is_one(dtype: DataType, x: f64) -> bool {
    match dtype {
        DataType::Double => x == 1.0,
        _ => x as f32 == 1.0,
    }
}

/// What a norm multiplies each channel by, where its operands are constants.
fn constant_factor(step: &Step<'_>, norm: &BatchNorm) -> Option<Vec<f64>> {
    let elements = |value| step.graph.constant(value)?.to_f64s().ok();
    let (scale, var) = (elements(norm.scale)?, elements(norm.var)?);
    let epsilon = f64::from(norm.epsilon);
    let pairs = scale.iter().zip(&var);
    Some(pairs.map(|(g, v)| g / (v + epsilon).sqrt()).collect())
}

pub(super) fn layer(step: &mut Step<'_>) -> Found {
    let axes = axes_from(step, -1)?;
    vectors(step, &axes, Centre::Mean)
}

pub(super) fn rms(step: &mut Step<'_>) -> Found {
    let axes = axes_from(step, -1)?;
    vectors(step, &axes, Centre::Zero)
}

/// A norm over the last axes, whose scale has those axes.
fn vectors(step: &mut Step<'_>, axes: &[i64], centre: Centre) -> Found {
    let (dy, x) = (step.dy()?, step.operand(0)?);
    let scaled = match step.graph.input(step.node, 1) {
        Some(scale) => step.mul(dy, scale.into()),
        None => dy,
    };
    let found = normalised(step, x.into(), x, scaled, axes, centre, epsilon(step))?;
    Ok(vec![(0, found)])
}

pub(super) fn instance(step: &mut Step<'_>) -> Found {
    let (dy, x, scale) = (step.dy()?, step.operand(0)?, step.operand(1)?);
    let rank = step.dims(x)?.len() as i64;
    let scale = per_channel(step, scale.into(), x)?;
    let scaled = step.mul(dy, scale);
    let axes: Vec<i64> = (2..rank).collect();
    let found = normalised(
        step,
        x.into(),
        x,
        scaled,
        &axes,
        Centre::Mean,
        epsilon(step),
    )?;
    Ok(vec![(0, found)])
}

/// Groups of channels become rows. Up to opset 20 there is one scale a group.
pub(super) fn group(step: &mut Step<'_>) -> Found {
    let (dy, x, scale) = (step.dy()?, step.operand(0)?, step.operand(1)?);
    let groups = step.op.int("num_groups", 1);
    let scaled = match step.opset >= 21 {
        true => {
            let scale = per_channel(step, scale.into(), x)?;
            step.mul(dy, scale)
        }
        false => dy,
    };
    let rows = |step: &mut Step<'_>, v: Operand| step.reshape(v, &[0, groups, -1]);
    let (wide, mut cotangent) = (rows(step, x.into()), rows(step, scaled));
    if step.opset < 21 {
        let scale = step.reshape(scale.into(), &[1, -1, 1]);
        cotangent = step.mul(cotangent, scale);
    }
    let found = normalised(step, wide, x, cotangent, &[2], Centre::Mean, epsilon(step))?;
    Ok(vec![(0, step.reshape_like(found, x))])
}

/// `LpNormalization`: x divided by its length, or 0 where that is.
pub(super) fn length(step: &mut Step<'_>) -> Found {
    let (dy, x) = (step.dy()?, step.operand(0)?);
    let axis = step.op.int("axis", -1);
    let length = match step.op.int("p", 2) {
        2 => step.reduce(AxesOp::ReduceL2, x.into(), &[axis]),
        _ => {
            let sizes = step.op("Abs", &[x.into()]);
            step.reduce(AxesOp::ReduceSum, sizes, &[axis])
        }
    };
    let zero = step.number(x, 0.0);
    let is_long = step.op("Greater", &[length, zero]);
    let divided = step.div(dy, length);
    Ok(vec![(0, step.op("Where", &[is_long, divided, zero]))])
}

/// `MeanVarianceNormalization`. 1e-9 is added to the deviation; a variance of 1e-18 is the same where that
/// counts, which is at a deviation of 0.
pub(super) fn mean_variance(step: &mut Step<'_>) -> Found {
    let (dy, x) = (step.dy()?, step.operand(0)?);
    let axes = step.op.ints("axes").unwrap_or(&[0, 2, 3]).to_vec();
    let found = normalised(step, x.into(), x, dy, &axes, Centre::Mean, 1e-18)?;
    Ok(vec![(0, found)])
}

/// What a norm adds to a variance.
fn epsilon(step: &Step<'_>) -> f64 {
    step.op.float("epsilon", 1e-5).into()
}

fn axes_from(step: &Step<'_>, default: i64) -> Result<Vec<i64>, Reason> {
    let rank = step.dims(step.operand(0)?)?.len();
    let first = step.axis(step.op.int("axis", default), rank)?;
    Ok((first as i64..rank as i64).collect())
}

/// One number a channel, in the shape that broadcasts over a value.
fn per_channel(step: &mut Step<'_>, numbers: Operand, like: Value) -> Result<Operand, Reason> {
    let behind = step.dims(like)?.len().saturating_sub(2);
    let mut sizes = vec![-1];
    sizes.resize(1 + behind, 1);
    Ok(step.reshape(numbers, &sizes))
}

/// The cotangent behind the norm itself.
fn normalised(
    step: &mut Step<'_>,
    x: Operand,
    like: Value,
    scaled: Operand,
    axes: &[i64],
    centre: Centre,
    epsilon: f64,
) -> Result<Operand, Reason> {
    let centred = match centre {
        Centre::Mean => {
            let mean = step.reduce(AxesOp::ReduceMean, x, axes);
            step.op("Sub", &[x, mean])
        }
        Centre::Zero => x,
    };
    let squares = step.mul(centred, centred);
    let variance = step.reduce(AxesOp::ReduceMean, squares, axes);
    let epsilon = step.number(like, epsilon);
    let sum = step.op("Add", &[variance, epsilon]);
    let deviation = step.op("Sqrt", &[sum]);
    let t = step.div(scaled, deviation);
    Ok(match centre {
        Centre::Mean => {
            let mean = step.reduce(AxesOp::ReduceMean, t, axes);
            step.op("Sub", &[t, mean])
        }
        Centre::Zero => t,
    })
}
