//! Sums, products and quotients of elements; sums and means along axes.
//!
//! ```text
//! y = a + b   s_a = sum s_y over what a was repeated along
//! y = a * b   s_a = s_y * b, b a constant or held fixed
//! y = sum(x)  s_x = s_y repeated
//! ```

use bcosc_ir::{Dim, Operand, Tensor};

use crate::context::{Found, RuleContext};
use bcosc_passes::Reason;

/// `Add`, `Sum`.
pub(crate) fn add(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    each(cx, |_, _| Ok(dy))
}

pub(crate) fn sub(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    each(cx, |cx, slot| {
        Ok(match slot {
            0 => dy,
            _ => cx.op("Neg", &[dy]),
        })
    })
}

/// `Mean` of several operands.
pub(crate) fn mean(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    let count = cx.graph.inputs_of(cx.node).len();
    let share = cx.number(cx.y(), 1.0 / count.max(1) as f64);
    let part = cx.mul(dy, share);
    each(cx, |_, _| Ok(part))
}

pub(crate) fn neg(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    Ok(vec![(0, cx.op("Neg", &[dy]))])
}

pub(crate) fn mul(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    each(cx, |cx, slot| {
        let factor = cx.operand(1 - slot)?;
        Ok(cx.mul(dy, factor.into()))
    })
}

pub(crate) fn div(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    let (x, by) = (cx.operand(0)?, cx.operand(1)?);
    let quotient = cx.div(dy, by.into());
    Ok(vec![(0, cx.unbroadcast(quotient, x)?)])
}

/// `Where`.
pub(crate) fn choice(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    let (condition, zero) = (cx.operand(0)?, cx.number(cx.y(), 0.0));
    each(cx, |cx, slot| {
        let parts = match slot {
            1 => [condition.into(), dy, zero],
            _ => [condition.into(), zero, dy],
        };
        Ok(cx.op("Where", &parts))
    })
}

/// The cotangent of every wanted operand, summed over what the operand was repeated along.
fn each(
    cx: &mut RuleContext<'_>,
    mut term: impl FnMut(&mut RuleContext<'_>, u32) -> Result<Operand, Reason>,
) -> Found {
    let mut found = Vec::new();
    for &slot in cx.wanted {
        let wide = term(cx, slot)?;
        let operand = cx.operand(slot)?;
        found.push((slot, cx.unbroadcast(wide, operand)?));
    }
    Ok(found)
}

pub(crate) fn reduce_sum(cx: &mut RuleContext<'_>) -> Found {
    let (narrow, _) = spread_narrow(cx)?;
    Ok(vec![(0, repeat(cx, narrow)?)])
}

pub(crate) fn reduce_mean(cx: &mut RuleContext<'_>) -> Found {
    let (dy, axes) = spread_narrow(cx)?;
    let count = cells(cx, &axes)?;
    let share = cx.div(dy, count);
    Ok(vec![(0, repeat(cx, share)?)])
}

/// How many elements axes of the first operand have together, as a number of its type.
pub(crate) fn cells(cx: &mut RuleContext<'_>, axes: &[usize]) -> Result<Operand, Reason> {
    let x = cx.operand(0)?;
    let dims = cx.dims(x)?;
    let mut known = 1.0;
    let mut open = Vec::new();
    for &axis in axes {
        match dims.get(axis).and_then(Dim::known) {
            Some(size) => known *= size as f64,
            None => open.push(axis),
        }
    }
    let mut count = cx.number(x, known);
    let dtype = cx.dtype(x);
    for axis in open {
        let shape = cx.op("Shape", &[x.into()]);
        let index = cx.patch.parameter("axis", scalar(axis as i64));
        let size = cx.op("Gather", &[shape, index]);
        let size = cx.cast(size, dtype);
        count = cx.mul(count, size);
    }
    Ok(count)
}

fn scalar(x: i64) -> Tensor {
    Tensor::i64s(&[], vec![x])
}

/// The axes that a reduction takes; all of them where none is given.
pub(crate) fn reduced_axes(cx: &RuleContext<'_>) -> Result<Vec<usize>, Reason> {
    let rank = cx.dims(cx.operand(0)?)?.len();
    match cx.attribute_or("axes", 1)?.filter(|axes| !axes.is_empty()) {
        None if cx.op.get("noop_with_empty_axes") == Some(true) => Ok(Vec::new()),
        None => Ok((0..rank).collect()),
        Some(axes) => axes.into_iter().map(|a| cx.axis(a, rank)).collect(),
    }
}

/// The cotangent of a reduction with its reduced axes as size 1.
fn spread_narrow(cx: &mut RuleContext<'_>) -> Result<(Operand, Vec<usize>), Reason> {
    let dy = cx.dy()?;
    let mut axes = reduced_axes(cx)?;
    axes.sort_unstable();
    let narrow = kept_dims(cx, dy, &axes);
    Ok((narrow, axes))
}

/// A reduced value with its reduced axes as size 1.
pub(crate) fn kept_dims(cx: &mut RuleContext<'_>, y: Operand, axes: &[usize]) -> Operand {
    if cx.op.get("keepdims") != Some(false) || axes.is_empty() {
        return y;
    }
    let axes: Vec<i64> = axes.iter().map(|&a| a as i64).collect();
    cx.unsqueeze(y, &axes)
}

/// Repeats a value to the shape of the first operand.
pub(crate) fn repeat(cx: &mut RuleContext<'_>, x: Operand) -> Result<Operand, Reason> {
    let like = cx.operand(0)?;
    let shape = cx.shape(like);
    Ok(cx.op("Expand", &[x, shape]))
}
