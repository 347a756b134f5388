//! `ReverseSequence`, which is its own transpose.
//!
//! ```text
//! y = ReverseSequence (x, lens)   s_x = GatherElements (s_y, lens - 1 - t where t < lens, else t)
//! ```
//!
//! with t the position along the axis of time. Written out, as more runtimes know `GatherElements`.

use bcosc_ir::{Attribute, Operand, Tensor};

use crate::context::{Found, RuleContext};
use bcosc_passes::Reason;

pub(crate) fn reverse_sequence(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x, lens) = (cx.dy()?, cx.operand(0)?, cx.operand(1)?);
    let dims = cx.dims(x)?;
    let rank = dims.len();
    let time = cx.axis(cx.attribute("time_axis")?, rank)?;
    let batch = cx.axis(cx.attribute("batch_axis")?, rank)?;
    if time == batch {
        return Err(Reason::Malformed);
    }
    let others = |axis: usize| -> Vec<i64> {
        let all = (0..rank).filter(|&a| a != axis);
        all.map(|a| a as i64).collect()
    };
    let positions = positions(cx, dims[time].known(), time)?;
    let t = cx.unsqueeze(positions, &others(time));
    let lens = cx.unsqueeze(lens.into(), &others(batch));
    let one = cx.ints(&[1]);
    let last = cx.op("Sub", &[lens, one]);
    let turned = cx.op("Sub", &[last, t]);
    let inside = cx.op("Less", &[t, lens]);
    let from = cx.op("Where", &[inside, turned, t]);
    let shape = cx.shape(x);
    let from = cx.op("Expand", &[from, shape]);
    let axis = Attribute::int("axis", time as i64);
    let found = cx.op_with("GatherElements", &[dy, from], [axis]);
    Ok(vec![(0, found)])
}

/// 0, 1, 2, ... along an axis of x.
fn positions(cx: &mut RuleContext<'_>, known: Option<u64>, axis: usize) -> Result<Operand, Reason> {
    if let Some(size) = known {
        let all: Vec<i64> = (0..size as i64).collect();
        return Ok(cx.ints(&all));
    }
    let shape = {
        let x = cx.operand(0)?;
        cx.op("Shape", &[x.into()])
    };
    let [axis, zero, one] = [axis as i64, 0, 1].map(|n| {
        let number = Tensor::i64s(&[], vec![n]);
        cx.patch.parameter("number", number)
    });
    let size = cx.op("Gather", &[shape, axis]);
    Ok(cx.op("Range", &[zero, size, one]))
}
