//! Sums, products and quotients of elements; sums and means along axes.
//!
//! ```text
//! y = a + b   s_a = sum s_y over what a was repeated along
//! y = a * b   s_a = s_y * b, b a constant or held fixed
//! y = sum(x)  s_x = s_y repeated
//! ```

use bcosc_ir::{Dim, Operand, Tensor};

use super::step::{Found, Step};
use bcosc_passes::Reason;

/// `Add`, `Sum`.
pub(super) fn add(step: &mut Step<'_>) -> Found {
    let dy = step.dy()?;
    each(step, |_, _| Ok(dy))
}

pub(super) fn sub(step: &mut Step<'_>) -> Found {
    let dy = step.dy()?;
    each(step, |step, slot| {
        Ok(match slot {
            0 => dy,
            _ => step.op("Neg", &[dy]),
        })
    })
}

/// `Mean` of several operands.
pub(super) fn mean(step: &mut Step<'_>) -> Found {
    let dy = step.dy()?;
    let count = step.graph.inputs_of(step.node).len();
    let share = step.number(step.y(), 1.0 / count.max(1) as f64);
    let part = step.mul(dy, share);
    each(step, |_, _| Ok(part))
}

pub(super) fn neg(step: &mut Step<'_>) -> Found {
    let dy = step.dy()?;
    Ok(vec![(0, step.op("Neg", &[dy]))])
}

pub(super) fn mul(step: &mut Step<'_>) -> Found {
    let dy = step.dy()?;
    each(step, |step, slot| {
        let factor = step.operand(1 - slot)?;
        Ok(step.mul(dy, factor.into()))
    })
}

pub(super) fn div(step: &mut Step<'_>) -> Found {
    let dy = step.dy()?;
    let (x, by) = (step.operand(0)?, step.operand(1)?);
    let quotient = step.div(dy, by.into());
    Ok(vec![(0, step.unbroadcast(quotient, x)?)])
}

/// `Where`.
pub(super) fn choice(step: &mut Step<'_>) -> Found {
    let dy = step.dy()?;
    let (condition, zero) = (step.operand(0)?, step.number(step.y(), 0.0));
    each(step, |step, slot| {
        let parts = match slot {
            1 => [condition.into(), dy, zero],
            _ => [condition.into(), zero, dy],
        };
        Ok(step.op("Where", &parts))
    })
}

/// The cotangent of every wanted operand, summed over what the operand was repeated along.
fn each(
    step: &mut Step<'_>,
    mut term: impl FnMut(&mut Step<'_>, u32) -> Result<Operand, Reason>,
) -> Found {
    let mut found = Vec::new();
    for &slot in step.wanted {
        let wide = term(step, slot)?;
        let operand = step.operand(slot)?;
        found.push((slot, step.unbroadcast(wide, operand)?));
    }
    Ok(found)
}

pub(super) fn reduce_sum(step: &mut Step<'_>) -> Found {
    let (narrow, _) = spread_narrow(step)?;
    Ok(vec![(0, repeat(step, narrow)?)])
}

pub(super) fn reduce_mean(step: &mut Step<'_>) -> Found {
    let (dy, axes) = spread_narrow(step)?;
    let count = cells(step, &axes)?;
    let share = step.div(dy, count);
    Ok(vec![(0, repeat(step, share)?)])
}

/// How many elements axes of the first operand have together, as a number of its type.
pub(super) fn cells(step: &mut Step<'_>, axes: &[usize]) -> Result<Operand, Reason> {
    let x = step.operand(0)?;
    let dims = step.dims(x)?;
    let mut known = 1.0;
    let mut open = Vec::new();
    for &axis in axes {
        match dims.get(axis).and_then(Dim::known) {
            Some(size) => known *= size as f64,
            None => open.push(axis),
        }
    }
    let mut count = step.number(x, known);
    let dtype = step.dtype(x);
    for axis in open {
        let shape = step.op("Shape", &[x.into()]);
        let index = step.patch.parameter("axis", scalar(axis as i64));
        let size = step.op("Gather", &[shape, index]);
        let size = step.cast(size, dtype);
        count = step.mul(count, size);
    }
    Ok(count)
}

fn scalar(x: i64) -> Tensor {
    Tensor::i64s(&[], vec![x])
}

/// The axes that a reduction takes; all of them where none is given.
pub(super) fn reduced_axes(step: &Step<'_>) -> Result<Vec<usize>, Reason> {
    let rank = step.dims(step.operand(0)?)?.len();
    match step
        .attribute_or("axes", 1)?
        .filter(|axes| !axes.is_empty())
    {
        None if step.op.int("noop_with_empty_axes", 0) != 0 => Ok(Vec::new()),
        None => Ok((0..rank).collect()),
        Some(axes) => axes.into_iter().map(|a| step.axis(a, rank)).collect(),
    }
}

/// The cotangent of a reduction with its reduced axes as size 1.
fn spread_narrow(step: &mut Step<'_>) -> Result<(Operand, Vec<usize>), Reason> {
    let dy = step.dy()?;
    let mut axes = reduced_axes(step)?;
    axes.sort_unstable();
    let narrow = kept_dims(step, dy, &axes);
    Ok((narrow, axes))
}

/// A reduced value with its reduced axes as size 1.
pub(super) fn kept_dims(step: &mut Step<'_>, y: Operand, axes: &[usize]) -> Operand {
    if step.op.int("keepdims", 1) != 0 || axes.is_empty() {
        return y;
    }
    let axes: Vec<i64> = axes.iter().map(|&a| a as i64).collect();
    step.unsqueeze(y, &axes)
}

/// Repeats a value to the shape of the first operand.
pub(super) fn repeat(step: &mut Step<'_>, x: Operand) -> Result<Operand, Reason> {
    let like = step.operand(0)?;
    let shape = step.shape(like);
    Ok(step.op("Expand", &[x, shape]))
}
