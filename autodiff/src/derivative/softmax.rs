//! `Softmax` and `LogSoftmax`.
//!
//! ```text
//! y = Softmax (x)       s_x = y (s_y - sum(s_y y))
//! y = LogSoftmax (x)    s_x = s_y - exp(y) sum(s_y)
//! ```
//!
//! Sums are along one axis. Up to opset 12 they are over all axes from that one on.

use bcosc_ir::views::AxesOp;

use crate::context::{Found, RuleContext};
use bcosc_passes::Reason;

/// From here on there is one axis.
const ONE_AXIS: i64 = 13;

pub(crate) fn softmax(cx: &mut RuleContext<'_>) -> Found {
    let (dy, y, axes) = (cx.dy()?, cx.y(), axes(cx)?);
    let product = cx.mul(dy, y.into());
    let sum = cx.reduce(AxesOp::ReduceSum, product, &axes);
    let rest = cx.sub(dy, sum);
    Ok(vec![(0, cx.mul(y.into(), rest))])
}

pub(crate) fn log_softmax(cx: &mut RuleContext<'_>) -> Found {
    let (dy, y, axes) = (cx.dy()?, cx.y(), axes(cx)?);
    let sum = cx.reduce(AxesOp::ReduceSum, dy, &axes);
    let softmax = cx.op("Exp", &[y.into()]);
    let shared = cx.mul(softmax, sum);
    Ok(vec![(0, cx.sub(dy, shared))])
}

fn axes(cx: &RuleContext<'_>) -> Result<Vec<i64>, Reason> {
    let rank = cx.dims(cx.operand(0)?)?.len();
    let axis = cx.op.get_at("axis", cx.opset).ok_or(Reason::Malformed)?;
    let axis = cx.axis(axis, rank)? as i64;
    Ok(match cx.opset >= ONE_AXIS {
        true => vec![axis],
        false => (axis..rank as i64).collect(),
    })
}
