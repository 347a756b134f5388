//! Functions of elements, with broadcasting.

use bcosc_ir::DataType;

use super::context::malformed;
use super::{Outputs, Reason, RuleContext, Table};
use crate::expr::{Binary, Formula, Type, Unary};

pub(super) const RULES: Table = &[
    ("Abs", |cx| unary(cx, |x| x.abs())),
    ("Acos", |cx| unary(cx, |x| x.unary(Unary::Acos))),
    ("Acosh", |cx| unary(cx, |x| x.unary(Unary::Acosh))),
    ("Add", |cx| folded(cx, |x, y| x + y)),
    ("And", |cx| folded(cx, |x, y| x.and(y))),
    ("Asin", |cx| unary(cx, |x| x.unary(Unary::Asin))),
    ("Asinh", |cx| unary(cx, |x| x.unary(Unary::Asinh))),
    ("Atan", |cx| unary(cx, |x| x.unary(Unary::Atan))),
    ("Atanh", |cx| unary(cx, |x| x.unary(Unary::Atanh))),
    ("Cast", cast),
    ("CastLike", cast),
    ("Ceil", |cx| unary(cx, |x| x.unary(Unary::Ceil))),
    ("Celu", |cx| {
        with(cx, ["alpha"], |x, [alpha]| exponential(x, alpha, alpha))
    }),
    ("Clip", clip),
    ("Cos", |cx| unary(cx, |x| x.unary(Unary::Cos))),
    ("Cosh", |cx| unary(cx, |x| x.unary(Unary::Cosh))),
    ("Div", |cx| folded(cx, |x, y| x / y)),
    ("Dropout", dropout),
    ("Elu", |cx| {
        with(cx, ["alpha"], |x, [alpha]| exponential(x, alpha, 1.0))
    }),
    ("Equal", |cx| folded(cx, |x, y| x.equals(y))),
    ("Erf", |cx| unary(cx, |x| x.erf())),
    ("Exp", |cx| unary(cx, |x| x.exp())),
    ("Floor", |cx| unary(cx, |x| x.unary(Unary::Floor))),
    ("Gelu", gelu),
    ("Greater", |cx| folded(cx, |x, y| y.less(x))),
    ("GreaterOrEqual", |cx| folded(cx, |x, y| y.at_most(x))),
    ("HardSigmoid", |cx| {
        with(cx, ["alpha", "beta"], |x, [a, b]| {
            (x * a + b).clamp(0.0, 1.0)
        })
    }),
    ("HardSwish", |cx| {
        unary(cx, |x| x.clone() * (x * (1.0 / 6.0) + 0.5).clamp(0.0, 1.0))
    }),
    ("IsInf", |cx| unary(cx, |x| x.unary(Unary::IsInf))),
    ("IsNaN", |cx| unary(cx, |x| x.unary(Unary::IsNan))),
    ("LeakyRelu", |cx| {
        with(cx, ["alpha"], |x, [a]| below_zero(x.clone(), x * a))
    }),
    ("Less", |cx| folded(cx, |x, y| x.less(y))),
    ("LessOrEqual", |cx| folded(cx, |x, y| x.at_most(y))),
    ("Log", |cx| unary(cx, |x| x.log())),
    ("Max", |cx| folded(cx, |x, y| x.max(y))),
    ("Mean", |cx| {
        let count = cx.operands()?.len() as f64;
        let sum = combined(cx, |x, y| x + y)?;
        let dims = cx.broadcast_result()?;
        cx.output(&dims, sum / count)
    }),
    ("Min", |cx| folded(cx, |x, y| x.min(y))),
    ("Mish", |cx| unary(cx, |x| x.clone() * x.softplus().tanh())),
    ("Mod", |cx| match cx.attribute("fmod")? {
        true => folded(cx, |x, y| x.binary(Binary::Fmod, y)),
        false => folded(cx, |x, y| x.binary(Binary::Mod, y)),
    }),
    ("Mul", |cx| folded(cx, |x, y| x * y)),
    ("Neg", |cx| unary(cx, |x| -x)),
    ("Not", |cx| unary(cx, |x| x.unary(Unary::Not))),
    ("Or", |cx| folded(cx, |x, y| x.or(y))),
    ("PRelu", |cx| {
        folded(cx, |x, slope| below_zero(x.clone(), x * slope))
    }),
    ("Pow", |cx| folded(cx, power)),
    ("Reciprocal", |cx| unary(cx, |x| x.like(1.0) / x)),
    ("Relu", |cx| unary(cx, |x| x.clone().max(x.like(0.0)))),
    ("Round", |cx| unary(cx, |x| x.unary(Unary::Rint))),
    ("Selu", |cx| {
        with(cx, ["alpha", "gamma"], |x, [alpha, gamma]| {
            exponential(x, alpha, 1.0) * gamma
        })
    }),
    ("Shrink", |cx| {
        with(cx, ["lambd", "bias"], |x, [lambd, bias]| {
            let (low, high) = (x.like(-lambd), x.like(lambd));
            let rest = high.less(x.clone()).select(x.clone() - bias, x.like(0.0));
            x.clone().less(low).select(x + bias, rest)
        })
    }),
    ("Sigmoid", |cx| unary(cx, |x| x.sigmoid())),
    ("Sign", |cx| unary(cx, |x| x.unary(Unary::Sign))),
    ("Sin", |cx| unary(cx, |x| x.unary(Unary::Sin))),
    ("Sinh", |cx| unary(cx, |x| x.unary(Unary::Sinh))),
    ("Softplus", |cx| unary(cx, |x| x.softplus())),
    ("Softsign", |cx| unary(cx, |x| x.clone() / (x.abs() + 1.0))),
    ("Sqrt", |cx| unary(cx, |x| x.sqrt())),
    ("Sub", |cx| folded(cx, |x, y| x - y)),
    ("Sum", |cx| folded(cx, |x, y| x + y)),
    ("Swish", |cx| {
        with(cx, ["alpha"], |x, [alpha]| {
            x.clone() * (x * alpha).sigmoid()
        })
    }),
    ("Tan", |cx| unary(cx, |x| x.unary(Unary::Tan))),
    ("Tanh", |cx| unary(cx, |x| x.tanh())),
    ("ThresholdedRelu", |cx| {
        with(cx, ["alpha"], |x, [alpha]| {
            x.like(alpha).less(x.clone()).select(x.clone(), x.like(0.0))
        })
    }),
    ("Where", choose),
    ("Xor", |cx| folded(cx, |x, y| x.binary(Binary::Xor, y))),
];

fn unary(cx: &mut RuleContext<'_>, f: fn(Formula) -> Formula) -> Result<Outputs, Reason> {
    let x = cx.operand(0)?;
    let (dims, element) = (cx.dims(x), cx.element(x));
    cx.output(&dims, f(element))
}

/// A function of an element and attributes.
fn with<const N: usize>(
    cx: &mut RuleContext<'_>,
    attributes: [&str; N],
    f: fn(Formula, [f64; N]) -> Formula,
) -> Result<Outputs, Reason> {
    let mut numbers = [0.0; N];
    for (number, name) in numbers.iter_mut().zip(attributes) {
        *number = f64::from(cx.attribute::<f32>(name)?);
    }
    let x = cx.operand(0)?;
    let (dims, element) = (cx.dims(x), cx.element(x));
    cx.output(&dims, f(element, numbers))
}

/// All operands, combined from left to right.
fn combined(
    cx: &mut RuleContext<'_>,
    f: fn(Formula, Formula) -> Formula,
) -> Result<Formula, Reason> {
    let dims = cx.broadcast_result()?;
    let operands = cx.operands()?.into_iter();
    let elements = operands.map(|id| cx.program.broadcast(id, &dims));
    let combined = elements.reduce(f);
    combined.ok_or_else(|| Reason::Malformed("there are no operands".to_owned()))
}

fn folded(cx: &mut RuleContext<'_>, f: fn(Formula, Formula) -> Formula) -> Result<Outputs, Reason> {
    let (dims, combined) = (cx.broadcast_result()?, combined(cx, f)?);
    cx.output(&dims, combined)
}

/// `x` from 0 on, `other` below.
fn below_zero(x: Formula, other: Formula) -> Formula {
    let zero = x.like(0.0);
    x.clone().less(zero).select(other, x)
}

/// `alpha (exp(x / scale) - 1)` below 0.
fn exponential(x: Formula, alpha: f64, scale: f64) -> Formula {
    let curve = (x.clone() / scale).unary(Unary::Expm1) * alpha;
    below_zero(x, curve)
}

/// Whole exponents are products, so that a negative base has a sign.
fn power(x: Formula, y: Formula) -> Formula {
    let exponent = y.0.as_number().map(|n| n.as_f64());
    match exponent {
        Some(1.0) => x,
        Some(2.0) => x.square(),
        Some(3.0) => x.clone().square() * x,
        Some(0.5) if x.ty().is_float() => x.sqrt(),
        Some(-1.0) if x.ty().is_float() => x.like(1.0) / x,
        _ => {
            let ty = x.ty();
            x.binary(Binary::Pow, y.cast(ty))
        }
    }
}

fn cast(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let x = cx.operand(0)?;
    let (dims, element) = (cx.dims(x), cx.element(x));
    let ty = match cx.given::<i64>("to") {
        Some(number) => {
            let dtype = i32::try_from(number).ok().and_then(DataType::from_i32);
            let dtype = dtype.ok_or_else(|| Reason::Malformed("attribute `to`".to_owned()))?;
            Type::of(dtype).ok_or(Reason::Type(dtype))?
        }
        None => cx.ty(cx.operand(1)?),
    };
    cx.output(&dims, element.cast(ty))
}

fn clip(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let x = cx.operand(0)?;
    let dims = cx.dims(x);
    let mut element = cx.element(x);
    let bound = |cx: &RuleContext<'_>, name, slot| match cx.given::<f32>(name) {
        Some(number) => Some(Formula::number(cx.ty(x), number.into())),
        None => Some(cx.program.broadcast(cx.optional(slot)?, &dims)),
    };
    if let Some(low) = bound(cx, "min", 1) {
        element = element.max(low);
    }
    if let Some(high) = bound(cx, "max", 2) {
        element = element.min(high);
    }
    cx.output(&dims, element)
}

/// In inference mode.
fn dropout(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let training = match cx.optional(2) {
        Some(_) => cx.ints(2)?.first() != Some(&0),
        None => false,
    };
    if training {
        return Err(Reason::Form("Dropout in training mode"));
    }
    let x = cx.operand(0)?;
    let dims = cx.dims(x);
    let mask = cx
        .is_used(1)
        .then(|| cx.map(&dims, Formula::number(Type::Bool, 1.0)));
    Ok(vec![Some(x), mask])
}

fn gelu(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    match cx.attribute::<&str>("approximate")? {
        "none" => unary(cx, |x| {
            x.clone() * 0.5 * ((x * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0)
        }),
        "tanh" => unary(cx, |x| {
            let cube = x.clone().square() * x.clone();
            let inner = (x.clone() + cube * 0.044_715) * (2.0 / std::f64::consts::PI).sqrt();
            x * 0.5 * (inner.tanh() + 1.0)
        }),
        other => malformed(format!("`{other}` is no approximation")),
    }
}

fn choose(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let dims = cx.broadcast_result()?;
    let [condition, yes, no] = [0, 1, 2].map(|slot| cx.operand(slot));
    let [condition, yes, no] = [condition?, yes?, no?].map(|id| cx.program.broadcast(id, &dims));
    cx.output(&dims, condition.select(yes, no))
}
