//! `Clip`: bounds get the cotangents of the elements that they replace.
//!
//! ```text
//! y = Clip (x, low, high)    s_x = s_y where low <= x <= high, else 0
//!                            s_low = sum of s_y where x < low, s_high = sum of s_y where x > high
//! ```
//!
//! As in PyTorch, an element at a bound that is differentiated too shares its cotangent with the bound, and with
//! `low > high` all elements are `high`.

use bcosc_ir::{Operand, Value};

use crate::context::{Found, RuleContext};
use bcosc_passes::Reason;

const X: u32 = 0;
const LOW: u32 = 1;
const HIGH: u32 = 2;

/// A bound, and the elements it replaces.
#[derive(Clone, Copy)]
struct Bound {
    slot: u32,
    at: Operand,
    replaced: Operand,
}

pub(crate) fn clip(cx: &mut RuleContext<'_>) -> Found {
    let x = cx.operand(X)?;
    let low = bound(cx, "min", LOW).map(|at| Bound {
        slot: LOW,
        at,
        replaced: cx.op("Less", &[x.into(), at]),
    });
    let high = bound(cx, "max", HIGH).map(|at| Bound {
        slot: HIGH,
        at,
        replaced: cx.op("Greater", &[x.into(), at]),
    });
    let mut found = Vec::new();
    if cx.wants(X) {
        found.push((X, inside(cx, x, low, high)?));
    }
    let crossed = match (low, high) {
        (Some(low), Some(high)) if cx.wants(LOW) || cx.wants(HIGH) => {
            Some(cx.op("Less", &[high.at, low.at]))
        }
        _ => None,
    };
    for bound in [low, high].into_iter().flatten() {
        if cx.wants(bound.slot) {
            found.push((bound.slot, replaced(cx, x, bound, crossed)?));
        }
    }
    Ok(found)
}

/// A bound: an attribute in old opsets.
fn bound(cx: &mut RuleContext<'_>, name: &str, slot: u32) -> Option<Operand> {
    if let Some(operand) = cx.graph.input(cx.node, slot) {
        return Some(operand.into());
    }
    let given = cx.op.attribute(name).and(cx.op.get::<f32>(name))?;
    Some(cx.number(cx.y(), given.into()))
}

/// The cotangent of x.
fn inside(
    cx: &mut RuleContext<'_>,
    x: Value,
    low: Option<Bound>,
    high: Option<Bound>,
) -> Result<Operand, Reason> {
    let mut kept = cx.dy()?;
    for bound in [low, high].into_iter().flatten() {
        if cx.wants(bound.slot) {
            let (tied, half) = tied(cx, x, bound)?;
            kept = cx.op("Where", &[tied, half, kept]);
        }
    }
    let outside = match (low, high) {
        (Some(low), Some(high)) => cx.op("Or", &[low.replaced, high.replaced]),
        (Some(only), None) | (None, Some(only)) => only.replaced,
        (None, None) => return Ok(kept),
    };
    let zero = cx.number(x, 0.0);
    Ok(cx.op("Where", &[outside, zero, kept]))
}

/// The cotangent of a bound.
fn replaced(
    cx: &mut RuleContext<'_>,
    x: Value,
    bound: Bound,
    crossed: Option<Operand>,
) -> Result<Operand, Reason> {
    let (dy, zero) = (cx.dy()?, cx.number(x, 0.0));
    let (tied, half) = tied(cx, x, bound)?;
    let shared = cx.op("Where", &[tied, half, zero]);
    let mut part = cx.op("Where", &[bound.replaced, dy, shared]);
    if let Some(crossed) = crossed {
        let all = if bound.slot == HIGH { dy } else { zero };
        part = cx.op("Where", &[crossed, all, part]);
    }
    let operand = cx.operand(bound.slot)?;
    cx.unbroadcast(part, operand)
}

/// The elements at a bound, and half of each cotangent.
fn tied(cx: &mut RuleContext<'_>, x: Value, bound: Bound) -> Result<(Operand, Operand), Reason> {
    let dy = cx.dy()?;
    let tied = cx.op("Equal", &[x.into(), bound.at]);
    Ok((tied, cx.times(dy, 0.5, x)))
}
