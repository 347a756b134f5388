//! Repetition, and blocks of pixels that become channels.

use bcosc_ir::views::AxesOp;
use bcosc_ir::{Attribute, Dim};

use super::step::{Found, Step};
use bcosc_passes::Reason;

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

pub(super) fn space_to_depth(step: &mut Step<'_>) -> Found {
    let dy = step.dy()?;
    let size = Attribute::int("blocksize", step.op.int("blocksize", 1));
    let mode = step.op.attribute("mode").cloned();
    let attributes = [size].into_iter().chain(mode);
    Ok(vec![(0, step.op_with("DepthToSpace", &[dy], attributes))])
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
