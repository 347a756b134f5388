//! Gates: f(x) is g(x) times x, and g is held fixed.
//!
//! ```text
//! Softsign   1 / (1 + |x|)
//! others     f(x) / x, at 0 its limit
//! ```
//!
//! [`gates`] has those that full derivatives need too.

use crate::context::{Found, RuleContext};
use crate::recompute::gates::{self, Gelu};
use bcosc_passes::Reason;
use bcosc_passes::analysis::scalars::scalar;

/// Below this magnitude a quotient is taken for its limit at 0.
const NEAR_ZERO: f64 = 1e-30;

pub(crate) fn hard_swish(cx: &mut RuleContext<'_>) -> Found {
    let gate = gates::hard_swish(cx)?;
    cx.scaled_by(gate)
}

pub(crate) fn swish(cx: &mut RuleContext<'_>) -> Found {
    let (gate, _) = gates::swish(cx)?;
    cx.scaled_by(gate)
}

pub(crate) fn mish(cx: &mut RuleContext<'_>) -> Found {
    let gate = gates::mish(cx)?;
    cx.scaled_by(gate)
}

pub(crate) fn gelu(cx: &mut RuleContext<'_>) -> Found {
    let gate = Gelu::of(cx)?.gate;
    cx.scaled_by(gate)
}

pub(crate) fn softsign(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x) = (cx.dy()?, cx.operand(0)?);
    let size = cx.op("Abs", &[x.into()]);
    let one = cx.number(x, 1.0);
    let by = cx.op("Add", &[size, one]);
    Ok(vec![(0, cx.div(dy, by))])
}

pub(crate) fn elu(cx: &mut RuleContext<'_>) -> Found {
    let alpha: f32 = cx.attribute("alpha")?;
    quotient(cx, alpha.into())
}

pub(crate) fn celu(cx: &mut RuleContext<'_>) -> Found {
    quotient(cx, 1.0)
}

pub(crate) fn selu(cx: &mut RuleContext<'_>) -> Found {
    let limit = cx.attribute::<f32>("alpha")? * cx.attribute::<f32>("gamma")?;
    quotient(cx, limit.into())
}

/// `Clip` around 0, and `Tanh`: x itself close to 0.
pub(crate) fn bounded(cx: &mut RuleContext<'_>) -> Found {
    quotient(cx, 1.0)
}

/// Gates that are closed around 0.
pub(crate) fn vanishing(cx: &mut RuleContext<'_>) -> Found {
    quotient(cx, 0.0)
}

/// `Pow` with a whole exponent: x^(e-1).
pub(crate) fn power(cx: &mut RuleContext<'_>) -> Found {
    let (x, exponent) = (cx.operand(0)?, cx.operand(1)?);
    let found = scalar(cx.graph, exponent);
    let exponent =
        found.ok_or_else(|| Reason::NotConstant(cx.graph.value_name(exponent).to_owned()))?;
    let less = cx.number(x, exponent - 1.0);
    let gate = cx.op("Pow", &[x.into(), less]);
    cx.scaled_by(gate)
}

/// `LRN`: x times a power of the sum of its neighbours' squares, `bias^-beta` where all are 0.
pub(crate) fn scaled_by_neighbours(cx: &mut RuleContext<'_>) -> Found {
    let bias = f64::from(cx.attribute::<f32>("bias")?);
    let beta = f64::from(cx.attribute::<f32>("beta")?);
    quotient(cx, bias.powf(-beta))
}

/// f(x) / x, with its limit where x is 0.
fn quotient(cx: &mut RuleContext<'_>, limit: f64) -> Found {
    let (x, y) = (cx.operand(0)?, cx.y());
    let [tiny, one, limit] = [NEAR_ZERO, 1.0, limit].map(|n| cx.number(x, n));
    let size = cx.op("Abs", &[x.into()]);
    let vanishes = cx.op("Less", &[size, tiny]);
    let safe = cx.op("Where", &[vanishes, one, x.into()]);
    let ratio = cx.div(y.into(), safe);
    let gate = cx.op("Where", &[vanishes, limit, ratio]);
    cx.scaled_by(gate)
}
