//! Norms: through the mean and the deviation too.
//!
//! ```text
//! y = g z + b,  z = (x - mean(x)) / d     s_x = (t - mean(t) - z mean(t z)) / d,  t = s_y g
//!                                         s_g = sum(s_y z)     s_b = sum(s_y)
//! ```
//!
//! `RMSNormalization` subtracts no mean, and neither does its derivative. A `BatchNormalization` is in inference mode: mean
//! and variance are operands like the others.

use bcosc_ir::views::{AxesOp, BatchNorm};
use bcosc_ir::{Operand, Value};

use crate::context::{Found, RuleContext};
use crate::recompute::norms::{
    self, Centre, Factor, Norm, Statistics, batch_deviation, per_channel, rows, scales_groups,
};
use bcosc_passes::Reason;

const X: u32 = 0;
const SCALE: u32 = 1;
const BIAS: u32 = 2;
const MEAN: u32 = 3;
const VAR: u32 = 4;

pub(crate) fn batch(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    let norm = BatchNorm::of(cx.graph, cx.node).ok_or(Reason::TrainingMode)?;
    let axes = all_but_channels(cx, norm.x)?;
    let mut found = Vec::new();
    let needs_factor = cx.wants(X) || cx.wants(MEAN);
    let factor = match needs_factor.then(|| Factor::of(cx, &norm)) {
        Some(Factor::Of(factor)) => Some(factor),
        _ => None,
    };
    if cx.wants(X) {
        found.push((
            X,
            match factor {
                Some(factor) => {
                    let factor = per_channel(cx, factor, norm.x)?;
                    cx.mul(dy, factor)
                }
                None => dy,
            },
        ));
    }
    if cx.wants(BIAS) || cx.wants(MEAN) {
        let sum = cx.reduce_to(AxesOp::ReduceSum, dy, &axes);
        if cx.wants(BIAS) {
            found.push((BIAS, sum));
        }
        if cx.wants(MEAN) {
            let negative = cx.neg(sum);
            let part = factor.map(|factor| cx.mul(negative, factor));
            found.push((MEAN, part.unwrap_or(negative)));
        }
    }
    if cx.wants(SCALE) || cx.wants(VAR) {
        let mean = per_channel(cx, norm.mean.into(), norm.x)?;
        let centred = cx.sub(norm.x.into(), mean);
        let product = cx.mul(dy, centred);
        let sum = cx.reduce_to(AxesOp::ReduceSum, product, &axes);
        let deviation = batch_deviation(cx, &norm);
        let part = cx.div(sum, deviation);
        if cx.wants(SCALE) {
            found.push((SCALE, part));
        }
        if cx.wants(VAR) {
            let variance = cx.mul(deviation, deviation);
            let half = cx.times(norm.scale.into(), -0.5, norm.scale);
            let whole = cx.mul(part, half);
            found.push((VAR, cx.div(whole, variance)));
        }
    }
    Ok(found)
}

pub(crate) fn layer(cx: &mut RuleContext<'_>) -> Found {
    vectors(cx, Centre::Mean)
}

pub(crate) fn rms(cx: &mut RuleContext<'_>) -> Found {
    vectors(cx, Centre::Zero)
}

fn vectors(cx: &mut RuleContext<'_>, centre: Centre) -> Found {
    let norm = Norm::of_vectors(cx, centre)?;
    let (dy, x) = (cx.dy()?, cx.operand(X)?);
    let scale = cx.graph.input(cx.node, SCALE);
    let mut found = Vec::new();
    if cx.wants(X) || cx.wants(SCALE) {
        let inner = Inner::of(cx, &norm, x.into(), x);
        if cx.wants(X) {
            let scaled = scale.map(|scale| cx.mul(dy, scale.into()));
            found.push((X, inner.back(cx, scaled.unwrap_or(dy))));
        }
        if let Some(scale) = scale.filter(|_| cx.wants(SCALE)) {
            let product = cx.mul(dy, inner.z);
            found.push((SCALE, cx.unbroadcast(product, scale)?));
        }
    }
    if cx.wants(BIAS) {
        let bias = cx.operand(BIAS)?;
        found.push((BIAS, cx.unbroadcast(dy, bias)?));
    }
    Ok(found)
}

pub(crate) fn instance(cx: &mut RuleContext<'_>) -> Found {
    let norm = Norm::of_channels(cx)?;
    let (dy, x, scale) = (cx.dy()?, cx.operand(X)?, cx.operand(SCALE)?);
    let axes = all_but_channels(cx, x)?;
    let mut found = Vec::new();
    if cx.wants(X) || cx.wants(SCALE) {
        let inner = Inner::of(cx, &norm, x.into(), x);
        if cx.wants(X) {
            let scale = per_channel(cx, scale.into(), x)?;
            let scaled = cx.mul(dy, scale);
            found.push((X, inner.back(cx, scaled)));
        }
        if cx.wants(SCALE) {
            let product = cx.mul(dy, inner.z);
            found.push((SCALE, cx.reduce_to(AxesOp::ReduceSum, product, &axes)));
        }
    }
    if cx.wants(BIAS) {
        found.push((BIAS, cx.reduce_to(AxesOp::ReduceSum, dy, &axes)));
    }
    Ok(found)
}

/// Groups of channels become rows. Scale and bias are per group or per channel.
pub(crate) fn group(cx: &mut RuleContext<'_>) -> Found {
    let norm = Norm::of_rows(cx)?;
    let (dy, x, scale) = (cx.dy()?, cx.operand(X)?, cx.operand(SCALE)?);
    let of_groups = scales_groups(cx);
    let (dy, axes) = match of_groups {
        true => (rows(cx, dy)?, vec![0, 2]),
        false => (dy, all_but_channels(cx, x)?),
    };
    let mut found = Vec::new();
    if cx.wants(X) || cx.wants(SCALE) {
        let wide = rows(cx, x.into())?;
        let inner = Inner::of(cx, &norm, wide, x);
        if cx.wants(X) {
            let scaled = if of_groups {
                let scale = cx.reshape(scale.into(), &[1, -1, 1]);
                cx.mul(dy, scale)
            } else {
                let scale = per_channel(cx, scale.into(), x)?;
                let scaled = cx.mul(dy, scale);
                rows(cx, scaled)?
            };
            let narrow = inner.back(cx, scaled);
            found.push((X, cx.reshape_like(narrow, x)));
        }
        if cx.wants(SCALE) {
            let z = match of_groups {
                true => inner.z,
                false => cx.reshape_like(inner.z, x),
            };
            let product = cx.mul(dy, z);
            found.push((SCALE, cx.reduce_to(AxesOp::ReduceSum, product, &axes)));
        }
    }
    if cx.wants(BIAS) {
        found.push((BIAS, cx.reduce_to(AxesOp::ReduceSum, dy, &axes)));
    }
    Ok(found)
}

pub(crate) fn mean_variance(cx: &mut RuleContext<'_>) -> Found {
    let norm = Norm::of_elements(cx)?;
    let (dy, x) = (cx.dy()?, cx.operand(X)?);
    let inner = Inner::of(cx, &norm, x.into(), x);
    Ok(vec![(X, inner.back(cx, dy))])
}

/// `LpNormalization`: `y = x / l`, `s_x = (s_y - u sum(s_y y)) / l` with u the slope of the length l: y, or the signs of
/// x. Where l is 0, so is the slope.
pub(crate) fn length(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x, y) = (cx.dy()?, cx.operand(X)?, cx.y());
    let axis: i64 = cx.attribute("axis")?;
    let p = cx.attribute("p")?;
    let length = norms::length(cx, p)?;
    let product = cx.mul(dy, y.into());
    let sum = cx.reduce(AxesOp::ReduceSum, product, &[axis]);
    let slope = match p {
        2 => y.into(),
        _ => cx.op("Sign", &[x.into()]),
    };
    let along = cx.mul(slope, sum);
    let across = cx.sub(dy, along);
    let zero = cx.number(x, 0.0);
    let is_long = cx.op("Greater", &[length, zero]);
    let divided = cx.div(across, length);
    Ok(vec![(X, cx.op("Where", &[is_long, divided, zero]))])
}

/// The norm itself, before scale and bias.
struct Inner<'n> {
    norm: &'n Norm,
    deviation: Operand,
    /// The normalised value.
    z: Operand,
}

impl<'n> Inner<'n> {
    fn of(cx: &mut RuleContext<'_>, norm: &'n Norm, x: Operand, like: Value) -> Self {
        let Statistics { centred, deviation } = norm.statistics(cx, x, like);
        let z = cx.div(centred, deviation);
        Inner { norm, deviation, z }
    }

    /// The cotangent of x from that of z.
    fn back(&self, cx: &mut RuleContext<'_>, t: Operand) -> Operand {
        let axes = &self.norm.axes;
        let product = cx.mul(t, self.z);
        let shared = cx.reduce(AxesOp::ReduceMean, product, axes);
        let along = cx.mul(self.z, shared);
        let mut across = cx.sub(t, along);
        if self.norm.centre == Centre::Mean {
            let mean = cx.reduce(AxesOp::ReduceMean, t, axes);
            across = cx.sub(across, mean);
        }
        cx.div(across, self.deviation)
    }
}

fn all_but_channels(cx: &RuleContext<'_>, x: Value) -> Result<Vec<i64>, Reason> {
    let rank = cx.dims(x)?.len() as i64;
    Ok((0..rank).filter(|&axis| axis != 1).collect())
}
