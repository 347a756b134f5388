//! Sigmoids, and what they are made of.
//!
//! ```text
//! Sigmoid   y (1 - y)                Softplus   Sigmoid(x)
//! Erf       2 / sqrt(pi) exp(-x^2)   Softsign   1 / (1 + |x|)^2
//! ```

use crate::context::{Found, RuleContext};

pub(crate) fn sigmoid(cx: &mut RuleContext<'_>) -> Found {
    let y = cx.y();
    let one = cx.number(y, 1.0);
    let rest = cx.sub(one, y.into());
    let slope = cx.mul(y.into(), rest);
    cx.scaled_by(slope)
}

pub(crate) fn erf(cx: &mut RuleContext<'_>) -> Found {
    let x = cx.operand(0)?;
    let square = cx.mul(x.into(), x.into());
    let negative = cx.neg(square);
    let bell = cx.op("Exp", &[negative]);
    let slope = cx.times(bell, std::f64::consts::FRAC_2_SQRT_PI, x);
    cx.scaled_by(slope)
}

pub(crate) fn softplus(cx: &mut RuleContext<'_>) -> Found {
    let x = cx.operand(0)?;
    let slope = cx.op("Sigmoid", &[x.into()]);
    cx.scaled_by(slope)
}

pub(crate) fn softsign(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x) = (cx.dy()?, cx.operand(0)?);
    let size = cx.op("Abs", &[x.into()]);
    let one = cx.number(x, 1.0);
    let by = cx.add(size, one);
    let square = cx.mul(by, by);
    Ok(vec![(0, cx.div(dy, square))])
}
