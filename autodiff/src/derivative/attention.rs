//! `Attention`: queries, keys, values and a mask that is added.
//!
//! ```text
//! y = P v              s_v = P^T s_y
//! P = softmax (a)      s_a = P (s_P - sum(s_P P)), s_P = s_y v^T      with a cap c: times 1 - tanh^2
//! a = scale q k^T + m  s_q = scale s_a k     s_k = scale s_a^T q      s_m = s_a
//! ```
//!
//! per head. As the weights, `s_a` is `[batch, query heads, queries, keys]`; products are over the rows of query heads that
//! share a head of keys.

use bcosc_ir::views::AxesOp;
use bcosc_ir::{Dim, Operand};

use crate::context::{Found, RuleContext};
use crate::recompute::attention::{Attended, Heads};
use bcosc_passes::Reason;

const Q: u32 = 0;
const K: u32 = 1;
const V: u32 = 2;
const MASK: u32 = 3;

pub(crate) fn attention(cx: &mut RuleContext<'_>) -> Found {
    let (dy, v) = (cx.dy()?, cx.operand(V)?);
    let attended = Attended::of(cx)?;
    let values = Heads::of(cx, v, "kv_num_heads")?;
    let dy = attended.queries.apart(cx, dy);
    let channels = cx.ints(&[values.channels]);
    let dy = attended.shared(cx, dy, channels);
    let mut found = Vec::new();
    if cx.wants(V) {
        let probabilities = attended.shared(cx, attended.probabilities, attended.length);
        let turned = cx.transpose(probabilities, &[0, 1, 3, 2]);
        let part = cx.op("MatMul", &[turned, dy]);
        found.push((V, attended.keys.together(cx, part)));
    }
    if ![Q, K, MASK].iter().any(|&slot| cx.wants(slot)) {
        return Ok(found);
    }
    let mut scores = scores(cx, &attended, dy, values)?;
    if let Some(mask) = cx.graph.input(cx.node, MASK).filter(|_| cx.wants(MASK)) {
        let dims = score_dims(cx, &attended)?;
        let narrow = cx.dims(mask)?;
        found.push((MASK, cx.unbroadcast_from(scores, &dims, &narrow)?));
    }
    if let Some(tanh) = attended.capped {
        let one = cx.number(v, 1.0);
        let square = cx.mul(tanh, tanh);
        let slope = cx.sub(one, square);
        scores = cx.mul(scores, slope);
    }
    let scores = attended.shared(cx, scores, attended.length);
    if cx.wants(Q) {
        let part = cx.op("MatMul", &[scores, attended.k]);
        let part = cx.mul(part, attended.scale);
        let channels = cx.ints(&[attended.queries.channels]);
        let part = attended.split(cx, part, channels);
        found.push((Q, attended.queries.together(cx, part)));
    }
    if cx.wants(K) {
        let turned = cx.transpose(scores, &[0, 1, 3, 2]);
        let part = cx.op("MatMul", &[turned, attended.scaled]);
        found.push((K, attended.keys.together(cx, part)));
    }
    Ok(found)
}

/// The cotangent of what softmax is taken of.
fn scores(
    cx: &mut RuleContext<'_>,
    attended: &Attended,
    dy: Operand,
    values: Heads,
) -> Result<Operand, Reason> {
    let v = cx.operand(V)?;
    let v = values.apart(cx, v.into());
    let turned = cx.transpose(v, &[0, 1, 3, 2]);
    let of_weights = cx.op("MatMul", &[dy, turned]);
    let of_weights = attended.split(cx, of_weights, attended.length);
    let product = cx.mul(of_weights, attended.probabilities);
    let sum = cx.reduce(AxesOp::ReduceSum, product, &[-1]);
    let rest = cx.sub(of_weights, sum);
    Ok(cx.mul(attended.probabilities, rest))
}

/// Sizes of the scores.
fn score_dims(cx: &RuleContext<'_>, attended: &Attended) -> Result<Vec<Dim>, Reason> {
    let (q, k) = (cx.dims(cx.operand(Q)?)?, cx.dims(cx.operand(K)?)?);
    let of = |dims: &[Dim], axis: usize| dims.get(axis).cloned().ok_or(Reason::Malformed);
    Ok(vec![
        of(&q, 0)?,
        Dim::Known(attended.queries.count as u64),
        of(&q, attended.queries.positions())?,
        of(&k, attended.keys.positions())?,
    ])
}
