//! Norms: the standard deviation is held fixed, the mean is not.
//!
//! ```text
//! y = g (x - mean(x)) / d + b      s_x = t - mean(t), t = s_y g / d
//! ```
//!
//! Centring is a symmetric projection. Added constants do not affect cotangents.

use bcosc_ir::views::{AxesOp, BatchNorm};
use bcosc_ir::{Operand, Value};

use crate::context::{Found, RuleContext};
use crate::recompute::norms::{self, Centre, Factor, Norm, per_channel};
use bcosc_passes::Reason;

pub(crate) fn batch(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    let norm = BatchNorm::of(cx.graph, cx.node).ok_or(Reason::TrainingMode)?;
    let Factor::Of(factor) = Factor::of(cx, &norm) else {
        return Ok(vec![(0, dy)]);
    };
    let factor = per_channel(cx, factor, norm.x)?;
    cx.scaled_by(factor)
}

pub(crate) fn layer(cx: &mut RuleContext<'_>) -> Found {
    vectors(cx, Centre::Mean)
}

pub(crate) fn rms(cx: &mut RuleContext<'_>) -> Found {
    vectors(cx, Centre::Zero)
}

/// A norm over the last axes, whose scale has those axes.
fn vectors(cx: &mut RuleContext<'_>, centre: Centre) -> Found {
    let norm = Norm::of_vectors(cx, centre)?;
    let (dy, x) = (cx.dy()?, cx.operand(0)?);
    let scaled = match cx.graph.input(cx.node, 1) {
        Some(scale) => cx.mul(dy, scale.into()),
        None => dy,
    };
    Ok(vec![(0, normalised(cx, x.into(), x, scaled, &norm))])
}

pub(crate) fn instance(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x, scale) = (cx.dy()?, cx.operand(0)?, cx.operand(1)?);
    let norm = Norm::of_channels(cx)?;
    let scale = per_channel(cx, scale.into(), x)?;
    let scaled = cx.mul(dy, scale);
    Ok(vec![(0, normalised(cx, x.into(), x, scaled, &norm))])
}

/// Groups of channels become rows.
pub(crate) fn group(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x, scale) = (cx.dy()?, cx.operand(0)?, cx.operand(1)?);
    let norm = Norm::of_rows(cx)?;
    let of_groups = norms::scales_groups(cx);
    let scaled = match of_groups {
        true => dy,
        false => {
            let scale = per_channel(cx, scale.into(), x)?;
            cx.mul(dy, scale)
        }
    };
    let (wide, mut cotangent) = (norms::rows(cx, x.into())?, norms::rows(cx, scaled)?);
    if of_groups {
        let scale = cx.reshape(scale.into(), &[1, -1, 1]);
        cotangent = cx.mul(cotangent, scale);
    }
    let found = normalised(cx, wide, x, cotangent, &norm);
    Ok(vec![(0, cx.reshape_like(found, x))])
}

/// `LpNormalization`: x divided by its length, or 0 where that is.
pub(crate) fn length(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x) = (cx.dy()?, cx.operand(0)?);
    let length = norms::length(cx, cx.attribute("p")?)?;
    let zero = cx.number(x, 0.0);
    let is_long = cx.op("Greater", &[length, zero]);
    let divided = cx.div(dy, length);
    Ok(vec![(0, cx.op("Where", &[is_long, divided, zero]))])
}

pub(crate) fn mean_variance(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x) = (cx.dy()?, cx.operand(0)?);
    let norm = Norm::of_elements(cx)?;
    Ok(vec![(0, normalised(cx, x.into(), x, dy, &norm))])
}

/// The cotangent after the norm itself.
fn normalised(
    cx: &mut RuleContext<'_>,
    x: Operand,
    like: Value,
    scaled: Operand,
    norm: &Norm,
) -> Operand {
    let deviation = norm.statistics(cx, x, like).deviation;
    let t = cx.div(scaled, deviation);
    match norm.centre {
        Centre::Mean => {
            let mean = cx.reduce(AxesOp::ReduceMean, t, &norm.axes);
            cx.sub(t, mean)
        }
        Centre::Zero => t,
    }
}
