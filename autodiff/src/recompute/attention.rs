//! The weights of `Attention`: the operator does not give them.
//!
//! ```text
//! P = softmax (scale q k^T, masked), per head
//! ```
//!
//! Query heads that share a head of values lie one after the other, so that their rows together are the rows of
//! one product.

use bcosc_ir::{Attribute, DataType, Dim, Operand, Value};

use crate::context::RuleContext;
use bcosc_passes::Reason;

/// Operands of a cache, and lengths of what it holds.
const CACHED: [u32; 3] = [4, 5, 6];

/// The range of positions that queries attend to, if limited.
const WINDOW: [&str; 2] = ["left_window_size", "right_window_size"];

/// How a value holds its heads.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    pub count: i64,
    pub channels: i64,
    /// Side by side as channels of one matrix, and not on an axis of their own.
    packed: bool,
}

impl Heads {
    pub fn of(cx: &RuleContext<'_>, value: Value, attribute: &str) -> Result<Self, Reason> {
        let open = || Reason::UnknownShape(cx.graph.value_name(value).to_owned());
        let dims = cx.dims(value)?;
        let known = |axis: usize| {
            let size = dims.get(axis).and_then(Dim::known).filter(|&size| size > 0);
            size.map(|size| size as i64).ok_or_else(open)
        };
        match dims.len() {
            4 => Ok(Heads {
                count: known(1)?,
                channels: known(3)?,
                packed: false,
            }),
            3 => {
                let count = cx.op.get(attribute).unwrap_or(0);
                if count <= 0 {
                    return Err(Reason::Malformed);
                }
                Ok(Heads {
                    count,
                    channels: known(2)? / count,
                    packed: true,
                })
            }
            _ => Err(Reason::Malformed),
        }
    }

    /// The axis of positions.
    pub fn positions(self) -> usize {
        if self.packed { 1 } else { 2 }
    }

    /// `[batch, heads, positions, channels]`.
    pub fn apart(self, cx: &mut RuleContext<'_>, x: Operand) -> Operand {
        if !self.packed {
            return x;
        }
        let x = cx.reshape(x, &[0, 0, self.count, -1]);
        cx.transpose(x, &[0, 2, 1, 3])
    }

    pub fn together(self, cx: &mut RuleContext<'_>, x: Operand) -> Operand {
        if !self.packed {
            return x;
        }
        let x = cx.transpose(x, &[0, 2, 1, 3]);
        cx.reshape(x, &[0, 0, -1])
    }
}

/// `[batch, heads, rows, columns]` with another number of heads.
pub(crate) fn rows(cx: &mut RuleContext<'_>, x: Operand, heads: i64, columns: Operand) -> Operand {
    let front = cx.ints(&[0, heads, -1]);
    let shape = cx.op_with("Concat", &[front, columns], [Attribute::int("axis", 0)]);
    cx.op("Reshape", &[x, shape])
}

/// The heads of an attention, and its weights.
pub(crate) struct Attended {
    pub queries: Heads,
    /// Of keys and values.
    pub keys: Heads,
    /// The number of keys.
    pub length: Operand,
    /// `[batch, query heads, queries, keys]`.
    pub probabilities: Operand,
    /// Queries times the scale, `[batch, key heads, rows, channels]`.
    pub scaled: Operand,
    /// `[batch, key heads, keys, channels]`.
    pub k: Operand,
    pub scale: Operand,
    /// The scores' tanh, where they are capped.
    pub capped: Option<Operand>,
}

impl Attended {
    pub fn of(cx: &mut RuleContext<'_>) -> Result<Self, Reason> {
        let cached = CACHED
            .iter()
            .any(|&slot| cx.graph.input(cx.node, slot).is_some());
        let windowed = WINDOW
            .iter()
            .any(|side| cx.op.get(side).is_some_and(|size: i64| size >= 0));
        if cached {
            return Err(Reason::NoBackwardRuleFor("an Attention with a cache"));
        }
        if windowed {
            return Err(Reason::NoBackwardRuleFor("an Attention with a window"));
        }
        let (q, k) = (cx.operand(0)?, cx.operand(1)?);
        let queries = Heads::of(cx, q, "q_num_heads")?;
        let keys = Heads::of(cx, k, "kv_num_heads")?;
        weights(cx, q, k, [queries, keys])
    }

    /// `[batch, query heads, ...]` with the rows of query heads that share a head of values together.
    pub fn shared(&self, cx: &mut RuleContext<'_>, x: Operand, columns: Operand) -> Operand {
        match self.is_shared() {
            true => rows(cx, x, self.keys.count, columns),
            false => x,
        }
    }

    /// The inverse of [`Attended::shared`].
    pub fn split(&self, cx: &mut RuleContext<'_>, x: Operand, columns: Operand) -> Operand {
        match self.is_shared() {
            true => rows(cx, x, self.queries.count, columns),
            false => x,
        }
    }

    /// Whether query heads share heads of values.
    pub fn is_shared(&self) -> bool {
        self.queries.count != self.keys.count
    }
}

/// Softmax of products of queries and keys, as the operator computes it.
fn weights(
    cx: &mut RuleContext<'_>,
    q: Value,
    k: Value,
    [queries, keys]: [Heads; 2],
) -> Result<Attended, Reason> {
    let mut rows_of_q = queries.apart(cx, q.into());
    if queries.count != keys.count {
        let channels = cx.ints(&[queries.channels]);
        rows_of_q = rows(cx, rows_of_q, keys.count, channels);
    }
    let k4 = keys.apart(cx, k.into());
    let turned = cx.transpose(k4, &[0, 1, 3, 2]);
    let scale = match cx.op.get::<f32>("scale") {
        Some(scale) => scale.into(),
        None => 1.0 / (queries.channels as f64).sqrt(),
    };
    let scale = cx.number(q, scale);
    let scaled = cx.mul(rows_of_q, scale);
    let mut scores = cx.op("MatMul", &[scaled, turned]);
    let length = cx.size(k, keys.positions());
    if queries.count != keys.count {
        scores = rows(cx, scores, queries.count, length);
    }
    let cap = f64::from(cx.attribute::<f32>("softcap")?);
    let mut capped = None;
    if cap != 0.0 {
        let cap = cx.number(q, cap);
        let parts = cx.div(scores, cap);
        let soft = cx.op("Tanh", &[parts]);
        scores = cx.mul(soft, cap);
        capped = Some(soft);
    }
    let low = cx.lowest(q);
    if cx.attribute("is_causal")? {
        let size = cx.size(q, queries.positions());
        let shape = cx.op_with("Concat", &[size, length], [Attribute::int("axis", 0)]);
        let one = cx.number(q, 1.0);
        let ones = cx.op("Expand", &[one, shape]);
        let seen = cx.op_with("Trilu", &[ones], [Attribute::int("upper", 0)]);
        let seen = cx.cast(seen, DataType::Bool);
        scores = cx.op("Where", &[seen, scores, low]);
    }
    if let Some(mask) = cx.graph.input(cx.node, 3) {
        scores = match cx.dtype(mask) {
            DataType::Bool => cx.op("Where", &[mask.into(), scores, low]),
            _ => cx.op("Add", &[scores, mask.into()]),
        };
    }
    let last = Attribute::int("axis", -1);
    Ok(Attended {
        queries,
        keys,
        length,
        probabilities: cx.op_with("Softmax", &[scores], [last]),
        scaled,
        k: k4,
        scale,
        capped,
    })
}
