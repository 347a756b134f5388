//! Activations.
//!
//! ```text
//! Elu          1 or y + alpha                 HardSigmoid   alpha where 0 < y < 1
//! Selu         gamma or y + alpha gamma       HardSwish     gate + x / 6 where -3 < x < 3
//! Celu         1 or exp(x / alpha)            Gelu          gate + x gate'
//! Swish        gate (1 + alpha x (1 - gate))  Mish          gate + x (1 - gate^2) Sigmoid(x)
//! ```
//!
//! The gates are those of [`gates`]. At a kink the slope is PyTorch's, which is that of the flat side.

use bcosc_ir::Operand;

use crate::context::{Found, RuleContext};
use crate::recompute::gates::{self, Gelu};
use bcosc_passes::Reason;

pub(crate) fn elu(cx: &mut RuleContext<'_>) -> Found {
    let alpha: f32 = cx.attribute("alpha")?;
    let (dy, y) = (cx.dy()?, cx.y());
    exponential(cx, dy, |cx| {
        let alpha = cx.number(y, alpha.into());
        Ok(cx.add(y.into(), alpha))
    })
}

pub(crate) fn selu(cx: &mut RuleContext<'_>) -> Found {
    let [alpha, gamma] = ["alpha", "gamma"].map(|name| cx.attribute::<f32>(name).map(f64::from));
    let (alpha, gamma) = (alpha?, gamma?);
    let (dy, y) = (cx.dy()?, cx.y());
    let steep = cx.times(dy, gamma, y);
    exponential(cx, steep, |cx| {
        let offset = cx.number(y, alpha * gamma);
        Ok(cx.add(y.into(), offset))
    })
}

pub(crate) fn celu(cx: &mut RuleContext<'_>) -> Found {
    let alpha: f32 = cx.attribute("alpha")?;
    let dy = cx.dy()?;
    exponential(cx, dy, |cx| {
        let mut inner = Operand::Old(cx.operand(0)?);
        if alpha != 1.0 {
            inner = cx.times(inner, 1.0 / f64::from(alpha), cx.y());
        }
        Ok(cx.op("Exp", &[inner]))
    })
}

/// A cotangent where x is positive, else that of the output times a slope.
fn exponential(
    cx: &mut RuleContext<'_>,
    positive: Operand,
    slope: impl FnOnce(&mut RuleContext<'_>) -> Result<Operand, Reason>,
) -> Found {
    let (dy, x) = (cx.dy()?, cx.operand(0)?);
    let slope = slope(cx)?;
    let negative = cx.mul(dy, slope);
    let zero = cx.number(x, 0.0);
    let is_positive = cx.op("Greater", &[x.into(), zero]);
    Ok(vec![(
        0,
        cx.op("Where", &[is_positive, positive, negative]),
    )])
}

pub(crate) fn gelu(cx: &mut RuleContext<'_>) -> Found {
    let x = cx.operand(0)?;
    let found = Gelu::of(cx)?;
    let growth = match found.square {
        // d/dx (1 + tanh u) / 2 = (1 - tanh^2 u) u' / 2
        Some(square) => {
            let half = gates::steepness() / 2.0;
            let one = cx.number(x, 1.0);
            let tanh = cx.mul(found.saturating, found.saturating);
            let rest = cx.sub(one, tanh);
            let bent = cx.times(square, 3.0 * gates::CUBIC * half, x);
            let flat = cx.number(x, half);
            let inner = cx.add(bent, flat);
            cx.mul(rest, inner)
        }
        // The density of the normal distribution.
        None => {
            let square = cx.mul(x.into(), x.into());
            let exponent = cx.times(square, -0.5, x);
            let bell = cx.op("Exp", &[exponent]);
            let height = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2 / 2.0;
            cx.times(bell, height, x)
        }
    };
    let more = cx.mul(x.into(), growth);
    let slope = cx.add(found.gate, more);
    cx.scaled_by(slope)
}

pub(crate) fn swish(cx: &mut RuleContext<'_>) -> Found {
    let (gate, inner) = gates::swish(cx)?;
    let one = cx.number(cx.y(), 1.0);
    let rest = cx.sub(one, gate);
    let part = cx.mul(inner, rest);
    let sum = cx.add(part, one);
    let slope = cx.mul(gate, sum);
    cx.scaled_by(slope)
}

pub(crate) fn mish(cx: &mut RuleContext<'_>) -> Found {
    let x = cx.operand(0)?;
    let gate = gates::mish(cx)?;
    let one = cx.number(x, 1.0);
    let square = cx.mul(gate, gate);
    let rest = cx.sub(one, square);
    let sigmoid = cx.op("Sigmoid", &[x.into()]);
    let growth = cx.mul(rest, sigmoid);
    let more = cx.mul(x.into(), growth);
    let slope = cx.add(gate, more);
    cx.scaled_by(slope)
}

pub(crate) fn hard_sigmoid(cx: &mut RuleContext<'_>) -> Found {
    let alpha: f32 = cx.attribute("alpha")?;
    let (dy, y) = (cx.dy()?, cx.y());
    let inside = between(cx, y.into(), [0.0, 1.0]);
    let zero = cx.number(y, 0.0);
    let scaled = cx.times(dy, alpha.into(), y);
    Ok(vec![(0, cx.op("Where", &[inside, scaled, zero]))])
}

pub(crate) fn hard_swish(cx: &mut RuleContext<'_>) -> Found {
    let x = cx.operand(0)?;
    let gate = gates::hard_swish(cx)?;
    let inside = between(cx, x.into(), [-3.0, 3.0]);
    let zero = cx.number(x, 0.0);
    let sloped = cx.times(x.into(), 1.0 / 6.0, x);
    let more = cx.op("Where", &[inside, sloped, zero]);
    let slope = cx.add(gate, more);
    cx.scaled_by(slope)
}

/// Whether elements of the type of the output lie within bounds, and not on them.
fn between(cx: &mut RuleContext<'_>, x: Operand, bounds: [f64; 2]) -> Operand {
    let y = cx.y();
    let [low, high] = bounds.map(|n| cx.number(y, n));
    let above = cx.op("Greater", &[x, low]);
    let below = cx.op("Less", &[x, high]);
    cx.op("And", &[above, below])
}

pub(crate) fn thresholded_relu(cx: &mut RuleContext<'_>) -> Found {
    let alpha: f32 = cx.attribute("alpha")?;
    let (dy, x) = (cx.dy()?, cx.operand(0)?);
    let [zero, alpha] = [0.0, alpha.into()].map(|n| cx.number(x, n));
    let open = cx.op("Greater", &[x.into(), alpha]);
    Ok(vec![(0, cx.op("Where", &[open, dy, zero]))])
}

pub(crate) fn shrink(cx: &mut RuleContext<'_>) -> Found {
    let limit: f32 = cx.attribute("lambd")?;
    let (dy, x) = (cx.dy()?, cx.operand(0)?);
    let [zero, low, high] = [0.0, -f64::from(limit), f64::from(limit)].map(|n| cx.number(x, n));
    let above = cx.op("Greater", &[x.into(), high]);
    let below = cx.op("Less", &[x.into(), low]);
    let open = cx.op("Or", &[above, below]);
    Ok(vec![(0, cx.op("Where", &[open, dy, zero]))])
}
