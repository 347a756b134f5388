//! Maxima and minima: linear, with the selection held fixed.
//!
//! ```text
//! y = ReduceMax (x)     s_x = s_y * won, in equal parts where several are the largest
//! y = Max (a, b)        s_a = s_y where a won, in equal parts where several did
//! ```

use bcosc_ir::views::AxesOp;
use bcosc_ir::{Operand, Value};

use super::arithmetic::{kept_dims, reduced_axes};
use crate::context::{Found, RuleContext};
use bcosc_passes::Reason;

pub(crate) fn global_max(cx: &mut RuleContext<'_>) -> Found {
    let rank = cx.dims(cx.operand(0)?)?.len() as i64;
    let axes: Vec<i64> = (2..rank).collect();
    let (dy, y) = (cx.dy()?, cx.y());
    shared(cx, dy, y.into(), &axes)
}

/// `ReduceMax` and `ReduceMin`.
pub(crate) fn reduce_winner(cx: &mut RuleContext<'_>) -> Found {
    let mut axes = reduced_axes(cx)?;
    axes.sort_unstable();
    let (dy, y) = (cx.dy()?, cx.y());
    let (dy, y) = (kept_dims(cx, dy, &axes), kept_dims(cx, y.into(), &axes));
    let axes: Vec<i64> = axes.iter().map(|&a| a as i64).collect();
    shared(cx, dy, y, &axes)
}

/// The cotangent of a winner, in equal parts for all elements like it.
fn shared(cx: &mut RuleContext<'_>, dy: Operand, y: Operand, axes: &[i64]) -> Found {
    let x = cx.operand(0)?;
    let won = cx.op("Equal", &[x.into(), y]);
    let won = cx.cast(won, cx.dtype(x));
    let count = cx.reduce(AxesOp::ReduceSum, won, axes);
    let share = cx.div(dy, count);
    Ok(vec![(0, cx.mul(won, share))])
}

/// `Max` and `Min` of several operands.
pub(crate) fn largest_operand(cx: &mut RuleContext<'_>) -> Found {
    let (dy, y) = (cx.dy()?, cx.y());
    let dtype = cx.dtype(y);
    let operands = cx.graph.inputs_of(cx.node).into_iter();
    let operands: Vec<Value> = operands.collect::<Option<_>>().ok_or(Reason::Malformed)?;
    let mut won = Vec::new();
    for &operand in &operands {
        let alike = cx.op("Equal", &[operand.into(), y.into()]);
        won.push(cx.cast(alike, dtype));
    }
    let count = cx.op("Sum", &won);
    let share = cx.div(dy, count);
    let mut found = Vec::new();
    for &slot in cx.wanted {
        let part = cx.mul(won[slot as usize], share);
        found.push((slot, cx.unbroadcast(part, operands[slot as usize])?));
    }
    Ok(found)
}
