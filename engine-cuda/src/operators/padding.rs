//! Borders around tensors, and blocks that move between axes.

use super::context::malformed;
use super::{Outputs, Reason, RuleContext, Table};
use crate::expr::{Formula, Index, TensorId, Type, flat, unflat};
use crate::program::vars;

pub(super) const RULES: Table = &[
    ("DepthToSpace", depth_to_space),
    ("Pad", pad),
    ("SpaceToDepth", space_to_depth),
];

fn pad(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let (x, dims) = (cx.operand(0)?, cx.result()?);
    let own = cx.dims(x);
    let pads = match cx.op.get::<&[i64]>("pads") {
        Some(pads) => pads.to_vec(),
        None => cx.ints(1)?,
    };
    let axes: Vec<usize> = match cx.optional_ints(3)? {
        Some(axes) => {
            let axes = axes.into_iter().map(|axis| cx.axis_of(axis, own.len()));
            axes.collect::<Result<_, _>>()?
        }
        None => (0..own.len()).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return malformed("it has not two pads for each axis");
    }
    let mode = cx.attribute::<&str>("mode")?.to_owned();
    let mut at = vars(&dims);
    let mut inside = Formula::number(Type::Bool, 1.0);
    for (&axis, &before) in axes.iter().zip(&pads) {
        let size = own[axis] as i64;
        let moved = at[axis].offset(-before);
        at[axis] = match mode.as_str() {
            "constant" => {
                inside = inside.and(Formula::within(moved.clone(), 0, size));
                moved
            }
            "wrap" => moved.offset(size * (before / size.max(1) + 1)).modulo(size),
            "edge" | "reflect" => bounded(&moved, size, mode == "reflect"),
            _ => return Err(Reason::Form("this mode of Pad")),
        };
    }
    let element = cx.load(x, at);
    let fill = match cx.optional(2) {
        Some(value) => cx.program.broadcast(value, &[]),
        None => element.like(cx.given::<f32>("value").unwrap_or(0.0).into()),
    };
    cx.output(&dims, inside.select(element, fill))
}

/// An index that is brought back into `0..size`, to the edge or mirrored at it.
fn bounded(index: &Index, size: i64, mirrored: bool) -> Index {
    let (low, high) = index.range();
    if low >= 0 && high < size {
        return index.clone();
    }
    let at = Formula::position(index.clone());
    let last = size - 1;
    let found = match mirrored {
        false => at.clamp(0.0, last as f64),
        true => {
            let at = at.abs();
            let back = -(at.clone() - last as f64) + last as f64;
            at.min(back)
        }
    };
    crate::expr::Atom::Value(found.0, size).into()
}

/// Moves blocks between axes: the element of the view `to` at the variables of `dims`, where `from` is a view of x.
fn blocks(
    cx: &mut RuleContext<'_>,
    x: TensorId,
    from: &[u64],
    order: &[usize],
) -> Result<Outputs, Reason> {
    let dims = cx.result()?;
    let moved: Vec<u64> = order.iter().map(|&axis| from[axis]).collect();
    let to = unflat(&flat(&vars(&dims), &dims), &moved);
    let mut at = vec![Index::default(); from.len()];
    for (index, &axis) in to.into_iter().zip(order) {
        at[axis] = index;
    }
    let own = cx.dims(x);
    let element = cx.load(x, unflat(&flat(&at, from), &own));
    cx.output(&dims, element)
}

fn depth_to_space(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let x = cx.operand(0)?;
    let b: u64 = cx.attribute("blocksize")?;
    let &[n, c, h, w] = &cx.dims(x)[..] else {
        return malformed("it takes images");
    };
    match cx.attribute::<&str>("mode")? {
        "DCR" => blocks(cx, x, &[n, b, b, c / (b * b), h, w], &[0, 3, 4, 1, 5, 2]),
        _ => blocks(cx, x, &[n, c / (b * b), b, b, h, w], &[0, 1, 4, 2, 5, 3]),
    }
}

fn space_to_depth(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let x = cx.operand(0)?;
    let b: u64 = cx.attribute("blocksize")?;
    let &[n, c, h, w] = &cx.dims(x)[..] else {
        return malformed("it takes images");
    };
    blocks(cx, x, &[n, c, h / b, b, w / b, b], &[0, 3, 5, 1, 2, 4])
}
