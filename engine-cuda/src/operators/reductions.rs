//! Sums and extrema along axes.

use super::context::malformed;
use super::{Outputs, Reason, RuleContext, Table};
use crate::expr::{Fold, Formula, Index, TensorId, Type, flat};
use crate::program::{Def, vars};

pub(super) const RULES: Table = &[
    ("ArgMax", |cx| arg(cx, Fold::Max)),
    ("ArgMin", |cx| arg(cx, Fold::Min)),
    ("GlobalAveragePool", |cx| global(cx, Fold::Sum)),
    ("GlobalMaxPool", |cx| global(cx, Fold::Max)),
    ("Hardmax", hardmax),
    ("LogSoftmax", |cx| softmax(cx, true)),
    ("ReduceL1", |cx| {
        reduce(cx, Fold::Sum, |x| x.abs(), |y, _| y)
    }),
    ("ReduceL2", |cx| {
        reduce(cx, Fold::Sum, |x| x.square(), |y, _| y.sqrt())
    }),
    ("ReduceLogSum", |cx| {
        reduce(cx, Fold::Sum, |x| x, |y, _| y.log())
    }),
    ("ReduceLogSumExp", log_sum_exp),
    ("ReduceMax", |cx| reduce(cx, Fold::Max, |x| x, |y, _| y)),
    ("ReduceMean", |cx| {
        reduce(cx, Fold::Sum, |x| x, |y, count| y / count)
    }),
    ("ReduceMin", |cx| reduce(cx, Fold::Min, |x| x, |y, _| y)),
    ("ReduceProd", |cx| {
        reduce(cx, Fold::Product, |x| x, |y, _| y)
    }),
    ("ReduceSum", |cx| reduce(cx, Fold::Sum, |x| x, |y, _| y)),
    ("ReduceSumSquare", |cx| {
        reduce(cx, Fold::Sum, |x| x.square(), |y, _| y)
    }),
    ("Softmax", |cx| softmax(cx, false)),
];

impl RuleContext<'_> {
    /// A reduction of an expression over axes of `full`, which stay with size 1.
    pub(super) fn reduced(
        &mut self,
        fold: Fold,
        full: &[u64],
        axes: &[usize],
        body: Formula,
    ) -> TensorId {
        let name = self.name.clone();
        self.program.reduce(&name, fold, full, axes, body)
    }

    /// The mean of an expression over axes, which stay with size 1.
    pub(super) fn mean(&mut self, full: &[u64], axes: &[usize], body: Formula) -> TensorId {
        let count: u64 = axes.iter().map(|&axis| full[axis]).product();
        let sum = self.reduced(Fold::Sum, full, axes, body);
        let (dims, element) = (self.dims(sum), self.element(sum));
        self.map(&dims, element / count as f64)
    }
}

/// The axes of a reduction; none at all where that is what they mean.
fn axes(cx: &RuleContext<'_>, x: TensorId) -> Result<Vec<usize>, Reason> {
    let given = match cx.op.get::<&[i64]>("axes") {
        Some(axes) => !axes.is_empty(),
        None => cx.optional_ints(1)?.is_some_and(|axes| !axes.is_empty()),
    };
    if !given && cx.given("noop_with_empty_axes").unwrap_or(false) {
        return Ok(Vec::new());
    }
    cx.axes(x, 1)
}

fn reduce(
    cx: &mut RuleContext<'_>,
    fold: Fold,
    before: fn(Formula) -> Formula,
    after: fn(Formula, f64) -> Formula,
) -> Result<Outputs, Reason> {
    let x = cx.operand(0)?;
    let axes = axes(cx, x)?;
    let (full, element) = (cx.dims(x), cx.element(x));
    let count: u64 = axes.iter().map(|&axis| full[axis]).product();
    let reduced = cx.reduced(fold, &full, &axes, before(element));
    finish(cx, reduced, |y| after(y, count as f64))
}

/// A function of a reduction, in the shape of the output.
fn finish(
    cx: &mut RuleContext<'_>,
    reduced: TensorId,
    after: impl FnOnce(Formula) -> Formula,
) -> Result<Outputs, Reason> {
    let (kept, element) = (cx.dims(reduced), cx.element(reduced));
    let done = after(element.clone());
    let done = match done == element {
        true => reduced,
        false => cx.map(&kept, done),
    };
    let keeps: bool = cx.given("keepdims").unwrap_or(true);
    let dims = match (cx.result(), &cx.program.tensor(reduced).def) {
        (Ok(dims), _) => dims,
        (Err(_), Def::Reduce { axes, .. }) if !keeps => {
            let left = (0..kept.len()).filter(|axis| !axes.contains(axis));
            left.map(|axis| kept[axis]).collect()
        }
        (Err(_), _) => kept,
    };
    Ok(vec![Some(cx.program.view(done, &dims))])
}

fn global(cx: &mut RuleContext<'_>, fold: Fold) -> Result<Outputs, Reason> {
    let x = cx.operand(0)?;
    let full = cx.dims(x);
    let axes: Vec<usize> = (2..full.len()).collect();
    let element = cx.element(x);
    let count: u64 = full.iter().skip(2).product();
    let reduced = cx.reduced(fold, &full, &axes, element);
    finish(cx, reduced, |y| match fold {
        Fold::Sum => y / count as f64,
        _ => y,
    })
}

fn log_sum_exp(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let x = cx.operand(0)?;
    let axes = axes(cx, x)?;
    let (full, element) = (cx.dims(x), cx.element(x));
    let largest = cx.reduced(Fold::Max, &full, &axes, element.clone());
    let above = element - cx.program.broadcast(largest, &full);
    let sum = cx.reduced(Fold::Sum, &full, &axes, above.exp());
    let largest = cx.element(largest);
    finish(cx, sum, |y| y.log() + largest)
}

/// The axes that a softmax or hardmax runs along: before opset 13, its axis and all behind it.
fn axes_of_softmax(cx: &RuleContext<'_>, x: TensorId) -> Result<Vec<usize>, Reason> {
    let axis = cx.axis(x)?;
    Ok(match cx.opset < 13 {
        true => (axis..cx.dims(x).len()).collect(),
        false => vec![axis],
    })
}

/// `exp(x - max) / sum`, or its logarithm.
fn softmax(cx: &mut RuleContext<'_>, logarithm: bool) -> Result<Outputs, Reason> {
    let x = cx.operand(0)?;
    let full = cx.dims(x);
    let axes = axes_of_softmax(cx, x)?;
    let element = cx.element(x);
    let y = softmax_of(cx, &full, &axes, element, logarithm);
    Ok(vec![Some(y)])
}

/// The softmax of an expression along axes.
pub(super) fn softmax_of(
    cx: &mut RuleContext<'_>,
    full: &[u64],
    axes: &[usize],
    element: Formula,
    logarithm: bool,
) -> TensorId {
    let largest = cx.reduced(Fold::Max, full, axes, element.clone());
    let above = element - cx.program.broadcast(largest, full);
    let sum = cx.reduced(Fold::Sum, full, axes, above.clone().exp());
    let sum = cx.program.broadcast(sum, full);
    let y = match logarithm {
        true => above - sum.log(),
        false => above.exp() / sum,
    };
    cx.map(full, y)
}

/// 1 at the first place of the maximum, 0 elsewhere.
fn hardmax(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let x = cx.operand(0)?;
    let full = cx.dims(x);
    let axes = axes_of_softmax(cx, x)?;
    let element = cx.element(x);
    let best = cx.reduced(Fold::Max, &full, &axes, element.clone());
    let best = cx.program.broadcast(best, &full);
    let at = vars(&full);
    let along: Vec<Index> = axes.iter().map(|&axis| at[axis].clone()).collect();
    let sizes: Vec<u64> = axes.iter().map(|&axis| full[axis]).collect();
    let here = Formula::position(flat(&along, &sizes));
    let none = here.like(sizes.iter().product::<u64>() as f64);
    let body = element.clone().equals(best).select(here.clone(), none);
    let first = cx.reduced(Fold::Min, &full, &axes, body);
    let first = cx.program.broadcast(first, &full);
    let (one, zero) = (element.like(1.0), element.like(0.0));
    cx.output(&full, here.equals(first).select(one, zero))
}

/// The first or last place of the extremum.
fn arg(cx: &mut RuleContext<'_>, fold: Fold) -> Result<Outputs, Reason> {
    let x = cx.operand(0)?;
    let full = cx.dims(x);
    let axis = cx.axis(x)?;
    if full.is_empty() || full[axis] == 0 {
        return malformed("there is nothing to choose from");
    }
    let size = full[axis] as f64;
    let last: bool = cx.given("select_last_index").unwrap_or(false);
    let element = cx.element(x);
    let best = cx.reduced(fold, &full, &[axis], element.clone());
    let best = cx.program.broadcast(best, &full);
    let here = Formula::position(vars(&full)[axis].clone()).cast(Type::I64);
    let (choice, otherwise) = match last {
        true => (Fold::Max, -1.0),
        false => (Fold::Min, size),
    };
    let none = here.like(otherwise);
    let body = element.equals(best).select(here, none);
    let found = cx.reduced(choice, &full, &[axis], body);
    // A NaN equals nothing.
    finish(cx, found, |y| y.clamp(0.0, size - 1.0))
}
