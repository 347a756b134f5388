//! Operators that move elements about: each goes back where it came from.

use bcosc_ir::{Attribute, Dim, Operand};

use super::step::{Found, Step};
use bcosc_passes::Reason;

/// `Identity`, and `Dropout` that drops nothing.
pub(super) fn identity(step: &mut Step<'_>) -> Found {
    Ok(vec![(0, step.dy()?)])
}

/// Casts between floating-point types.
pub(super) fn cast(step: &mut Step<'_>) -> Found {
    let (dy, x) = (step.dy()?, step.operand(0)?);
    let dtype = step.dtype(x);
    Ok(vec![(0, step.cast(dy, dtype))])
}

/// `Reshape`, `Flatten`, `Squeeze`, `Unsqueeze`.
pub(super) fn view(step: &mut Step<'_>) -> Found {
    let (dy, x) = (step.dy()?, step.operand(0)?);
    Ok(vec![(0, step.reshape_like(dy, x))])
}

pub(super) fn transpose(step: &mut Step<'_>) -> Found {
    let dy = step.dy()?;
    let rank = step.dims(step.operand(0)?)?.len();
    let reversed: Vec<i64> = (0..rank as i64).rev().collect();
    let perm = step.op.ints("perm").unwrap_or(&reversed);
    let mut inverse = vec![0; rank];
    for (to, &from) in perm.iter().enumerate() {
        let from = step.axis(from, rank)?;
        inverse[from] = to as i64;
    }
    Ok(vec![(0, step.transpose(dy, &inverse))])
}

pub(super) fn expand(step: &mut Step<'_>) -> Found {
    let (dy, x) = (step.dy()?, step.operand(0)?);
    Ok(vec![(0, step.unbroadcast(dy, x)?)])
}

pub(super) fn concat(step: &mut Step<'_>) -> Found {
    let dy = step.dy()?;
    let rank = step.dims(step.y())?.len();
    let axis = step.axis(step.op.int("axis", 0), rank)?;
    let axes = step.ints(&[axis as i64]);
    let mut found = Vec::new();
    let mut before = Offset::default();
    for (slot, operand) in step.graph.inputs_of(step.node).into_iter().enumerate() {
        let operand = operand.ok_or(Reason::Malformed)?;
        let start = before.value(step);
        match step.dims(operand)?.get(axis).and_then(Dim::known) {
            Some(size) => before.known += size as i64,
            None => {
                let size = step.size(operand, axis);
                before.open = Some(match before.open {
                    Some(sum) => step.op("Add", &[sum, size]),
                    None => size,
                });
            }
        }
        if step.wants(slot as u32) {
            let end = before.value(step);
            found.push((slot as u32, step.op("Slice", &[dy, start, end, axes])));
        }
    }
    Ok(found)
}

/// A position that may depend on open sizes.
#[derive(Default)]
struct Offset {
    known: i64,
    open: Option<Operand>,
}

impl Offset {
    fn value(&self, step: &mut Step<'_>) -> Operand {
        let known = step.ints(&[self.known]);
        match self.open {
            Some(open) => step.op("Add", &[open, known]),
            None => known,
        }
    }
}

pub(super) fn split(step: &mut Step<'_>) -> Found {
    let mut parts = Vec::new();
    for slot in 0..step.graph.output_count(step.node) {
        let part = step.cotangents[slot as usize];
        parts.push(match part {
            Some(part) => part,
            None => {
                let unused = step.graph.output(step.node, slot);
                let (zero, shape) = (step.number(unused, 0.0), step.shape(unused));
                step.op("Expand", &[zero, shape])
            }
        });
    }
    let axis = Attribute::int("axis", step.op.int("axis", 0));
    Ok(vec![(0, step.op_with("Concat", &parts, [axis]))])
}

/// `Pad` with a constant: what was put around goes.
pub(super) fn pad(step: &mut Step<'_>) -> Found {
    let (dy, x) = (step.dy()?, step.operand(0)?);
    if step.op.string("mode").unwrap_or("constant") != "constant" {
        return Err(Reason::NoDerivative);
    }
    let rank = step.dims(x)?.len();
    let given = step.attribute_or("pads", 1)?.ok_or(Reason::Malformed)?;
    let axes = match step.integers(3)? {
        Some(axes) => axes,
        None => (0..rank as i64).collect(),
    };
    if given.len() != 2 * axes.len() {
        return Err(Reason::Malformed);
    }
    let mut pads = vec![0; 2 * rank];
    for (i, &axis) in axes.iter().enumerate() {
        let axis = step.axis(axis, rank)?;
        (pads[axis], pads[rank + axis]) = (given[i], given[axes.len() + i]);
    }
    let (mut cut, mut starts, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for axis in 0..rank {
        let (begin, end) = (pads[axis].max(0), pads[rank + axis].max(0));
        if begin > 0 || end > 0 {
            cut.push(axis as i64);
            starts.push(begin);
            ends.push(if end > 0 { -end } else { i64::MAX });
        }
    }
    let mut found = dy;
    if !cut.is_empty() {
        found = step.slice(found, &cut, &starts, &ends);
    }
    // What a negative pad cut off never counted.
    let lost: Vec<i64> = pads.iter().map(|&p| (-p).max(0)).collect();
    Ok(vec![(0, step.pad(found, &lost))])
}
