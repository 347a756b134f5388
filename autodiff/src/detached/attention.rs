//! `Attention`: linear in its values, softmax held fixed.
//!
//! ```text
//! y = P v,  P = softmax (scale q k^T, masked)      s_v = P^T s_y, per head
//! ```
//!
//! P is computed again: the operator does not give it. Query heads that share a head of values lie one
//! after the other, so that their rows together are the rows of one product.

use bcosc_ir::{Attribute, DataType, Dim, Operand, Value};

use super::pool::lowest;
use super::step::{Found, Step};
use bcosc_passes::Reason;

/// Operands of a cache, and lengths of what it holds.
const CACHED: [u32; 3] = [4, 5, 6];

/// How far queries see, where that is not everything.
const WINDOW: [&str; 2] = ["left_window_size", "right_window_size"];

pub(super) fn attention(step: &mut Step<'_>) -> Found {
    let cached = CACHED
        .iter()
        .any(|&slot| step.graph.input(step.node, slot).is_some());
    let windowed = WINDOW.iter().any(|side| step.op.int(side, -1) >= 0);
    if cached || windowed || step.op.float("softcap", 0.0) != 0.0 {
        return Err(Reason::NoDerivative);
    }
    let (dy, v) = (step.dy()?, step.operand(2)?);
    let (q, k) = (step.operand(0)?, step.operand(1)?);
    let heads = [
        Heads::of(step, q, "q_num_heads")?,
        Heads::of(step, k, "kv_num_heads")?,
    ];
    let probabilities = probabilities(step, q, k, heads)?;
    let [queries, values] = heads;
    let shared =
        |step: &mut Step<'_>, x: Operand, columns: Operand| rows(step, x, values.count, columns);
    let lengths = step.size(k, values.positions());
    let probabilities = match queries.count == values.count {
        true => probabilities,
        false => shared(step, probabilities, lengths),
    };
    let mut dy = queries.apart(step, dy);
    if queries.count != values.count {
        let channels = Heads::of(step, v, "kv_num_heads")?.channels;
        let channels = step.ints(&[channels]);
        dy = shared(step, dy, channels);
    }
    let turned = step.transpose(probabilities, &[0, 1, 3, 2]);
    let found = step.op("MatMul", &[turned, dy]);
    Ok(vec![(2, values.together(step, found))])
}

/// How a value holds its heads.
#[derive(Clone, Copy)]
struct Heads {
    count: i64,
    channels: i64,
    /// Side by side as channels of one matrix, and not on an axis of their own.
    packed: bool,
}

impl Heads {
    fn of(step: &Step<'_>, value: Value, attribute: &str) -> Result<Self, Reason> {
        let open = || Reason::UnknownShape(step.graph.value_name(value).to_owned());
        let dims = step.dims(value)?;
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
                let count = step.op.int(attribute, 0);
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
    fn positions(self) -> usize {
        if self.packed { 1 } else { 2 }
    }

    /// `[batch, heads, positions, channels]`.
    fn apart(self, step: &mut Step<'_>, x: Operand) -> Operand {
        if !self.packed {
            return x;
        }
        let x = step.reshape(x, &[0, 0, self.count, -1]);
        step.transpose(x, &[0, 2, 1, 3])
    }

    fn together(self, step: &mut Step<'_>, x: Operand) -> Operand {
        if !self.packed {
            return x;
        }
        let x = step.transpose(x, &[0, 2, 1, 3]);
        step.reshape(x, &[0, 0, -1])
    }
}

/// `[batch, heads, rows, columns]` with another number of heads.
fn rows(step: &mut Step<'_>, x: Operand, heads: i64, columns: Operand) -> Operand {
    let front = step.ints(&[0, heads, -1]);
    let shape = step.op_with("Concat", &[front, columns], [Attribute::int("axis", 0)]);
    step.op("Reshape", &[x, shape])
}

/// Softmax of products of queries and keys, as the operator computes it.
fn probabilities(
    step: &mut Step<'_>,
    q: Value,
    k: Value,
    [queries, keys]: [Heads; 2],
) -> Result<Operand, Reason> {
    let dtype = step.dtype(q);
    let mut rows_of_q = queries.apart(step, q.into());
    if queries.count != keys.count {
        let channels = step.ints(&[queries.channels]);
        rows_of_q = rows(step, rows_of_q, keys.count, channels);
    }
    let k4 = keys.apart(step, k.into());
    let turned = step.transpose(k4, &[0, 1, 3, 2]);
    let scale = match step.op.attribute("scale") {
        Some(_) => f64::from(step.op.float("scale", 1.0)),
        None => 1.0 / (queries.channels as f64).sqrt(),
    };
    let scale = step.number(q, scale);
    let scaled = step.mul(rows_of_q, scale);
    let mut scores = step.op("MatMul", &[scaled, turned]);
    let length = step.size(k, keys.positions());
    if queries.count != keys.count {
        scores = rows(step, scores, queries.count, length);
    }
    let low = step.number(q, lowest(dtype));
    if step.op.int("is_causal", 0) != 0 {
        let size = step.size(q, queries.positions());
        let shape = step.op_with("Concat", &[size, length], [Attribute::int("axis", 0)]);
        let one = step.number(q, 1.0);
        let ones = step.op("Expand", &[one, shape]);
        let seen = step.op_with("Trilu", &[ones], [Attribute::int("upper", 0)]);
        let seen = step.cast(seen, DataType::Bool);
        scores = step.op("Where", &[seen, scores, low]);
    }
    if let Some(mask) = step.graph.input(step.node, 3) {
        scores = match step.dtype(mask) {
            DataType::Bool => step.op("Where", &[mask.into(), scores, low]),
            _ => step.op("Add", &[scores, mask.into()]),
        };
    }
    Ok(step.op_with("Softmax", &[scores], [Attribute::int("axis", -1)]))
}
