//! Operators that select positions along an axis: `Slice`, `Gather`, `Compress`.
//!
//! ```text
//! y = Slice (x)         s_x = Pad (s_y), where the positions are next to each other
//! y = Gather (x, i)     s_x = Gather (s_y and a zero, where each position went)
//! y = Gather (x, i)     s_x = ScatterND <add> (0, i, s_y), where positions are computed at run time
//! y = Gather (x, i)     s_x = s_y times a matrix of zeros and ones, where a position is picked twice
//! y = Compress (x, c)   s_x = Gather (s_y and a zero, CumSum (c) - 1 where c holds, else the zero)
//! ```

use bcosc_ir::{Attribute, DataType, Dim, Operand, Tensor};

use super::indexing;
use crate::context::{Found, RuleContext};
use bcosc_passes::Reason;
use bcosc_passes::analysis::weights;

pub(crate) fn slice(cx: &mut RuleContext<'_>) -> Found {
    let (mut dy, x) = (cx.dy()?, cx.operand(0)?);
    let dims = cx.dims(x)?;
    let starts = cx.attribute_or("starts", 1)?.ok_or(Reason::Malformed)?;
    let ends = cx.attribute_or("ends", 2)?.ok_or(Reason::Malformed)?;
    let axes = cx.attribute_or("axes", 3)?;
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = cx.integers(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err(Reason::Malformed);
    }
    for i in 0..axes.len() {
        let axis = cx.axis(axes[i], dims.len())?;
        dy = match dims[axis].known() {
            Some(size) => {
                let picked = positions(size as i64, starts[i], ends[i], steps[i])?;
                placed(cx, dy, axis, size as i64, &picked)?
            }
            None if steps[i] == 1 => placed_in_open(cx, dy, axis, starts[i])?,
            None => return Err(Reason::UnknownShape(cx.graph.value_name(x).to_owned())),
        };
    }
    Ok(vec![(0, dy)])
}

/// The positions of a slice.
fn positions(size: i64, start: i64, end: i64, step: i64) -> Result<Vec<i64>, Reason> {
    let from_front = |i: i64| if i < 0 { i.saturating_add(size) } else { i };
    let (mut at, mut found) = (from_front(start), Vec::new());
    match step {
        _ if size == 0 => {}
        0 => return Err(Reason::Malformed),
        1.. => {
            at = at.clamp(0, size);
            let end = from_front(end).clamp(0, size);
            while at < end {
                found.push(at);
                at = at.saturating_add(step);
            }
        }
        _ => {
            at = at.clamp(0, size - 1);
            let end = from_front(end).clamp(-1, size - 1);
            while at > end {
                found.push(at);
                at = at.saturating_add(step);
            }
        }
    }
    Ok(found)
}

pub(crate) fn gather(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x, indices) = (cx.dy()?, cx.operand(0)?, cx.operand(1)?);
    let dims = cx.dims(x)?;
    let axis = cx.axis(cx.attribute("axis")?, dims.len())?;
    if cx.graph.constant(indices).is_none() {
        return scattered(cx, dy, axis);
    }
    let picked = cx.integers(1)?.ok_or(Reason::Malformed)?;
    let dy = match cx.known_dims(indices)?.len() {
        0 => cx.unsqueeze(dy, &[axis as i64]),
        1 => dy,
        _ => {
            let mut sizes: Vec<i64> = dims
                .iter()
                .map(|d| d.known().map_or(-1, |d| d as i64))
                .collect();
            sizes[axis] = picked.len() as i64;
            if sizes.iter().filter(|&&s| s == -1).count() > 1 {
                return Err(Reason::UnknownShape(cx.graph.value_name(x).to_owned()));
            }
            cx.reshape(dy, &sizes)
        }
    };
    let found = match dims[axis].known() {
        Some(size) => {
            let from_front = |&i: &i64| if i < 0 { i + size as i64 } else { i };
            let picked: Vec<i64> = picked.iter().map(from_front).collect();
            placed(cx, dy, axis, size as i64, &picked)?
        }
        None if contiguous(&picked) => placed_in_open(cx, dy, axis, picked[0])?,
        None => return Err(Reason::UnknownShape(cx.graph.value_name(x).to_owned())),
    };
    Ok(vec![(0, found)])
}

/// Adds up at positions that are computed at run time.
fn scattered(cx: &mut RuleContext<'_>, dy: Operand, axis: usize) -> Found {
    let (x, indices) = (cx.operand(0)?, cx.operand(1)?);
    let rank = cx.dims(x)?.len();
    let places = cx.dims(indices)?.len();
    let mut zeros = indexing::zeros(cx, x);
    let mut rows = dy;
    // With the picked axis in front, a place is an index of rows.
    let to_front = |count: usize, rank: usize| {
        let picked = axis..axis + count;
        let others = (0..axis).chain(axis + count..rank);
        let perm: Vec<i64> = picked.chain(others).map(|a| a as i64).collect();
        perm
    };
    if axis > 0 {
        zeros = cx.transpose(zeros, &to_front(1, rank));
        rows = cx.transpose(rows, &to_front(places, rank - 1 + places));
    }
    let indices = cx.unsqueeze(indices.into(), &[-1]);
    let mut found = indexing::added(cx, "ScatterND", [zeros, indices, rows], None)?;
    if axis > 0 {
        let back = (1..=axis).chain([0]).chain(axis + 1..rank);
        let back: Vec<i64> = back.map(|a| a as i64).collect();
        found = cx.transpose(found, &back);
    }
    Ok(vec![(0, found)])
}

fn contiguous(picked: &[i64]) -> bool {
    !picked.is_empty() && picked.windows(2).all(|pair| pair[1] == pair[0] + 1)
}

/// Puts positions back on an axis, zeros between them.
fn placed(
    cx: &mut RuleContext<'_>,
    dy: Operand,
    axis: usize,
    size: i64,
    picked: &[i64],
) -> Result<Operand, Reason> {
    let rank = cx.dims(cx.operand(0)?)?.len();
    if picked.iter().any(|i| !(0..size).contains(i)) || picked.is_empty() {
        return Err(Reason::Malformed);
    }
    let count = picked.len() as i64;
    let mut pads = vec![0; 2 * rank];
    if contiguous(picked) {
        (pads[axis], pads[rank + axis]) = (picked[0], size - picked[0] - count);
        return Ok(cx.pad(dy, &pads));
    }
    let mut went: Vec<Option<i64>> = vec![None; size as usize];
    let mut twice = false;
    for (to, &from) in picked.iter().enumerate() {
        twice |= went[from as usize].replace(to as i64).is_some();
    }
    if twice {
        return Ok(spread(cx, dy, axis, [rank, size as usize], picked));
    }
    pads[rank + axis] = 1;
    let padded = cx.pad(dy, &pads);
    let order: Vec<i64> = went.into_iter().map(|to| to.unwrap_or(count)).collect();
    let order = cx.ints(&order);
    Ok(cx.op_with(
        "Gather",
        &[padded, order],
        [Attribute::int("axis", axis as i64)],
    ))
}

/// Adds up what was picked more than once.
fn spread(
    cx: &mut RuleContext<'_>,
    dy: Operand,
    axis: usize,
    [rank, size]: [usize; 2],
    picked: &[i64],
) -> Operand {
    let mut matrix = vec![0.0; picked.len() * size];
    for (row, &column) in picked.iter().enumerate() {
        matrix[row * size + column as usize] = 1.0;
    }
    let dims = [picked.len() as u64, size as u64];
    let matrix = weights::tensor(cx.dtype(cx.y()), &dims, &matrix);
    let matrix = cx.patch.parameter("picked", matrix);
    let mut perm: Vec<i64> = (0..rank as i64).collect();
    perm.swap(axis, rank - 1);
    let turned = cx.transpose(dy, &perm);
    let product = cx.op("MatMul", &[turned, matrix]);
    cx.transpose(product, &perm)
}

/// Puts a range back on an axis whose size is dynamic, from a position counted from either end.
fn placed_in_open(
    cx: &mut RuleContext<'_>,
    dy: Operand,
    axis: usize,
    start: i64,
) -> Result<Operand, Reason> {
    let x = cx.operand(0)?;
    let rank = cx.dims(x)?.len();
    let size = cx.size(x, axis);
    let shape = cx.op("Shape", &[dy]);
    let index = cx.ints(&[axis as i64]);
    let count = cx.op_with("Gather", &[shape, index], [Attribute::int("axis", 0)]);
    let start_at = cx.ints(&[start]);
    let before = match start {
        0.. => start_at,
        _ => cx.op("Add", &[size, start_at]),
    };
    let rest = cx.op("Sub", &[size, before]);
    let behind = cx.op("Sub", &[rest, count]);
    let nothing = cx.ints(&[0]);
    let pads: Vec<Operand> = (0..2 * rank)
        .map(|i| match i {
            i if i == axis => before,
            i if i == rank + axis => behind,
            _ => nothing,
        })
        .collect();
    let pads = cx.op_with("Concat", &pads, [Attribute::int("axis", 0)]);
    Ok(cx.op("Pad", &[dy, pads]))
}

/// The element at the n-th place that is true is the n-th of the result. A condition may be shorter than
/// its axis; without an axis x counts as flat.
pub(crate) fn compress(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x, condition) = (cx.dy()?, cx.operand(0)?, cx.operand(1)?);
    let dims = cx.dims(x)?;
    let given: Option<i64> = cx.op.get("axis");
    let given = given.map(|axis| cx.axis(axis, dims.len())).transpose()?;
    let (axis, rank) = given.map_or((0, 1), |axis| (axis, dims.len()));
    let places = match given {
        Some(axis) => dims[axis].known(),
        None => dims.iter().map(Dim::known).product(),
    };
    // 32 bits, as tract takes integers of 64 for sizes, and does not add those up.
    let holds = cx.cast(condition.into(), DataType::Int32);
    let told = cx.dims(condition)?.first().and_then(Dim::known);
    let holds = match (told, places) {
        (Some(told), Some(places)) => cx.pad(holds, &[0, places as i64 - told as i64]),
        _ => {
            let places = match given {
                Some(axis) => cx.size(x, axis),
                None => {
                    let shape = cx.op("Shape", &[x.into()]);
                    cx.op("ReduceProd", &[shape])
                }
            };
            let told = cx.size(condition, 0);
            let (none, more) = (cx.ints(&[0]), cx.op("Sub", &[places, told]));
            let pads = cx.op_with("Concat", &[none, more], [Attribute::int("axis", 0)]);
            cx.op("Pad", &[holds, pads])
        }
    };
    let front = cx.patch.parameter("axis", Tensor::i64s(&[], vec![0]));
    let count = cx.op("CumSum", &[holds, front]);
    let count = cx.cast(count, DataType::Int64);
    let one = cx.ints(&[1]);
    let nth = cx.op("Sub", &[count, one]);
    // Where it does not hold, the zero after the last element.
    let shape = cx.op("Shape", &[dy]);
    let index = cx.ints(&[axis as i64]);
    let behind = cx.op_with("Gather", &[shape, index], [Attribute::int("axis", 0)]);
    let holds = cx.cast(holds, DataType::Bool);
    let order = cx.op("Where", &[holds, nth, behind]);
    let mut pads = vec![0; 2 * rank];
    pads[rank + axis] = 1;
    let padded = cx.pad(dy, &pads);
    let axis_of = Attribute::int("axis", axis as i64);
    let found = cx.op_with("Gather", &[padded, order], [axis_of]);
    Ok(vec![(
        0,
        match given {
            Some(_) => found,
            None => cx.reshape_like(found, x),
        },
    )])
}
