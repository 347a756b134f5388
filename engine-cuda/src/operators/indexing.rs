//! Indices that are computed: gathers, and scatters as sums over what is scattered.
//!
//! A scatter is written from the point of view of its result, so that two runs give the same bits:
//!
//! ```text
//! y[p] = x[p] + sum over j of u[j] where i[j] = p        add
//! y[p] = u[last j where i[j] = p], or x[p]               none
//! ```

use super::context::malformed;
use super::{Outputs, Reason, RuleContext, Table};
use crate::expr::{Atom, Expr, Fold, Formula, Index, TensorId, Type};
use crate::program::vars;

pub(super) const RULES: Table = &[
    ("CumSum", cumulative_sum),
    ("Gather", gather),
    ("GatherElements", gather_elements),
    ("GatherND", gather_nd),
    ("OneHot", one_hot),
    ("ReverseSequence", reverse),
    ("ScatterElements", scatter_elements),
    ("ScatterND", scatter_nd),
    ("TopK", top),
];

/// A computed index of an axis, counted from the end where it is negative. Indices outside of the axis, which the
/// standard forbids, are brought back to it.
fn place(index: Formula, size: u64) -> Index {
    let size = size as i64;
    if let Some(number) = index.0.as_number() {
        let number = number.as_i64();
        let number = if number < 0 { number + size } else { number };
        return Index::number(number.clamp(0, (size - 1).max(0)));
    }
    let found = normal(index, size).clamp(0.0, (size - 1).max(0) as f64);
    Atom::Value(found.0, size).into()
}

/// A computed index counted from the front.
fn normal(index: Formula, size: i64) -> Formula {
    let index = index.cast(Type::I64);
    if let Expr::Position(_) = &*index.0 {
        return index;
    }
    let zero = index.like(0.0);
    index
        .clone()
        .less(zero)
        .select(index.clone() + size as f64, index)
}

fn gather(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let (x, indices) = (cx.operand(0)?, cx.operand(1)?);
    let axis = cx.axis(x)?;
    let (own, along) = (cx.dims(x), cx.dims(indices));
    let dims = [&own[..axis], &along[..], &own[axis + 1..]].concat();
    let at = vars(&dims);
    let index = cx.load(indices, at[axis..axis + along.len()].to_vec());
    let found = place(index, own[axis]);
    let at = [&at[..axis], &[found], &at[axis + along.len()..]].concat();
    let element = cx.load(x, at);
    cx.output(&dims, element)
}

fn gather_elements(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let (x, indices) = (cx.operand(0)?, cx.operand(1)?);
    let axis = cx.axis(x)?;
    let dims = cx.dims(indices);
    let mut at = vars(&dims);
    at[axis] = place(cx.element(indices), cx.dims(x)[axis]);
    let element = cx.load(x, at);
    cx.output(&dims, element)
}

fn gather_nd(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let (x, indices) = (cx.operand(0)?, cx.operand(1)?);
    let batch: usize = cx.attribute("batch_dims")?;
    let (own, along) = (cx.dims(x), cx.dims(indices));
    let Some((&depth, lead)) = along.split_last() else {
        return malformed("indices have no axes");
    };
    let depth = depth as usize;
    if batch > lead.len() || batch + depth > own.len() {
        return malformed("indices have more axes than there are");
    }
    let dims = [lead, &own[batch + depth..]].concat();
    let to = vars(&dims);
    let mut at = to[..batch].to_vec();
    for n in 0..depth {
        let row = [&to[..lead.len()], &[Index::number(n as i64)]].concat();
        at.push(place(cx.load(indices, row), own[batch + n]));
    }
    at.extend_from_slice(&to[lead.len()..]);
    let element = cx.load(x, at);
    cx.output(&dims, element)
}

/// `y[t, n] = x[length[n] - 1 - t, n]` where that is not negative, otherwise `x[t, n]`.
fn reverse(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let (x, lengths) = (cx.operand(0)?, cx.operand(1)?);
    let dims = cx.dims(x);
    let [batch, time] = ["batch_axis", "time_axis"].map(|name| {
        let axis = cx.attribute(name)?;
        cx.axis_of(axis, dims.len())
    });
    let (batch, time) = (batch?, time?);
    let mut at = vars(&dims);
    let here = Formula::position(at[time].clone());
    let length = cx.load(lengths, vec![at[batch].clone()]).cast(Type::I64);
    let back = length - 1.0 - here.clone();
    let from = back.like(0.0).at_most(back.clone()).select(back, here);
    at[time] = place(from, dims[time]);
    let element = cx.load(x, at);
    cx.output(&dims, element)
}

fn one_hot(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let (indices, values) = (cx.operand(0)?, cx.operand(2)?);
    let dims = cx.result()?;
    let axis = cx.axis_of(cx.attribute("axis")?, dims.len())?;
    let at = vars(&dims);
    let mut row = at.clone();
    let class = row.remove(axis);
    let index = normal(cx.load(indices, row), dims[axis] as i64);
    let hit = index.equals(Formula::position(class));
    let [off, on] = [0, 1].map(|n| cx.load(values, vec![Index::number(n)]));
    cx.output(&dims, hit.select(on, off))
}

/// How what is scattered meets what is there.
enum Meeting {
    Replaces,
    Combines(Fold),
}

fn meeting(cx: &RuleContext<'_>) -> Result<Meeting, Reason> {
    Ok(match cx.given::<&str>("reduction").unwrap_or("none") {
        "none" => Meeting::Replaces,
        "add" => Meeting::Combines(Fold::Sum),
        "mul" => Meeting::Combines(Fold::Product),
        "max" => Meeting::Combines(Fold::Max),
        "min" => Meeting::Combines(Fold::Min),
        _ => return Err(Reason::Form("this reduction of a scatter")),
    })
}

/// Whether an update meets a place, and which element of the updates it is.
type Hit<'a> = &'a dyn Fn(&mut RuleContext<'_>, &[Index]) -> (Formula, Vec<Index>);

/// The result of a scatter at one place. `loops` are the sizes of what is scattered there; `hit` says of its variables
/// whether this update meets the place, and which element of `updates` it is.
fn scattered(
    cx: &mut RuleContext<'_>,
    updates: TensorId,
    loops: &[i64],
    old: Formula,
    hit: Hit<'_>,
) -> Result<Formula, Reason> {
    Ok(match meeting(cx)? {
        Meeting::Combines(fold) => {
            let sum = cx.fold_over(fold, loops, |cx, at| {
                let (hit, from) = hit(cx, at);
                let update = cx.load(updates, from);
                let neutral = update.like(fold.neutral(update.ty()));
                hit.select(update, neutral)
            });
            old.binary(fold.binary(), sum)
        }
        Meeting::Replaces => {
            let sizes: Vec<u64> = loops.iter().map(|&size| size as u64).collect();
            let total: i64 = loops.iter().product();
            let last = cx.fold_over(Fold::Max, loops, |cx, at| {
                let (hit, _) = hit(cx, at);
                let number = Formula::position(crate::expr::flat(at, &sizes));
                let none = number.like(-1.0);
                hit.select(number.cast(Type::I64), none)
            });
            // Where nothing meets the place, both sides are still evaluated.
            let first = last.clone().max(last.like(0.0));
            let found: Index = Atom::Value(first.0, total.max(1)).into();
            let (_, from) = hit(cx, &crate::expr::unflat(&found, &sizes));
            let update = cx.load(updates, from);
            let none = last.like(0.0);
            last.less(none).select(old, update)
        }
    })
}

fn scatter_elements(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let [x, indices, updates] = [cx.operand(0)?, cx.operand(1)?, cx.operand(2)?];
    let axis = cx.axis(x)?;
    let (dims, along) = (cx.dims(x), cx.dims(indices));
    let at = vars(&dims);
    let old = cx.element(x);
    let hit = |cx: &mut RuleContext<'_>, j: &[Index]| {
        let mut from = at.clone();
        from[axis] = j[0].clone();
        let index = normal(cx.load(indices, from.clone()), dims[axis] as i64);
        let mut hit = index.equals(Formula::position(at[axis].clone()));
        // Elsewhere there may be fewer indices than elements.
        for (n, (&size, index)) in along.iter().zip(&at).enumerate() {
            if n != axis {
                hit = Formula::within(index.clone(), 0, size as i64).and(hit);
            }
        }
        (hit, from)
    };
    let new = scattered(cx, updates, &[along[axis] as i64], old, &hit)?;
    cx.output(&dims, new)
}

fn scatter_nd(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let [x, indices, updates] = [cx.operand(0)?, cx.operand(1)?, cx.operand(2)?];
    let (dims, along) = (cx.dims(x), cx.dims(indices));
    let Some((&depth, lead)) = along.split_last() else {
        return malformed("indices have no axes");
    };
    let depth = depth as usize;
    if depth > dims.len() {
        return malformed("indices have more axes than there are");
    }
    let at = vars(&dims);
    let old = cx.element(x);
    let hit = |cx: &mut RuleContext<'_>, j: &[Index]| {
        let mut hit = Formula::number(Type::Bool, 1.0);
        for n in 0..depth {
            let row = [j, &[Index::number(n as i64)]].concat();
            let index = normal(cx.load(indices, row), dims[n] as i64);
            hit = hit.and(index.equals(Formula::position(at[n].clone())));
        }
        (hit, [j, &at[depth..]].concat())
    };
    let loops: Vec<i64> = lead.iter().map(|&size| size as i64).collect();
    let new = scattered(cx, updates, &loops, old, &hit)?;
    cx.output(&dims, new)
}

/// Each element's rank is the number of those before it; the k-th is the one whose rank is k.
fn top(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let x = cx.operand(0)?;
    let axis = cx.axis(x)?;
    let (own, dims) = (cx.dims(x), cx.result()?);
    let size = own[axis] as i64;
    let largest: bool = cx.given("largest").unwrap_or(true);
    let at = vars(&own);
    let element = cx.element(x);
    let rank = cx.fold_over(Fold::Sum, &[size], |cx, j| {
        let mut other = at.clone();
        other[axis] = j[0].clone();
        let other = cx.load(x, other);
        let (low, high) = match largest {
            true => (element.clone(), other.clone()),
            false => (other.clone(), element.clone()),
        };
        let [here, there] = [&at[axis], &j[0]].map(|i| Formula::position(i.clone()));
        let tied = other.equals(element.clone()).and(there.less(here));
        low.less(high).or(tied).cast(Type::I64)
    });
    let rank = cx.map(&own, rank);
    let to = vars(&dims);
    let chosen = cx.fold_over(Fold::Sum, &[size], |cx, j| {
        let mut from = to.clone();
        from[axis] = j[0].clone();
        let hit = cx
            .load(rank, from)
            .equals(Formula::position(to[axis].clone()));
        let number = Formula::position(j[0].clone()).cast(Type::I64);
        let none = number.like(0.0);
        hit.select(number, none)
    });
    let indices = cx.map(&dims, chosen);
    let mut from = to.clone();
    // NaN has no rank.
    from[axis] = place(cx.element(indices), own[axis]);
    let element = cx.load(x, from);
    let values = cx.map(&dims, element);
    Ok(vec![Some(values), Some(indices)])
}

fn cumulative_sum(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let x = cx.operand(0)?;
    let dims = cx.dims(x);
    let axis = cx.ints(1)?.first().copied().unwrap_or(0);
    let axis = cx.axis_of(axis, dims.len())?;
    let (exclusive, reverse): (bool, bool) = (cx.attribute("exclusive")?, cx.attribute("reverse")?);
    let at = vars(&dims);
    let sum = cx.fold_over(Fold::Sum, &[dims[axis] as i64], |cx, j| {
        let mut from = at.clone();
        from[axis] = j[0].clone();
        let element = cx.load(x, from);
        let ahead = at[axis]
            .plus(&j[0].times(-1))
            .times(if reverse { -1 } else { 1 });
        let counts = Formula::within(ahead, i64::from(exclusive), i64::MAX);
        let zero = element.like(0.0);
        counts.select(element, zero)
    });
    cx.output(&dims, sum)
}
