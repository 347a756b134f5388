//! Operators that pick positions along an axis: `Slice`, `Gather`.
//!
//! ```text
//! y = Slice (x)         s_x = Pad (s_y), where the positions are next to each other
//! y = Gather (x, i)     s_x = Gather (s_y and a zero, where each position went)
//! y = Gather (x, i)     s_x = ScatterND <add> (0, i, s_y), where positions are computed while running
//! y = Gather (x, i)     s_x = s_y times a matrix of zeros and ones, where a position is picked twice
//! ```

use bcosc_ir::{Attribute, Operand};

use super::scatter;
use super::step::{Found, Step};
use bcosc_passes::Reason;
use bcosc_passes::analysis::weights;

pub(super) fn slice(step: &mut Step<'_>) -> Found {
    let (mut dy, x) = (step.dy()?, step.operand(0)?);
    let dims = step.dims(x)?;
    let starts = step.attribute_or("starts", 1)?.ok_or(Reason::Malformed)?;
    let ends = step.attribute_or("ends", 2)?.ok_or(Reason::Malformed)?;
    let axes = step.attribute_or("axes", 3)?;
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = step.integers(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err(Reason::Malformed);
    }
    for i in 0..axes.len() {
        let axis = step.axis(axes[i], dims.len())?;
        dy = match dims[axis].known() {
            Some(size) => {
                let picked = positions(size as i64, starts[i], ends[i], steps[i])?;
                placed(step, dy, axis, size as i64, &picked)?
            }
            None if steps[i] == 1 => placed_in_open(step, dy, axis, starts[i])?,
            None => return Err(Reason::UnknownShape(step.graph.value_name(x).to_owned())),
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

pub(super) fn gather(step: &mut Step<'_>) -> Found {
    let (dy, x, indices) = (step.dy()?, step.operand(0)?, step.operand(1)?);
    let dims = step.dims(x)?;
    let axis = step.axis(step.op.int("axis", 0), dims.len())?;
    if step.graph.constant(indices).is_none() {
        return scattered(step, dy, axis);
    }
    let picked = step.integers(1)?.ok_or(Reason::Malformed)?;
    let dy = match step.known_dims(indices)?.len() {
        0 => step.unsqueeze(dy, &[axis as i64]),
        1 => dy,
        _ => {
            let mut sizes: Vec<i64> = dims
                .iter()
                .map(|d| d.known().map_or(-1, |d| d as i64))
                .collect();
            sizes[axis] = picked.len() as i64;
            if sizes.iter().filter(|&&s| s == -1).count() > 1 {
                return Err(Reason::UnknownShape(step.graph.value_name(x).to_owned()));
            }
            step.reshape(dy, &sizes)
        }
    };
    let found = match dims[axis].known() {
        Some(size) => {
            let from_front = |&i: &i64| if i < 0 { i + size as i64 } else { i };
            let picked: Vec<i64> = picked.iter().map(from_front).collect();
            placed(step, dy, axis, size as i64, &picked)?
        }
        None if contiguous(&picked) => placed_in_open(step, dy, axis, picked[0])?,
        None => return Err(Reason::UnknownShape(step.graph.value_name(x).to_owned())),
    };
    Ok(vec![(0, found)])
}

/// Adds up at positions that are computed while running.
fn scattered(step: &mut Step<'_>, dy: Operand, axis: usize) -> Found {
    let (x, indices) = (step.operand(0)?, step.operand(1)?);
    let rank = step.dims(x)?.len();
    let places = step.dims(indices)?.len();
    let mut zeros = scatter::zeros(step, x);
    let mut rows = dy;
    // With the picked axis in front, a place is an index of rows.
    let to_front = |count: usize, rank: usize| {
        let picked = axis..axis + count;
        let others = (0..axis).chain(axis + count..rank);
        let perm: Vec<i64> = picked.chain(others).map(|a| a as i64).collect();
        perm
    };
    if axis > 0 {
        zeros = step.transpose(zeros, &to_front(1, rank));
        rows = step.transpose(rows, &to_front(places, rank - 1 + places));
    }
    let indices = step.unsqueeze(indices.into(), &[-1]);
    let mut found = scatter::added(step, "ScatterND", [zeros, indices, rows], None)?;
    if axis > 0 {
        let back = (1..=axis).chain([0]).chain(axis + 1..rank);
        let back: Vec<i64> = back.map(|a| a as i64).collect();
        found = step.transpose(found, &back);
    }
    Ok(vec![(0, found)])
}

fn contiguous(picked: &[i64]) -> bool {
    !picked.is_empty() && picked.windows(2).all(|pair| pair[1] == pair[0] + 1)
}

/// Puts positions back on an axis, zeros between them.
fn placed(
    step: &mut Step<'_>,
    dy: Operand,
    axis: usize,
    size: i64,
    picked: &[i64],
) -> Result<Operand, Reason> {
    let rank = step.dims(step.operand(0)?)?.len();
    if picked.iter().any(|i| !(0..size).contains(i)) || picked.is_empty() {
        return Err(Reason::Malformed);
    }
    let count = picked.len() as i64;
    let mut pads = vec![0; 2 * rank];
    if contiguous(picked) {
        (pads[axis], pads[rank + axis]) = (picked[0], size - picked[0] - count);
        return Ok(step.pad(dy, &pads));
    }
    let mut went: Vec<Option<i64>> = vec![None; size as usize];
    let mut twice = false;
    for (to, &from) in picked.iter().enumerate() {
        twice |= went[from as usize].replace(to as i64).is_some();
    }
    if twice {
        return Ok(spread(step, dy, axis, [rank, size as usize], picked));
    }
    pads[rank + axis] = 1;
    let padded = step.pad(dy, &pads);
    let order: Vec<i64> = went.into_iter().map(|to| to.unwrap_or(count)).collect();
    let order = step.ints(&order);
    Ok(step.op_with(
        "Gather",
        &[padded, order],
        [Attribute::int("axis", axis as i64)],
    ))
}

/// Adds up what was picked more than once.
fn spread(
    step: &mut Step<'_>,
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
    let matrix = weights::tensor(step.dtype(step.y()), &dims, &matrix);
    let matrix = step.patch.parameter("picked", matrix);
    let mut perm: Vec<i64> = (0..rank as i64).collect();
    perm.swap(axis, rank - 1);
    let turned = step.transpose(dy, &perm);
    let product = step.op("MatMul", &[turned, matrix]);
    step.transpose(product, &perm)
}

/// Puts a range back on an axis whose size is open, from a position counted from either end.
fn placed_in_open(
    step: &mut Step<'_>,
    dy: Operand,
    axis: usize,
    start: i64,
) -> Result<Operand, Reason> {
    let x = step.operand(0)?;
    let rank = step.dims(x)?.len();
    let size = step.size(x, axis);
    let shape = step.op("Shape", &[dy]);
    let index = step.ints(&[axis as i64]);
    let count = step.op_with("Gather", &[shape, index], [Attribute::int("axis", 0)]);
    let start_at = step.ints(&[start]);
    let before = match start {
        0.. => start_at,
        _ => step.op("Add", &[size, start_at]),
    };
    let rest = step.op("Sub", &[size, before]);
    let behind = step.op("Sub", &[rest, count]);
    let nothing = step.ints(&[0]);
    let pads: Vec<Operand> = (0..2 * rank)
        .map(|i| match i {
            i if i == axis => before,
            i if i == rank + axis => behind,
            _ => nothing,
        })
        .collect();
    let pads = step.op_with("Concat", &pads, [Attribute::int("axis", 0)]);
    Ok(step.op("Pad", &[dy, pads]))
}
