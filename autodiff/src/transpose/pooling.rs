//! Pools over windows.
//!
//! ```text
//! y = AveragePool (x)   s_x = ConvTranspose (s_y * share, ones), share = 1 / cells that count
//! y = MaxPool (x)       s_x = ConvTranspose (s_y * won, cells), won = cell has the window's largest
//! ```
//!
//! The first of several largest cells of a window wins. `cells` is a convolution that lays the cells of
//! a window out as channels; its transpose puts them back, and adds up where windows overlap.

use bcosc_ir::views::{Pool, PoolKind};
use bcosc_ir::{Attribute, DataType, Op, Operand, Tensor, Value};

use super::arithmetic::{cells, repeat};
use super::window::{Slide, grouped};
use crate::context::{Found, RuleContext};
use bcosc_passes::Reason;
use bcosc_passes::analysis::weights;

pub(crate) fn average(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    let pool = Pool::of(cx.graph, cx.node).ok_or(Reason::Malformed)?;
    let slide = Slide::of(cx, &pool.window, pool.x, cx.y(), pool.ceil_mode)?;
    let channels = channels(cx, pool.x)?;
    let uniform = match pool.kind {
        PoolKind::Average { count_padding } => count_padding && !pool.ceil_mode,
        PoolKind::Max => return Err(Reason::Malformed),
    } || slide.pads.iter().all(|&p| p == 0);
    let count = pool.window.cells() as usize;
    let filled = |cx: &mut RuleContext<'_>, channels: u64, x: f64| {
        let mut dims = vec![channels, 1];
        dims.extend(pool.window.kernel.iter().map(|&k| k as u64));
        let elements = vec![x; channels as usize * count];
        let tensor = weights::tensor(cx.dtype(pool.x), &dims, &elements);
        cx.patch.parameter("window", tensor)
    };
    if uniform {
        let share = filled(cx, channels, 1.0 / count as f64);
        return Ok(vec![(0, slide.back(cx, dy, share, channels)?)]);
    }
    // The share of a cell follows from what the pool makes of ones, over the cells that are there.
    let shape = cx.op("Shape", &[pool.x.into()]);
    let spatial = cx.slice(shape, &[0], &[2], &[i64::MAX]);
    let lead = cx.ints(&[1, 1]);
    let shape = cx.op_with("Concat", &[lead, spatial], [Attribute::int("axis", 0)]);
    let one = cx.number(pool.x, 1.0);
    let ones = cx.op("Expand", &[one, shape]);
    let pooled = cx.patch.op(cx.op.clone().named(""), &[ones]);
    let window = filled(cx, 1, 1.0);
    let counting = slide.window.write(Op::new("", "Conv"));
    let counted = cx.patch.op(counting, &[ones, window]);
    let share = cx.div(pooled, counted);
    let dy = cx.mul(dy, share);
    let window = filled(cx, channels, 1.0);
    Ok(vec![(0, slide.back(cx, dy, window, channels)?)])
}

pub(crate) fn global_average(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    let rank = cx.dims(cx.operand(0)?)?.len();
    let axes: Vec<usize> = (2..rank).collect();
    let count = cells(cx, &axes)?;
    let share = cx.div(dy, count);
    Ok(vec![(0, repeat(cx, share)?)])
}

pub(crate) fn max(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    let pool = Pool::of(cx.graph, cx.node).ok_or(Reason::Malformed)?;
    let slide = Slide::of(cx, &pool.window, pool.x, cx.y(), pool.ceil_mode)?;
    let channels = channels(cx, pool.x)?;
    let (dtype, count) = (cx.dtype(pool.x), pool.window.cells());
    // One channel per cell of the window, with a border that never wins.
    let laid_out = laid_out(dtype, channels, &pool.window.kernel);
    let laid_out = cx.patch.parameter("cells", laid_out);
    let mut seen = Operand::Old(pool.x);
    if slide.pads.iter().any(|&p| p != 0) {
        let rank = slide.window.rank();
        let mut pads = vec![0; 4 + slide.pads.len()];
        pads[2..2 + rank].copy_from_slice(&slide.pads[..rank]);
        pads[4 + rank..].copy_from_slice(&slide.pads[rank..]);
        let (pads, low) = (cx.ints(&pads), cx.lowest(pool.x));
        seen = cx.op("Pad", &[seen, pads, low]);
    }
    let mut unpadded = slide.window.clone();
    unpadded.padding = bcosc_ir::views::Padding::Explicit(vec![0; slide.pads.len()]);
    let op = grouped(unpadded.write(Op::new("", "Conv")), channels as i64);
    let elements = cx.patch.op(op, &[seen, laid_out]);
    let elements = cx.reshape(elements, &[0, channels as i64, count, -1]);
    let winner = [Attribute::int("axis", 2), Attribute::int("keepdims", 1)];
    let winner = cx.op_with("ArgMax", &[elements], winner);
    let numbers = Tensor::i64s(&[1, 1, count as u64, 1], (0..count).collect());
    let numbers = cx.patch.parameter("numbers", numbers);
    let won = cx.op("Equal", &[winner, numbers]);
    let won = cx.cast(won, dtype);
    let dy = cx.reshape(dy, &[0, channels as i64, 1, -1]);
    let shares = cx.mul(won, dy);
    let lead = cx.size(cx.y(), 0);
    let wide = cx.ints(&[channels as i64 * count]);
    let shape = cx.shape(cx.y());
    let spatial = cx.slice(shape, &[0], &[2], &[i64::MAX]);
    let shape = cx.op_with(
        "Concat",
        &[lead, wide, spatial],
        [Attribute::int("axis", 0)],
    );
    let shares = cx.op("Reshape", &[shares, shape]);
    Ok(vec![(0, slide.back(cx, shares, laid_out, channels)?)])
}

/// The weight of a convolution that gives each cell of a window its own channel.
fn laid_out(dtype: DataType, channels: u64, kernel: &[i64]) -> Tensor {
    let count = kernel.iter().product::<i64>() as usize;
    let mut dims = vec![channels * count as u64, 1];
    dims.extend(kernel.iter().map(|&k| k as u64));
    let rows = channels as usize * count;
    let elements: Vec<f64> = (0..rows * count)
        .map(|i| {
            if i / count % count == i % count {
                1.0
            } else {
                0.0
            }
        })
        .collect();
    weights::tensor(dtype, &dims, &elements)
}

fn channels(cx: &RuleContext<'_>, x: Value) -> Result<u64, Reason> {
    let known = cx.dims(x)?.get(1).and_then(|d| d.known());
    known.ok_or_else(|| Reason::UnknownShape(cx.graph.value_name(x).to_owned()))
}
