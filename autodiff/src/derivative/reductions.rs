//! Reductions that are not linear.
//!
//! ```text
//! ReduceL1           s_y sign(x)       ReduceLogSum      s_y / exp(y)
//! ReduceL2           s_y x / y         ReduceLogSumExp   s_y exp(x - y)
//! ReduceSumSquare    s_y 2 x           ReduceProd        s_y times the product of all others
//! ```
//!
//! `ReduceL2` has the slope 0 where all elements are 0.

use bcosc_ir::views::AxesOp;
use bcosc_ir::{Operand, Value};

use crate::context::{Found, RuleContext};
use crate::transpose::arithmetic::{kept_dims, reduced_axes, repeat};
use bcosc_passes::Reason;

/// A reduction with the reduced axes of size 1.
struct Reduction {
    dy: Operand,
    x: Value,
    y: Operand,
    axes: Vec<i64>,
}

impl Reduction {
    fn of(cx: &mut RuleContext<'_>) -> Result<Self, Reason> {
        let (dy, y) = (cx.dy()?, cx.y());
        let mut axes = reduced_axes(cx)?;
        if axes.is_empty() && !cx.dims(cx.operand(0)?)?.is_empty() {
            // Whether the function applies to each element differs between opsets.
            return Err(Reason::NoBackwardRuleFor("a reduction of no axes"));
        }
        axes.sort_unstable();
        Ok(Reduction {
            dy: kept_dims(cx, dy, &axes),
            x: cx.operand(0)?,
            y: kept_dims(cx, y.into(), &axes),
            axes: axes.iter().map(|&axis| axis as i64).collect(),
        })
    }
}

pub(crate) fn l1(cx: &mut RuleContext<'_>) -> Found {
    let Reduction { dy, x, .. } = Reduction::of(cx)?;
    let sign = cx.op("Sign", &[x.into()]);
    Ok(vec![(0, cx.mul(sign, dy))])
}

pub(crate) fn l2(cx: &mut RuleContext<'_>) -> Found {
    let Reduction { dy, x, y, .. } = Reduction::of(cx)?;
    let zero = cx.number(x, 0.0);
    let is_long = cx.op("Greater", &[y, zero]);
    let ratio = cx.div(dy, y);
    let ratio = cx.op("Where", &[is_long, ratio, zero]);
    Ok(vec![(0, cx.mul(x.into(), ratio))])
}

pub(crate) fn sum_square(cx: &mut RuleContext<'_>) -> Found {
    let Reduction { dy, x, .. } = Reduction::of(cx)?;
    let double = cx.times(dy, 2.0, x);
    Ok(vec![(0, cx.mul(x.into(), double))])
}

pub(crate) fn log_sum(cx: &mut RuleContext<'_>) -> Found {
    let Reduction { dy, y, .. } = Reduction::of(cx)?;
    let sum = cx.op("Exp", &[y]);
    let ratio = cx.div(dy, sum);
    Ok(vec![(0, repeat(cx, ratio)?)])
}

pub(crate) fn log_sum_exp(cx: &mut RuleContext<'_>) -> Found {
    let Reduction { dy, x, y, .. } = Reduction::of(cx)?;
    let less = cx.sub(x.into(), y);
    let share = cx.op("Exp", &[less]);
    Ok(vec![(0, cx.mul(share, dy))])
}

/// Zeros are left out of the product, and counted: a slope is that product over the element itself, if no other
/// element is 0.
pub(crate) fn product(cx: &mut RuleContext<'_>) -> Found {
    let Reduction { dy, x, axes, .. } = Reduction::of(cx)?;
    let [zero, one] = [0.0, 1.0].map(|n| cx.number(x, n));
    let vanishes = cx.op("Equal", &[x.into(), zero]);
    let safe = cx.op("Where", &[vanishes, one, x.into()]);
    let product = cx.reduce(AxesOp::ReduceProd, safe, &axes);
    let itself = cx.cast(vanishes, cx.dtype(x));
    let zeros = cx.reduce(AxesOp::ReduceSum, itself, &axes);
    let other = cx.op("Equal", &[zeros, itself]);
    let whole = cx.mul(dy, product);
    let slope = cx.div(whole, safe);
    Ok(vec![(0, cx.op("Where", &[other, slope, zero]))])
}
