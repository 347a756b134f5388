//! Norms: the standard deviation is held fixed, the mean is not.
//!
//! ```text
//! y = g (x - mean(x)) / d + b      s_x = t - mean(t), t = s_y g / d
//! ```
//!
//! Centring is a symmetric projection. Added constants do not affect cotangents.

use bcosc_ir::views::{AxesOp, BatchNorm};
use bcosc_ir::{DataType, Operand, Value};

use crate::context::{Found, RuleContext};
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

pub(crate) fn batch(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    let norm = BatchNorm::of(cx.graph, cx.node).ok_or(Reason::TrainingMode)?;
    let factor = match constant_factor(cx, &norm) {
        // A norm that was put in for its statistics may not scale at all.
        Some(factor) if factor.iter().all(|&x| is_one(cx.dtype(norm.x), x)) => {
            return Ok(vec![(0, dy)]);
        }
        Some(factor) => {
            let dims = [factor.len() as u64];
            let factor = weights::tensor(cx.dtype(norm.scale), &dims, &factor);
            cx.patch.parameter("factor", factor)
        }
        None => {
            let epsilon = cx.number(norm.var, norm.epsilon.into());
            let sum = cx.op("Add", &[norm.var.into(), epsilon]);
            let deviation = cx.op("Sqrt", &[sum]);
            cx.div(norm.scale.into(), deviation)
        }
    };
    let factor = per_channel(cx, factor, norm.x)?;
    Ok(vec![(0, cx.mul(dy, factor))])
}

fn is_one(dtype: DataType, x: f64) -> bool {
    match dtype {
        DataType::Double => x == 1.0,
        _ => x as f32 == 1.0,
    }
}

/// What a norm multiplies each channel by, where its operands are constants.
fn constant_factor(cx: &RuleContext<'_>, norm: &BatchNorm) -> Option<Vec<f64>> {
    let elements = |value| cx.graph.constant(value)?.to_f64s().ok();
    let (scale, var) = (elements(norm.scale)?, elements(norm.var)?);
    let epsilon = f64::from(norm.epsilon);
    let pairs = scale.iter().zip(&var);
    Some(pairs.map(|(g, v)| g / (v + epsilon).sqrt()).collect())
}

pub(crate) fn layer(cx: &mut RuleContext<'_>) -> Found {
    vectors(cx, Centre::Mean)
}

pub(crate) fn rms(cx: &mut RuleContext<'_>) -> Found {
    vectors(cx, Centre::Zero)
}

/// A norm over the last axes, whose scale has those axes.
fn vectors(cx: &mut RuleContext<'_>, centre: Centre) -> Found {
    let axes = last_axes(cx)?;
    let (dy, x) = (cx.dy()?, cx.operand(0)?);
    let scaled = match cx.graph.input(cx.node, 1) {
        Some(scale) => cx.mul(dy, scale.into()),
        None => dy,
    };
    let found = normalised(cx, x.into(), x, scaled, &axes, centre, epsilon(cx)?)?;
    Ok(vec![(0, found)])
}

pub(crate) fn instance(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x, scale) = (cx.dy()?, cx.operand(0)?, cx.operand(1)?);
    let rank = cx.dims(x)?.len() as i64;
    let scale = per_channel(cx, scale.into(), x)?;
    let scaled = cx.mul(dy, scale);
    let axes: Vec<i64> = (2..rank).collect();
    let found = normalised(cx, x.into(), x, scaled, &axes, Centre::Mean, epsilon(cx)?)?;
    Ok(vec![(0, found)])
}

/// Groups of channels become rows. Up to opset 20 there is one scale per group.
pub(crate) fn group(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x, scale) = (cx.dy()?, cx.operand(0)?, cx.operand(1)?);
    let groups = cx.attribute("num_groups")?;
    let scaled = match cx.opset >= 21 {
        true => {
            let scale = per_channel(cx, scale.into(), x)?;
            cx.mul(dy, scale)
        }
        false => dy,
    };
    let rows = |cx: &mut RuleContext<'_>, v: Operand| cx.reshape(v, &[0, groups, -1]);
    let (wide, mut cotangent) = (rows(cx, x.into()), rows(cx, scaled));
    if cx.opset < 21 {
        let scale = cx.reshape(scale.into(), &[1, -1, 1]);
        cotangent = cx.mul(cotangent, scale);
    }
    let found = normalised(cx, wide, x, cotangent, &[2], Centre::Mean, epsilon(cx)?)?;
    Ok(vec![(0, cx.reshape_like(found, x))])
}

/// `LpNormalization`: x divided by its length, or 0 where that is.
pub(crate) fn length(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x) = (cx.dy()?, cx.operand(0)?);
    let axis = cx.attribute("axis")?;
    let length = match cx.attribute("p")? {
        2_i64 => cx.reduce(AxesOp::ReduceL2, x.into(), &[axis]),
        _ => {
            let sizes = cx.op("Abs", &[x.into()]);
            cx.reduce(AxesOp::ReduceSum, sizes, &[axis])
        }
    };
    let zero = cx.number(x, 0.0);
    let is_long = cx.op("Greater", &[length, zero]);
    let divided = cx.div(dy, length);
    Ok(vec![(0, cx.op("Where", &[is_long, divided, zero]))])
}

/// `MeanVarianceNormalization`. 1e-9 is added to the deviation; a variance of 1e-18 is the same where that
/// counts, which is at a deviation of 0.
pub(crate) fn mean_variance(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x) = (cx.dy()?, cx.operand(0)?);
    let axes = cx.attribute::<&[i64]>("axes")?.to_vec();
    let found = normalised(cx, x.into(), x, dy, &axes, Centre::Mean, 1e-18)?;
    Ok(vec![(0, found)])
}

/// The epsilon of a norm.
fn epsilon(cx: &RuleContext<'_>) -> Result<f64, Reason> {
    cx.attribute::<f32>("epsilon").map(f64::from)
}

/// The axes from `axis` on.
fn last_axes(cx: &RuleContext<'_>) -> Result<Vec<i64>, Reason> {
    let rank = cx.dims(cx.operand(0)?)?.len();
    let first = cx.axis(cx.attribute("axis")?, rank)?;
    Ok((first as i64..rank as i64).collect())
}

/// One number per channel, in the shape that broadcasts over a value.
fn per_channel(cx: &mut RuleContext<'_>, numbers: Operand, like: Value) -> Result<Operand, Reason> {
    let behind = cx.dims(like)?.len().saturating_sub(2);
    let mut sizes = vec![-1];
    sizes.resize(1 + behind, 1);
    Ok(cx.reshape(numbers, &sizes))
}

/// The cotangent after the norm itself.
fn normalised(
    cx: &mut RuleContext<'_>,
    x: Operand,
    like: Value,
    scaled: Operand,
    axes: &[i64],
    centre: Centre,
    epsilon: f64,
) -> Result<Operand, Reason> {
    let centred = match centre {
        Centre::Mean => {
            let mean = cx.reduce(AxesOp::ReduceMean, x, axes);
            cx.op("Sub", &[x, mean])
        }
        Centre::Zero => x,
    };
    let squares = cx.mul(centred, centred);
    let variance = cx.reduce(AxesOp::ReduceMean, squares, axes);
    let epsilon = cx.number(like, epsilon);
    let sum = cx.op("Add", &[variance, epsilon]);
    let deviation = cx.op("Sqrt", &[sum]);
    let t = cx.div(scaled, deviation);
    Ok(match centre {
        Centre::Mean => {
            let mean = cx.reduce(AxesOp::ReduceMean, t, axes);
            cx.op("Sub", &[t, mean])
        }
        Centre::Zero => t,
    })
}
