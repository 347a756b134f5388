//! Trigonometric and hyperbolic functions, and their inverses.
//!
//! ```text
//! Sin    cos(x)     Asin    1 / sqrt(1 - x^2)     Sinh    cosh(x)     Asinh    1 / sqrt(x^2 + 1)
//! Cos   -sin(x)     Acos   -1 / sqrt(1 - x^2)     Cosh    sinh(x)     Acosh    1 / sqrt(x^2 - 1)
//! Tan    1 + y^2    Atan    1 / (x^2 + 1)         Tanh    1 - y^2     Atanh    1 / (1 - x^2)
//! ```

use bcosc_ir::{Operand, Value};

use crate::context::{Found, RuleContext};

pub(crate) fn sin(cx: &mut RuleContext<'_>) -> Found {
    scaled_by_function(cx, "Cos")
}

pub(crate) fn cos(cx: &mut RuleContext<'_>) -> Found {
    let found = scaled_by_function(cx, "Sin")?;
    Ok(negative(cx, found))
}

pub(crate) fn tan(cx: &mut RuleContext<'_>) -> Found {
    let slope = square_and_one(cx, cx.y());
    cx.scaled_by(slope)
}

pub(crate) fn sinh(cx: &mut RuleContext<'_>) -> Found {
    scaled_by_function(cx, "Cosh")
}

pub(crate) fn cosh(cx: &mut RuleContext<'_>) -> Found {
    scaled_by_function(cx, "Sinh")
}

pub(crate) fn tanh(cx: &mut RuleContext<'_>) -> Found {
    let slope = one_less_square(cx, cx.y());
    cx.scaled_by(slope)
}

pub(crate) fn asin(cx: &mut RuleContext<'_>) -> Found {
    let x = cx.operand(0)?;
    let square = one_less_square(cx, x);
    over_root(cx, square)
}

pub(crate) fn acos(cx: &mut RuleContext<'_>) -> Found {
    let found = asin(cx)?;
    Ok(negative(cx, found))
}

pub(crate) fn atan(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x) = (cx.dy()?, cx.operand(0)?);
    let by = square_and_one(cx, x);
    Ok(vec![(0, cx.div(dy, by))])
}

pub(crate) fn asinh(cx: &mut RuleContext<'_>) -> Found {
    let x = cx.operand(0)?;
    let square = square_and_one(cx, x);
    over_root(cx, square)
}

pub(crate) fn acosh(cx: &mut RuleContext<'_>) -> Found {
    let x = cx.operand(0)?;
    let one = cx.number(x, 1.0);
    let square = cx.mul(x.into(), x.into());
    let square = cx.sub(square, one);
    over_root(cx, square)
}

pub(crate) fn atanh(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x) = (cx.dy()?, cx.operand(0)?);
    let by = one_less_square(cx, x);
    Ok(vec![(0, cx.div(dy, by))])
}

fn scaled_by_function(cx: &mut RuleContext<'_>, function: &str) -> Found {
    let x = cx.operand(0)?;
    let slope = cx.op(function, &[x.into()]);
    cx.scaled_by(slope)
}

fn negative(cx: &mut RuleContext<'_>, found: Vec<(u32, Operand)>) -> Vec<(u32, Operand)> {
    let each = found.into_iter();
    each.map(|(slot, part)| (slot, cx.neg(part))).collect()
}

fn square_and_one(cx: &mut RuleContext<'_>, x: Value) -> Operand {
    let one = cx.number(x, 1.0);
    let square = cx.mul(x.into(), x.into());
    cx.add(square, one)
}

fn one_less_square(cx: &mut RuleContext<'_>, x: Value) -> Operand {
    let one = cx.number(x, 1.0);
    let square = cx.mul(x.into(), x.into());
    cx.sub(one, square)
}

fn over_root(cx: &mut RuleContext<'_>, square: Operand) -> Found {
    let dy = cx.dy()?;
    let root = cx.op("Sqrt", &[square]);
    Ok(vec![(0, cx.div(dy, root))])
}
