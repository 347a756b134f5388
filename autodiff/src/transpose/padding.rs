//! `Pad`: the cotangent of the border is added to the elements it was copied from.
//!
//! ```text
//! constant   the border goes
//! edge       the outermost element gets the sum of the border
//! reflect    the border is turned around and added to what it mirrors
//! wrap       the border is added at the other end
//! ```
//!
//! One axis after the other: the padding of one repeats what that of another made. The positions that
//! count from the end are negative, so that sizes may stay dynamic.

use bcosc_ir::views::AxesOp;
use bcosc_ir::{Attribute, Operand, Value};

use crate::context::{Found, RuleContext};
use bcosc_passes::Reason;

/// The slot of the constant.
const VALUE: u32 = 2;

/// What a border repeats.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Border {
    Constant,
    Edge,
    Reflect,
    Wrap,
}

pub(crate) fn pad(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x) = (cx.dy()?, cx.operand(0)?);
    let border = match cx.attribute("mode")? {
        "constant" => Border::Constant,
        "edge" => Border::Edge,
        "reflect" => Border::Reflect,
        "wrap" => Border::Wrap,
        _ => return Err(Reason::NoBackwardRule),
    };
    let mut found = Vec::new();
    if cx.wants(VALUE) {
        found.push((VALUE, filler(cx, border)?));
    }
    if cx.wants(0) {
        found.push((0, padded(cx, dy, x, border)?));
    }
    Ok(found)
}

/// The cotangent of the constant: the sum over the border, which is what the operator itself puts around zeros.
fn filler(cx: &mut RuleContext<'_>, border: Border) -> Result<Operand, Reason> {
    let (dy, value) = (cx.dy()?, cx.operand(VALUE)?);
    let rank = cx.dims(cx.y())?.len() as i64;
    let zero = cx.number(value, 0.0);
    let sum = match border {
        Border::Constant => {
            let (x, one) = (cx.operand(0)?, cx.number(value, 1.0));
            let shape = cx.shape(x);
            let zeros = cx.op("Expand", &[zero, shape]);
            let pads = cx.operand(1)?;
            let axes = cx.graph.input(cx.node, 3).map(Operand::Old);
            let mut operands = vec![Some(zeros), Some(pads.into()), Some(one)];
            operands.extend(axes.map(Some));
            let border = cx.patch.multi_op(cx.op.clone().named(""), &operands, 1);
            let all: Vec<i64> = (0..rank).collect();
            let product = cx.mul(dy, border);
            cx.reduce_to(AxesOp::ReduceSum, product, &all)
        }
        _ => zero,
    };
    Ok(match cx.dims(value)?.len() {
        0 => sum,
        _ => cx.reshape(sum, &[1]),
    })
}

/// The cotangent of what is padded.
fn padded(
    cx: &mut RuleContext<'_>,
    dy: Operand,
    x: Value,
    border: Border,
) -> Result<Operand, Reason> {
    let dims = cx.dims(x)?;
    let rank = dims.len();
    let pads = pads(cx, rank)?;
    // What a negative pad cut off never counted, and is not a part of what a border repeats.
    let lost: Vec<i64> = pads.iter().map(|&p| (-p).max(0)).collect();
    let added: Vec<i64> = pads.iter().map(|&p| p.max(0)).collect();
    let mut found = match border {
        Border::Constant => without_border(cx, dy, &added),
        _ => dy,
    };
    for axis in (0..rank).filter(|_| border != Border::Constant) {
        let sides = [added[axis], added[rank + axis]];
        let kept = dims[axis].known().map(|size| size as i64);
        let kept = kept.map(|size| size - lost[axis] - lost[rank + axis]);
        let most = kept.map_or(i64::MAX, |kept| match border {
            Border::Reflect => kept - 1,
            Border::Wrap => kept,
            _ => i64::MAX,
        });
        if sides.iter().any(|&n| n > most) {
            return Err(Reason::NoBackwardRuleFor(
                "a Pad with more padding than its input has elements",
            ));
        }
        found = folded(cx, found, axis as i64, sides, border);
    }
    Ok(cx.pad(found, &lost))
}

/// Cells before each axis, then after each.
fn pads(cx: &RuleContext<'_>, rank: usize) -> Result<Vec<i64>, Reason> {
    let given = cx.attribute_or("pads", 1)?.ok_or(Reason::Malformed)?;
    let axes = match cx.integers(3)? {
        Some(axes) => axes,
        None => (0..rank as i64).collect(),
    };
    if given.len() != 2 * axes.len() {
        return Err(Reason::Malformed);
    }
    let mut pads = vec![0; 2 * rank];
    for (i, &axis) in axes.iter().enumerate() {
        let axis = cx.axis(axis, rank)?;
        (pads[axis], pads[rank + axis]) = (given[i], given[axes.len() + i]);
    }
    Ok(pads)
}

fn without_border(cx: &mut RuleContext<'_>, dy: Operand, added: &[i64]) -> Operand {
    let rank = added.len() / 2;
    let (mut cut, mut starts, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for axis in 0..rank {
        let (begin, end) = (added[axis], added[rank + axis]);
        if begin > 0 || end > 0 {
            cut.push(axis as i64);
            starts.push(begin);
            ends.push(if end > 0 { -end } else { i64::MAX });
        }
    }
    match cut.is_empty() {
        true => dy,
        false => cx.slice(dy, &cut, &starts, &ends),
    }
}

/// The borders of an axis added to what they repeat: first that at the end, then that at the beginning.
fn folded(
    cx: &mut RuleContext<'_>,
    dy: Operand,
    axis: i64,
    [begin, end]: [i64; 2],
    border: Border,
) -> Operand {
    let range = |cx: &mut RuleContext<'_>, x: Operand, from: i64, to: i64| {
        cx.slice(x, &[axis], &[from], &[to])
    };
    let sum = |cx: &mut RuleContext<'_>, x: Operand, [from, to]: [i64; 2], more: Operand| {
        let part = range(cx, x, from, to);
        cx.op("Add", &[part, more])
    };
    let joined = |cx: &mut RuleContext<'_>, parts: &[Operand]| {
        cx.op_with("Concat", parts, [Attribute::int("axis", axis)])
    };
    let mut found = dy;
    if end > 0 {
        let last = i64::MAX;
        let parts = match border {
            Border::Edge => {
                let all = range(cx, found, -end - 1, last);
                let kept = range(cx, found, 0, -end - 1);
                vec![kept, cx.reduce(AxesOp::ReduceSum, all, &[axis])]
            }
            Border::Wrap => {
                let more = range(cx, found, -end, last);
                let mut parts = Vec::new();
                if begin > 0 {
                    parts.push(range(cx, found, 0, begin));
                }
                parts.push(sum(cx, found, [begin, begin + end], more));
                parts.push(range(cx, found, begin + end, -end));
                parts
            }
            _ => {
                let mirrored = range(cx, found, -end, last);
                let more = turned(cx, mirrored, axis, end);
                vec![
                    range(cx, found, 0, -2 * end - 1),
                    sum(cx, found, [-2 * end - 1, -end - 1], more),
                    range(cx, found, -end - 1, -end),
                ]
            }
        };
        found = joined(cx, &parts);
    }
    if begin > 0 {
        let parts = match border {
            Border::Edge => {
                let all = range(cx, found, 0, begin + 1);
                let sum = cx.reduce(AxesOp::ReduceSum, all, &[axis]);
                vec![sum, range(cx, found, begin + 1, i64::MAX)]
            }
            Border::Wrap => {
                let more = range(cx, found, 0, begin);
                let kept = range(cx, found, begin, -begin);
                vec![kept, sum(cx, found, [-begin, i64::MAX], more)]
            }
            _ => {
                let mirrored = range(cx, found, 0, begin);
                let more = turned(cx, mirrored, axis, begin);
                vec![
                    range(cx, found, begin, begin + 1),
                    sum(cx, found, [begin + 1, 2 * begin + 1], more),
                    range(cx, found, 2 * begin + 1, i64::MAX),
                ]
            }
        };
        found = joined(cx, &parts);
    }
    found
}

/// So many elements of an axis, the last first.
fn turned(cx: &mut RuleContext<'_>, x: Operand, axis: i64, count: i64) -> Operand {
    if count == 1 {
        return x;
    }
    let order: Vec<i64> = (0..count).rev().collect();
    let order = cx.ints(&order);
    cx.op_with("Gather", &[x, order], [Attribute::int("axis", axis)])
}
