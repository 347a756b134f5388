//! Quotients, powers and roots of elements.
//!
//! ```text
//! y = a / b    s_a = s_y / b              s_b = -s_a y
//! y = a ^ b    s_a = s_y b a^(b-1)        s_b = s_y y ln(a)
//! ```
//!
//! As in PyTorch, `x^0` has the slope 0 everywhere, and `0^b` does not depend on b where it is finite.

use bcosc_ir::{Operand, Value};

use crate::context::{Found, RuleContext};
use bcosc_passes::Reason;
use bcosc_passes::analysis::scalars::scalar;

/// `s_x = s_y sign(x)`.
pub(crate) fn abs(cx: &mut RuleContext<'_>) -> Found {
    let x = cx.operand(0)?;
    let sign = cx.op("Sign", &[x.into()]);
    cx.scaled_by(sign)
}

pub(crate) fn div(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    let (a, b) = (cx.operand(0)?, cx.operand(1)?);
    let quotient = cx.div(dy, b.into());
    let mut found = Vec::new();
    if cx.wants(0) {
        found.push((0, cx.unbroadcast(quotient, a)?));
    }
    if cx.wants(1) {
        let product = cx.mul(quotient, cx.y().into());
        let negative = cx.neg(product);
        found.push((1, cx.unbroadcast(negative, b)?));
    }
    Ok(found)
}

/// `s_x = -s_y y^2`.
pub(crate) fn reciprocal(cx: &mut RuleContext<'_>) -> Found {
    let y = cx.y();
    let square = cx.mul(y.into(), y.into());
    let negative = cx.neg(square);
    cx.scaled_by(negative)
}

/// `s_x = s_y / (2 y)`.
pub(crate) fn sqrt(cx: &mut RuleContext<'_>) -> Found {
    let (dy, y) = (cx.dy()?, cx.y());
    let double = cx.times(y.into(), 2.0, y);
    Ok(vec![(0, cx.div(dy, double))])
}

/// `s_x = s_y y`.
pub(crate) fn exp(cx: &mut RuleContext<'_>) -> Found {
    cx.scaled_by(cx.y().into())
}

/// `s_x = s_y / x`.
pub(crate) fn log(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x) = (cx.dy()?, cx.operand(0)?);
    Ok(vec![(0, cx.div(dy, x.into()))])
}

pub(crate) fn pow(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    let (a, b) = (cx.operand(0)?, cx.operand(1)?);
    let mut found = Vec::new();
    if cx.wants(0) {
        let fixed = scalar(cx.graph, b).filter(|_| !cx.wants(1));
        let part = match fixed {
            Some(exponent) => fixed_power(cx, dy, a, exponent),
            None => {
                let slope = slope_in_base(cx, a, b);
                cx.mul(dy, slope)
            }
        };
        found.push((0, cx.unbroadcast(part, a)?));
    }
    if cx.wants(1) {
        let slope = slope_in_exponent(cx, a, b)?;
        let part = cx.mul(dy, slope);
        found.push((1, cx.unbroadcast(part, b)?));
    }
    Ok(found)
}

/// `s b a^(b-1)`, where b is a number.
fn fixed_power(cx: &mut RuleContext<'_>, dy: Operand, a: Value, b: f64) -> Operand {
    let power = match b {
        0.0 => return cx.times(dy, 0.0, a),
        1.0 => return dy,
        2.0 => a.into(),
        3.0 => cx.mul(a.into(), a.into()),
        _ => {
            let less = cx.number(a, b - 1.0);
            cx.op("Pow", &[a.into(), less])
        }
    };
    let slope = cx.times(power, b, a);
    cx.mul(dy, slope)
}

fn slope_in_base(cx: &mut RuleContext<'_>, a: Value, b: Value) -> Operand {
    let mut exponent = Operand::Old(b);
    if cx.dtype(a) != cx.dtype(b) {
        exponent = cx.cast(exponent, cx.dtype(a));
    }
    let [zero, one] = [0.0, 1.0].map(|n| cx.number(a, n));
    let less = cx.sub(exponent, one);
    let power = cx.op("Pow", &[a.into(), less]);
    let slope = cx.mul(power, exponent);
    let flat = cx.op("Equal", &[exponent, zero]);
    cx.op("Where", &[flat, zero, slope])
}

fn slope_in_exponent(cx: &mut RuleContext<'_>, a: Value, b: Value) -> Result<Operand, Reason> {
    if cx.dtype(a) != cx.dtype(b) {
        return Err(Reason::NoBackwardRuleFor("a Pow of several element types"));
    }
    let zero = cx.number(a, 0.0);
    let log = cx.op("Log", &[a.into()]);
    let slope = cx.mul(cx.y().into(), log);
    let vanishes = cx.op("Equal", &[a.into(), zero]);
    let negative = cx.op("Less", &[b.into(), zero]);
    let finite = cx.op("Not", &[negative]);
    let flat = cx.op("And", &[vanishes, finite]);
    Ok(cx.op("Where", &[flat, zero, slope]))
}
