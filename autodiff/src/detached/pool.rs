//! Pools, and what picks the largest element.
//!
//! ```text
//! y = AveragePool (x)   s_x = ConvTranspose (s_y * share, ones), share = 1 / cells that count
//! y = MaxPool (x)       s_x = ConvTranspose (s_y * won, cells), won = cell has the window's largest
//! y = ReduceMax (x)     s_x = s_y * won, in equal parts where several are the largest
//! ```
//!
//! The first of several largest cells of a window wins. `cells` is a convolution that lays the cells of
//! a window out as channels; its transpose puts them back, and adds up where windows overlap.

use bcosc_ir::views::{AxesOp, Pool, PoolKind};
use bcosc_ir::{Attribute, DataType, Op, Operand, Tensor, Value};

use super::algebra::{cells, kept_dims, reduced_axes, repeat};
use super::step::{Found, Step};
use super::windows::{Slide, grouped};
use bcosc_passes::Reason;
use bcosc_passes::analysis::weights;

pub(super) fn average(step: &mut Step<'_>) -> Found {
    let dy = step.dy()?;
    let pool = Pool::of(step.graph, step.node).ok_or(Reason::Malformed)?;
    let slide = Slide::of(step, &pool.window, pool.x, step.y(), pool.ceil_mode)?;
    let channels = channels(step, pool.x)?;
    let uniform = match pool.kind {
        PoolKind::Average { count_padding } => count_padding && !pool.ceil_mode,
        PoolKind::Max => return Err(Reason::Malformed),
    } || slide.pads.iter().all(|&p| p == 0);
    let count = pool.window.cells() as usize;
    let filled = |step: &mut Step<'_>, channels: u64, x: f64| {
        let mut dims = vec![channels, 1];
        dims.extend(pool.window.kernel.iter().map(|&k| k as u64));
        let elements = vec![x; channels as usize * count];
        let tensor = weights::tensor(step.dtype(pool.x), &dims, &elements);
        step.patch.parameter("window", tensor)
    };
    if uniform {
        let share = filled(step, channels, 1.0 / count as f64);
        return Ok(vec![(0, slide.back(step, dy, share, channels)?)]);
    }
    // The share of a cell follows from what the pool makes of ones, over the cells that are there.
    let shape = step.op("Shape", &[pool.x.into()]);
    let spatial = step.slice(shape, &[0], &[2], &[i64::MAX]);
    let lead = step.ints(&[1, 1]);
    let shape = step.op_with("Concat", &[lead, spatial], [Attribute::int("axis", 0)]);
    let one = step.number(pool.x, 1.0);
    let ones = step.op("Expand", &[one, shape]);
    let pooled = step.patch.op(step.op.clone().named(""), &[ones]);
    let window = filled(step, 1, 1.0);
    let counting = slide.window.write(Op::new("", "Conv"));
    let counted = step.patch.op(counting, &[ones, window]);
    let share = step.div(pooled, counted);
    let dy = step.mul(dy, share);
    let window = filled(step, channels, 1.0);
    Ok(vec![(0, slide.back(step, dy, window, channels)?)])
}

pub(super) fn global_average(step: &mut Step<'_>) -> Found {
    let dy = step.dy()?;
    let rank = step.dims(step.operand(0)?)?.len();
    let axes: Vec<usize> = (2..rank).collect();
    let count = cells(step, &axes)?;
    let share = step.div(dy, count);
    Ok(vec![(0, repeat(step, share)?)])
}

pub(super) fn max(step: &mut Step<'_>) -> Found {
    let dy = step.dy()?;
    let pool = Pool::of(step.graph, step.node).ok_or(Reason::Malformed)?;
    let slide = Slide::of(step, &pool.window, pool.x, step.y(), pool.ceil_mode)?;
    let channels = channels(step, pool.x)?;
    let (dtype, count) = (step.dtype(pool.x), pool.window.cells());
    // One channel a cell of the window, with a border that never wins.
    let laid_out = laid_out(dtype, channels, &pool.window.kernel);
    let laid_out = step.patch.parameter("cells", laid_out);
    let mut seen = Operand::Old(pool.x);
    if slide.pads.iter().any(|&p| p != 0) {
        let rank = slide.window.rank();
        let mut pads = vec![0; 4 + slide.pads.len()];
        pads[2..2 + rank].copy_from_slice(&slide.pads[..rank]);
        pads[4 + rank..].copy_from_slice(&slide.pads[rank..]);
        let (pads, low) = (step.ints(&pads), step.number(pool.x, lowest(dtype)));
        seen = step.op("Pad", &[seen, pads, low]);
    }
    let mut unpadded = slide.window.clone();
    unpadded.padding = bcosc_ir::views::Padding::Explicit(vec![0; slide.pads.len()]);
    let op = grouped(unpadded.write(Op::new("", "Conv")), channels as i64);
    let elements = step.patch.op(op, &[seen, laid_out]);
    let elements = step.reshape(elements, &[0, channels as i64, count, -1]);
    let winner = [Attribute::int("axis", 2), Attribute::int("keepdims", 1)];
    let winner = step.op_with("ArgMax", &[elements], winner);
    let numbers = Tensor::i64s(&[1, 1, count as u64, 1], (0..count).collect());
    let numbers = step.patch.parameter("numbers", numbers);
    let won = step.op("Equal", &[winner, numbers]);
    let won = step.cast(won, dtype);
    let dy = step.reshape(dy, &[0, channels as i64, 1, -1]);
    let shares = step.mul(won, dy);
    let lead = step.size(step.y(), 0);
    let wide = step.ints(&[channels as i64 * count]);
    let shape = step.shape(step.y());
    let spatial = step.slice(shape, &[0], &[2], &[i64::MAX]);
    let shape = step.op_with(
        "Concat",
        &[lead, wide, spatial],
        [Attribute::int("axis", 0)],
    );
    let shares = step.op("Reshape", &[shares, shape]);
    Ok(vec![(0, slide.back(step, shares, laid_out, channels)?)])
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

pub(super) fn lowest(dtype: DataType) -> f64 {
    match dtype {
        DataType::Float16 => half::f16::MIN.to_f64(),
        DataType::Bfloat16 => half::bf16::MIN.to_f64(),
        _ => f64::from(f32::MIN),
    }
}

fn channels(step: &Step<'_>, x: Value) -> Result<u64, Reason> {
    let known = step.dims(x)?.get(1).and_then(|d| d.known());
    known.ok_or_else(|| Reason::UnknownShape(step.graph.value_name(x).to_owned()))
}

pub(super) fn global_max(step: &mut Step<'_>) -> Found {
    let rank = step.dims(step.operand(0)?)?.len() as i64;
    let axes: Vec<i64> = (2..rank).collect();
    let (dy, y) = (step.dy()?, step.y());
    shared(step, dy, y.into(), &axes)
}

/// `ReduceMax` and `ReduceMin`.
pub(super) fn reduce_winner(step: &mut Step<'_>) -> Found {
    let mut axes = reduced_axes(step)?;
    axes.sort_unstable();
    let (dy, y) = (step.dy()?, step.y());
    let (dy, y) = (kept_dims(step, dy, &axes), kept_dims(step, y.into(), &axes));
    let axes: Vec<i64> = axes.iter().map(|&a| a as i64).collect();
    shared(step, dy, y, &axes)
}

/// The cotangent of a winner, in equal parts for all elements like it.
fn shared(step: &mut Step<'_>, dy: Operand, y: Operand, axes: &[i64]) -> Found {
    let x = step.operand(0)?;
    let won = step.op("Equal", &[x.into(), y]);
    let won = step.cast(won, step.dtype(x));
    let count = step.reduce(AxesOp::ReduceSum, won, axes);
    let share = step.div(dy, count);
    Ok(vec![(0, step.mul(won, share))])
}

/// `Max` and `Min` of several operands: the first of those that are alike wins.
pub(super) fn largest_operand(step: &mut Step<'_>) -> Found {
    let (dy, y) = (step.dy()?, step.y());
    let zero = step.number(y, 0.0);
    let mut taken: Option<Operand> = None;
    let mut found = Vec::new();
    for (slot, operand) in step.graph.inputs_of(step.node).into_iter().enumerate() {
        let operand = operand.ok_or(Reason::Malformed)?;
        let alike = step.op("Equal", &[operand.into(), y.into()]);
        let won = match taken {
            None => alike,
            Some(taken) => {
                let free = step.op("Not", &[taken]);
                step.op("And", &[alike, free])
            }
        };
        taken = Some(match taken {
            None => alike,
            Some(taken) => step.op("Or", &[taken, alike]),
        });
        if step.wants(slot as u32) {
            let part = step.op("Where", &[won, dy, zero]);
            found.push((slot as u32, step.unbroadcast(part, operand)?));
        }
    }
    Ok(found)
}
