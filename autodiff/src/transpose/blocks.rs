//! Repetition, and blocks of pixels that become channels.

use bcosc_ir::views::AxesOp;
use bcosc_ir::{Attribute, Dim};

use crate::context::{Found, RuleContext};
use bcosc_passes::Reason;

/// `Tile`: sums over the copies. Repeats may be computed, such as the number of images for a query token.
pub(crate) fn tile(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x) = (cx.dy()?, cx.operand(0)?);
    let dims = cx.dims(x)?;
    let open = dims.iter().filter(|d| d.known().is_none()).count();
    let repeats = cx.operand(1)?;
    let sizes = match cx.graph.constant(repeats).filter(|_| open < 2) {
        Some(_) => {
            let repeats = cx.integers(1)?.ok_or(Reason::Malformed)?;
            let size = |d: &Dim| d.known().map_or(-1, |d| d as i64);
            let pairs = repeats.iter().zip(&dims);
            let sizes: Vec<i64> = pairs.flat_map(|(&r, d)| [r, size(d)]).collect();
            cx.ints(&sizes)
        }
        None => {
            let shape = cx.shape(x);
            let columns = [repeats.into(), shape].map(|sizes| cx.unsqueeze(sizes, &[1]));
            let pairs = cx.op_with("Concat", &columns, [Attribute::int("axis", 1)]);
            cx.reshape(pairs, &[-1])
        }
    };
    let apart = cx.op("Reshape", &[dy, sizes]);
    let axes: Vec<i64> = (0..dims.len() as i64).map(|axis| 2 * axis).collect();
    Ok(vec![(0, cx.reduce_to(AxesOp::ReduceSum, apart, &axes))])
}

pub(crate) fn space_to_depth(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    let size = Attribute::int("blocksize", cx.attribute("blocksize")?);
    let mode = cx.op.attribute("mode").cloned();
    let attributes = [size].into_iter().chain(mode);
    Ok(vec![(0, cx.op_with("DepthToSpace", &[dy], attributes))])
}

/// With mode `CRD` the cells of a block are adjacent, with `DCR` the channels are.
pub(crate) fn depth_to_space(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    let block = cx.attribute("blocksize")?;
    let size = Attribute::int("blocksize", block);
    let found = cx.op_with("SpaceToDepth", &[dy], [size]);
    if cx.op.get("mode") == Some("DCR") {
        return Ok(vec![(0, found)]);
    }
    let y = cx.y();
    let channels = cx.dims(y)?.get(1).and_then(Dim::known);
    let channels =
        channels.ok_or_else(|| Reason::UnknownShape(cx.graph.value_name(y).to_owned()))? as i64;
    let cells = block * block;
    let order: Vec<i64> = (0..channels * cells)
        .map(|i| i % cells * channels + i / cells)
        .collect();
    let order = cx.ints(&order);
    let found = cx.op_with("Gather", &[found, order], [Attribute::int("axis", 1)]);
    Ok(vec![(0, found)])
}
