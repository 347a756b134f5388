//! Attention.
//!
//! ```text
//! y = softmax (cap tanh (scale q k^T / cap), masked) v        per head
//! ```
//!
//! Query heads that share a head of keys are the rows of one product.

use super::context::malformed;
use super::products::product;
use super::reductions::softmax_of;
use super::{Outputs, Reason, RuleContext, Table};
use crate::expr::{Formula, TensorId, Type};
use crate::program::vars;

pub(super) const RULES: Table = &[("Attention", attention)];

/// Operands of a cache, and lengths of what it holds.
const CACHED: [u32; 3] = [4, 5, 6];

/// Outputs for a cache, and the scores.
const OTHERS: [u32; 3] = [1, 2, 3];

/// The range of positions that queries attend to, if limited.
const WINDOW: [&str; 2] = ["left_window_size", "right_window_size"];

/// How a tensor holds its heads.
struct Heads {
    /// A view whose axes are those below.
    tensor: TensorId,
    batch: u64,
    count: u64,
    positions: u64,
    channels: u64,
    /// Places of the axes: batch and heads of keys; heads that share these, and positions; channels.
    axes: [Vec<usize>; 3],
}

impl Heads {
    /// Of a tensor whose heads share `groups` heads of keys; the groups are its own where none are given.
    fn of(
        cx: &mut RuleContext<'_>,
        slot: u32,
        attribute: &str,
        groups: Option<u64>,
    ) -> Result<Self, Reason> {
        let x = cx.operand(slot)?;
        let dims = cx.dims(x);
        let (batch, count, positions, channels, packed) = match dims[..] {
            [batch, heads, positions, channels] => (batch, heads, positions, channels, false),
            [batch, positions, all] => {
                let heads: u64 = cx.given::<i64>(attribute).map_or(0, |n| n.max(0) as u64);
                if heads == 0 || all % heads != 0 {
                    return malformed(format!("attribute `{attribute}`"));
                }
                (batch, heads, positions, all / heads, true)
            }
            _ => return malformed("an operand has neither 3 nor 4 axes"),
        };
        let groups = groups.unwrap_or(count);
        if groups == 0 || count % groups != 0 {
            return malformed("heads of queries do not share those of keys evenly");
        }
        let heads = [groups, count / groups];
        let (view, axes) = match packed {
            true => (
                [&[batch, positions], &heads[..], &[channels]].concat(),
                [vec![0, 2], vec![3, 1], vec![4]],
            ),
            false => (
                [&[batch], &heads[..], &[positions, channels]].concat(),
                [vec![0, 1], vec![2, 3], vec![4]],
            ),
        };
        Ok(Heads {
            tensor: cx.program.view(x, &view),
            batch,
            count,
            positions,
            channels,
            axes,
        })
    }
}

fn attention(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    if CACHED.iter().any(|&slot| cx.optional(slot).is_some()) {
        return Err(Reason::Form("Attention with a cache"));
    }
    let windowed = |side: &str| cx.given::<i64>(side).is_some_and(|size| size >= 0);
    if WINDOW.into_iter().any(windowed) {
        return Err(Reason::Form("Attention with a window"));
    }
    if OTHERS.iter().any(|&slot| cx.is_used(slot)) {
        return Err(Reason::Form("outputs of Attention other than the first"));
    }
    let keys = Heads::of(cx, 1, "kv_num_heads", None)?;
    let groups = Some(keys.count);
    let queries = Heads::of(cx, 0, "q_num_heads", groups)?;
    let values = Heads::of(cx, 2, "kv_num_heads", groups)?;
    if values.count != keys.count
        || values.positions != keys.positions
        || queries.channels != keys.channels
        || [queries.batch, values.batch] != [keys.batch; 2]
    {
        return malformed("queries, keys and values do not fit");
    }
    let [batch, own, channels] = queries.axes;
    let scores = product(
        cx,
        (queries.tensor, [batch, own, channels]),
        (keys.tensor, keys.axes),
    );
    let full = [keys.batch, queries.count, queries.positions, keys.positions];
    let scores = cx.program.view(scores, &full);
    let scores = scored(cx, scores, queries.channels)?;
    let weights = softmax_of(cx, &full, &[3], scores, false);
    let shares = queries.count / keys.count;
    let rows = [
        keys.batch,
        keys.count,
        shares,
        queries.positions,
        keys.positions,
    ];
    let weights = cx.program.view(weights, &rows);
    // The heads of values share nothing, so their second group of axes is the positions.
    let [batch, own, channels] = values.axes;
    let found = product(
        cx,
        (weights, [vec![0, 1], vec![2, 3], vec![4]]),
        (values.tensor, [batch, channels, own]),
    );
    let heads = [
        keys.batch,
        queries.count,
        queries.positions,
        values.channels,
    ];
    let found = cx.program.view(found, &heads);
    if cx.dims(cx.operand(0)?).len() == 4 {
        return Ok(vec![Some(found)]);
    }
    let [batch, count, positions, channels] = heads;
    let side_by_side = [batch, positions, count, channels];
    let at = vars(&side_by_side);
    let at = [0, 2, 1, 3].map(|axis| at[axis].clone());
    let element = cx.load(found, at.to_vec());
    let found = cx.map(&side_by_side, element);
    let dims = [batch, positions, count * channels];
    Ok(vec![Some(cx.program.view(found, &dims))])
}

/// Products of queries and keys as the softmax takes them.
fn scored(cx: &mut RuleContext<'_>, products: TensorId, channels: u64) -> Result<Formula, Reason> {
    let full = cx.dims(products);
    let scale = cx.given::<f32>("scale").map(f64::from);
    let scale = scale.unwrap_or(1.0 / (channels as f64).sqrt());
    let mut scores = cx.element(products) * scale;
    let cap = f64::from(cx.attribute::<f32>("softcap")?);
    if cap != 0.0 {
        scores = (scores / cap).tanh() * cap;
    }
    let lowest = scores.like(match scores.ty() {
        Type::F64 => f64::MIN,
        _ => f32::MIN.into(),
    });
    if cx.attribute("is_causal")? {
        let at = vars(&full);
        let [query, key] = [2, 3].map(|axis| Formula::position(at[axis].clone()));
        scores = key.at_most(query).select(scores, lowest.clone());
    }
    if let Some(mask) = cx.optional(3) {
        let own = cx.dims(mask);
        let ends = full.iter().rev().zip(own.iter().rev());
        if own.len() > 4 || ends.into_iter().any(|(full, own)| *own != 1 && own != full) {
            return Err(Reason::Form(
                "Attention whose mask is shorter than the keys",
            ));
        }
        let mask = cx.program.broadcast(mask, &full);
        scores = match mask.ty() {
            Type::Bool => mask.select(scores, lowest),
            _ => scores + mask,
        };
    }
    Ok(scores)
}
