//! Repetition, blocks of pixels that become channels, and pixels that become blocks.

use bcosc_ir::views::AxesOp;
use bcosc_ir::{Attribute, Dim, Op};

use super::step::{Found, Step};
use super::windows::grouped;
use crate::{Reason, weights};

pub(super) fn tile(step: &mut Step<'_>) -> Found {
    let (dy, x) = (step.dy()?, step.operand(0)?);
    let repeats = step.integers(1)?.ok_or(Reason::Malformed)?;
    let dims = step.dims(x)?;
    if dims.iter().filter(|d| d.known().is_none()).count() > 1 {
        return Err(Reason::UnknownShape(step.graph.value_name(x).to_owned()));
    }
    let open = |d: &Dim| d.known().map_or(-1, |d| d as i64);
    let pairs = repeats.iter().zip(&dims);
    let sizes: Vec<i64> = pairs.flat_map(|(&r, d)| [r, open(d)]).collect();
    let apart = step.reshape(dy, &sizes);
    let axes: Vec<i64> = (0..dims.len() as i64).map(|axis| 2 * axis).collect();
    Ok(vec![(0, step.reduce_to(AxesOp::ReduceSum, apart, &axes))])
}

/// `Resize` that makes each pixel a block of its like; other ways of resizing have no rule.
pub(super) fn enlarge(step: &mut Step<'_>) -> Found {
    let (dy, x, y) = (step.dy()?, step.operand(0)?, step.y());
    let text = |name, default| step.op.string(name).unwrap_or(default);
    let rounding = text("nearest_mode", "round_prefer_floor");
    let blocks = match text("coordinate_transformation_mode", "half_pixel") {
        "asymmetric" => rounding == "floor",
        "half_pixel" => matches!(rounding, "round_prefer_floor" | "round_prefer_ceil"),
        _ => false,
    };
    if text("mode", "nearest") != "nearest" || !blocks {
        return Err(Reason::NoDerivative);
    }
    let (from, to) = (step.dims(x)?, step.dims(y)?);
    let open = || Reason::UnknownShape(step.graph.value_name(y).to_owned());
    let channels = from.get(1).and_then(Dim::known).ok_or_else(open)?;
    let mut factors = Vec::new();
    for (from, to) in from.iter().zip(&to).skip(2) {
        let (from, to) = (from.known().ok_or_else(open)?, to.known().ok_or_else(open)?);
        if from == 0 || to == 0 || to % from != 0 {
            return Err(Reason::NoDerivative);
        }
        factors.push((to / from) as i64);
    }
    if from.first() != to.first() || from.get(1) != to.get(1) || factors.is_empty() {
        return Err(Reason::NoDerivative);
    }
    let mut dims = vec![channels, 1];
    dims.extend(factors.iter().map(|&k| k as u64));
    let ones = vec![1.0; dims.iter().product::<u64>() as usize];
    let ones = weights::tensor(step.dtype(x), &dims, &ones);
    let ones = step.patch.parameter("block", ones);
    let op = Op::new("", "Conv").with_ints("strides", &factors);
    let op = grouped(op, channels as i64);
    Ok(vec![(0, step.patch.op(op, &[dy, ones]))])
}

pub(super) fn space_to_depth(step: &mut Step<'_>) -> Found {
    let dy = step.dy()?;
    let size = Attribute::int("blocksize", step.op.int("blocksize", 1));
    Ok(vec![(0, step.op_with("DepthToSpace", &[dy], [size]))])
}

/// With mode `CRD` the cells of a block lie next to each other, with `DCR` the channels do.
pub(super) fn depth_to_space(step: &mut Step<'_>) -> Found {
    let dy = step.dy()?;
    let block = step.op.int("blocksize", 1);
    let size = Attribute::int("blocksize", block);
    let found = step.op_with("SpaceToDepth", &[dy], [size]);
    if step.op.string("mode").unwrap_or("DCR") == "DCR" {
        return Ok(vec![(0, found)]);
    }
    let y = step.y();
    let channels = step.dims(y)?.get(1).and_then(Dim::known);
    let channels =
        channels.ok_or_else(|| Reason::UnknownShape(step.graph.value_name(y).to_owned()))? as i64;
    let cells = block * block;
    let order: Vec<i64> = (0..channels * cells)
        .map(|i| i % cells * channels + i / cells)
        .collect();
    let order = step.ints(&order);
    let found = step.op_with("Gather", &[found, order], [Attribute::int("axis", 1)]);
    Ok(vec![(0, found)])
}
