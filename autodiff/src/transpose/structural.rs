//! Structural operators: the cotangent is rearranged in reverse.

use bcosc_ir::{Attribute, Dim, Operand};

use crate::context::{Found, RuleContext};
use bcosc_passes::Reason;
use bcosc_passes::analysis::scalars::scalar;

pub(crate) fn identity(cx: &mut RuleContext<'_>) -> Found {
    Ok(vec![(0, cx.dy()?)])
}

/// `Dropout` that drops nothing.
pub(crate) fn dropout(cx: &mut RuleContext<'_>) -> Found {
    let training = cx.graph.input(cx.node, 2);
    match training.is_none_or(|training| scalar(cx.graph, training) == Some(0.0)) {
        true => identity(cx),
        false => Err(Reason::Training),
    }
}

/// Casts between floating-point types.
pub(crate) fn cast(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x) = (cx.dy()?, cx.operand(0)?);
    let dtype = cx.dtype(x);
    Ok(vec![(0, cx.cast(dy, dtype))])
}

/// `Reshape`, `Flatten`, `Squeeze`, `Unsqueeze`.
pub(crate) fn view(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x) = (cx.dy()?, cx.operand(0)?);
    Ok(vec![(0, cx.reshape_like(dy, x))])
}

pub(crate) fn transpose(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    let rank = cx.dims(cx.operand(0)?)?.len();
    let reversed: Vec<i64> = (0..rank as i64).rev().collect();
    let perm = cx.op.get::<&[i64]>("perm").unwrap_or(&reversed);
    let mut inverse = vec![0; rank];
    for (to, &from) in perm.iter().enumerate() {
        let from = cx.axis(from, rank)?;
        inverse[from] = to as i64;
    }
    Ok(vec![(0, cx.transpose(dy, &inverse))])
}

pub(crate) fn expand(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x) = (cx.dy()?, cx.operand(0)?);
    Ok(vec![(0, cx.unbroadcast(dy, x)?)])
}

pub(crate) fn concat(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    let rank = cx.dims(cx.y())?.len();
    let axis = cx.axis(cx.attribute("axis")?, rank)?;
    let axes = cx.ints(&[axis as i64]);
    let mut found = Vec::new();
    let mut before = Offset::default();
    for (slot, operand) in cx.graph.inputs_of(cx.node).into_iter().enumerate() {
        let operand = operand.ok_or(Reason::Malformed)?;
        let start = before.value(cx);
        match cx.dims(operand)?.get(axis).and_then(Dim::known) {
            Some(size) => before.known += size as i64,
            None => {
                let size = cx.size(operand, axis);
                before.open = Some(match before.open {
                    Some(sum) => cx.op("Add", &[sum, size]),
                    None => size,
                });
            }
        }
        if cx.wants(slot as u32) {
            let end = before.value(cx);
            found.push((slot as u32, cx.op("Slice", &[dy, start, end, axes])));
        }
    }
    Ok(found)
}

/// A position that may depend on dynamic sizes.
#[derive(Default)]
struct Offset {
    known: i64,
    open: Option<Operand>,
}

impl Offset {
    fn value(&self, cx: &mut RuleContext<'_>) -> Operand {
        let known = cx.ints(&[self.known]);
        match self.open {
            Some(open) => cx.op("Add", &[open, known]),
            None => known,
        }
    }
}

pub(crate) fn split(cx: &mut RuleContext<'_>) -> Found {
    let mut parts = Vec::new();
    for slot in 0..cx.graph.output_count(cx.node) {
        let part = cx.cotangents[slot as usize];
        parts.push(match part {
            Some(part) => part,
            None => {
                let unused = cx.graph.output(cx.node, slot);
                let (zero, shape) = (cx.number(unused, 0.0), cx.shape(unused));
                cx.op("Expand", &[zero, shape])
            }
        });
    }
    let axis = Attribute::int("axis", cx.attribute("axis")?);
    Ok(vec![(0, cx.op_with("Concat", &parts, [axis]))])
}
