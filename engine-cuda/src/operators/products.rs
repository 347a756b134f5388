//! Products of matrices, and sums of products by index letters.

use std::collections::BTreeMap;

use super::context::malformed;
use super::factors::factor;
use super::{Outputs, Reason, RuleContext, Table};
use crate::expr::{Fold, Formula, Index, TensorId};
use crate::program::{Call, Factor, Product, vars};

pub(super) const RULES: Table = &[("Einsum", einsum), ("Gemm", gemm), ("MatMul", matmul)];

/// Copies a tensor so that its axes are in this order.
fn moved(cx: &mut RuleContext<'_>, id: TensorId, order: &[usize]) -> TensorId {
    let own = cx.dims(id);
    let dims: Vec<u64> = order.iter().map(|&axis| own[axis]).collect();
    let mut at = vec![Index::default(); own.len()];
    for (index, &axis) in vars(&dims).into_iter().zip(order) {
        at[axis] = index;
    }
    let element = cx.load(id, at);
    cx.map(&dims, element)
}

/// The sum over axes `k` of products, where each operand has groups of axes: those of all products, its own, and k.
/// The result is `[batch, own of a, own of b]`.
pub(super) fn product(
    cx: &mut RuleContext<'_>,
    a: (TensorId, [Vec<usize>; 3]),
    b: (TensorId, [Vec<usize>; 3]),
) -> TensorId {
    let count = |dims: &[u64], axes: &[usize]| axes.iter().map(|&axis| dims[axis]).product::<u64>();
    let (da, db) = (cx.dims(a.0), cx.dims(b.0));
    let [batch_a, own_a, k_a] = &a.1;
    let [batch_b, own_b, k_b] = &b.1;
    let found_a = factor(cx, a.0, [batch_a, own_a, k_a]);
    let found_b = factor(cx, b.0, [batch_b, k_b, own_b]);
    let (m, n, k) = (count(&da, own_a), count(&db, own_b), count(&da, k_a));
    let batch = count(&da, batch_a).max(count(&db, batch_b));
    let (a, fa) = found_a.unwrap_or_else(|| {
        let id = moved(cx, a.0, &[&batch_a[..], own_a, k_a].concat());
        let batch = if count(&da, batch_a) == 1 { 0 } else { m * k };
        (
            id,
            Factor {
                offset: 0,
                batch,
                row: k,
                column: 1,
            },
        )
    });
    let (b, fb) = found_b.unwrap_or_else(|| {
        let id = moved(cx, b.0, &[&batch_b[..], k_b, own_b].concat());
        let batch = if count(&db, batch_b) == 1 { 0 } else { n * k };
        (
            id,
            Factor {
                offset: 0,
                batch,
                row: n,
                column: 1,
            },
        )
    });
    let product = Product {
        batch,
        m,
        n,
        k,
        a: fa,
        b: fb,
    };
    let operands = [a, b];
    cx.call(a, &[batch, m, n], Call::product(product, operands))
}

fn matmul(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let (mut a, mut b) = (cx.operand(0)?, cx.operand(1)?);
    let result = cx.result()?;
    // A vector is a row on the left, and a column on the right.
    if let &[k] = &cx.dims(a)[..] {
        a = cx.program.view(a, &[1, k]);
    }
    if let &[k] = &cx.dims(b)[..] {
        b = cx.program.view(b, &[k, 1]);
    }
    let (mut da, mut db) = (cx.dims(a), cx.dims(b));
    if da.len() < 2 || db.len() < 2 || da[da.len() - 1] != db[db.len() - 2] {
        return malformed("the factors do not fit");
    }
    let lead = |dims: &[u64]| dims[..dims.len() - 2].to_vec();
    let alone = |dims: &[u64]| dims.iter().all(|&size| size == 1);
    let (la, lb) = (lead(&da), lead(&db));
    let found = if alone(&lb) && lb.len() <= la.len() {
        // All rows of the left side meet the same matrix.
        let view = db[db.len() - 2..].to_vec();
        b = cx.program.view(b, &view);
        let rows: Vec<usize> = (0..da.len() - 1).collect();
        product(
            cx,
            (a, [vec![], rows, vec![da.len() - 1]]),
            (b, [vec![], vec![1], vec![0]]),
        )
    } else {
        if la != lb && !alone(&la) {
            // Some axes are shared and others are not: copied until they are not.
            let rank = la.len().max(lb.len());
            let wide = |dims: &[u64]| [&vec![1; rank - dims.len()][..], dims].concat();
            let (wa, wb) = (wide(&la), wide(&lb));
            let full: Vec<u64> = wa.iter().zip(&wb).map(|(&x, &y)| x.max(y)).collect();
            for (id, dims) in [(&mut a, &mut da), (&mut b, &mut db)] {
                let to = [&full[..], &dims[dims.len() - 2..]].concat();
                if *dims != to {
                    let element = cx.program.broadcast(*id, &to);
                    *id = cx.map(&to, element);
                    *dims = to;
                }
            }
        }
        let groups = |dims: &[u64], own: usize, k: usize| {
            let batch = (0..dims.len() - 2).collect();
            [batch, vec![dims.len() - own], vec![dims.len() - k]]
        };
        let (ga, gb) = (groups(&da, 2, 1), groups(&db, 1, 2));
        product(cx, (a, ga), (b, gb))
    };
    Ok(vec![Some(cx.program.view(found, &result))])
}

fn gemm(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let (a, b, result) = (cx.operand(0)?, cx.operand(1)?, cx.result()?);
    let (turned_a, turned_b): (usize, usize) = (cx.attribute("transA")?, cx.attribute("transB")?);
    if cx.dims(a).len() != 2 || cx.dims(b).len() != 2 {
        return malformed("the factors are no matrices");
    }
    let (own_a, own_b) = (turned_a.min(1), 1 - turned_b.min(1));
    let found = product(
        cx,
        (a, [vec![], vec![own_a], vec![1 - own_a]]),
        (b, [vec![], vec![own_b], vec![1 - own_b]]),
    );
    let found = cx.program.view(found, &result);
    let (alpha, beta): (f32, f32) = (cx.attribute("alpha")?, cx.attribute("beta")?);
    let mut y = cx.element(found) * f64::from(alpha);
    if let Some(c) = cx.optional(2) {
        y = y + cx.program.broadcast(c, &result) * f64::from(beta);
    }
    if y == cx.element(found) {
        return Ok(vec![Some(found)]);
    }
    cx.output(&result, y)
}

/// The letters of an equation: those of each operand, and those of the result.
fn letters(equation: &str, ranks: &[usize]) -> Option<(Vec<Vec<char>>, Vec<char>)> {
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left.to_owned(), Some(right.to_owned())),
        None => (equation, None),
    };
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != ranks.len() {
        return None;
    }
    // Axes of an ellipsis get capital Greek letters, the last ones shared.
    let most = terms.iter().zip(ranks);
    let most = most.map(|(term, &rank)| rank.checked_sub(term.replace("...", "").len()));
    let most = most.collect::<Option<Vec<_>>>()?.into_iter().max()?;
    let hidden: Vec<char> = ('\u{391}'..).take(most).collect();
    let spelled = |term: &str, count: usize| -> Vec<char> {
        let Some((before, after)) = term.split_once("...") else {
            return term.chars().collect();
        };
        let shared = hidden[hidden.len() - count..].iter().copied();
        before.chars().chain(shared).chain(after.chars()).collect()
    };
    let mut found = Vec::new();
    for (term, &rank) in terms.iter().zip(ranks) {
        let count = rank.checked_sub(term.replace("...", "").len())?;
        found.push(spelled(term, count));
        if found.last()?.len() != rank {
            return None;
        }
    }
    let result = match right {
        Some(right) => spelled(&right, most),
        None => {
            let mut counts: BTreeMap<char, usize> = BTreeMap::new();
            found
                .iter()
                .flatten()
                .for_each(|&c| *counts.entry(c).or_default() += 1);
            let once = counts
                .iter()
                .filter(|(c, n)| **n == 1 && !hidden.contains(c));
            hidden
                .iter()
                .copied()
                .chain(once.map(|(c, _)| *c))
                .collect()
        }
    };
    Some((found, result))
}

fn einsum(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let operands = cx.operands()?;
    let result = cx.result()?;
    let ranks: Vec<usize> = operands.iter().map(|&id| cx.dims(id).len()).collect();
    let found = letters(cx.attribute("equation")?, &ranks);
    let Some((terms, to)) = found else {
        return malformed("attribute `equation`");
    };
    let mut sizes: BTreeMap<char, u64> = BTreeMap::new();
    for (&id, term) in operands.iter().zip(&terms) {
        for (&letter, size) in term.iter().zip(cx.dims(id)) {
            let known = sizes.entry(letter).or_insert(size);
            *known = (*known).max(size);
        }
    }
    let twice = |term: &[char]| (1..term.len()).any(|n| term[..n].contains(&term[n]));
    let fits = |(&id, term): (&TensorId, &Vec<char>)| {
        cx.dims(id)
            .iter()
            .zip(term)
            .all(|(size, letter)| sizes[letter] == *size)
    };
    if let ([a, b], [ta, tb]) = (&operands[..], &terms[..])
        && !twice(ta)
        && !twice(tb)
        && operands.iter().zip(&terms).all(fits)
        && ta.iter().all(|l| tb.contains(l) || to.contains(l))
        && tb.iter().all(|l| ta.contains(l) || to.contains(l))
    {
        let both = |l: &&char| ta.contains(l) && tb.contains(l);
        let batch: Vec<char> = to.iter().filter(both).copied().collect();
        let k: Vec<char> = ta
            .iter()
            .filter(both)
            .filter(|l| !to.contains(l))
            .copied()
            .collect();
        let own = |term: &[char]| -> Vec<char> {
            to.iter()
                .filter(|l| !batch.contains(l) && term.contains(l))
                .copied()
                .collect()
        };
        let (own_a, own_b) = (own(ta), own(tb));
        let axes = |term: &[char], letters: &[char]| -> Vec<usize> {
            letters
                .iter()
                .filter_map(|l| term.iter().position(|t| t == l))
                .collect()
        };
        let groups =
            |term: &[char], own: &[char]| [axes(term, &batch), axes(term, own), axes(term, &k)];
        let (ga, gb) = (groups(ta, &own_a), groups(tb, &own_b));
        let found = product(cx, (*a, ga), (*b, gb));
        let order = [&batch[..], &own_a, &own_b].concat();
        let dims: Vec<u64> = order.iter().map(|l| sizes[l]).collect();
        let found = cx.program.view(found, &dims);
        if order == to {
            return Ok(vec![Some(found)]);
        }
        let back: Vec<usize> = axes(&order, &to);
        return Ok(vec![Some(moved(cx, found, &back))]);
    }
    // Anything else: a sum over what the result does not have.
    let summed: Vec<char> = sizes.keys().copied().filter(|l| !to.contains(l)).collect();
    let all = [&to[..], &summed].concat();
    let full: Vec<u64> = all
        .iter()
        .map(|l| sizes.get(l).copied().unwrap_or(1))
        .collect();
    let at = vars(&full);
    let elements = operands.iter().zip(&terms).map(|(&id, term)| {
        let dims = cx.dims(id);
        let places = term.iter().zip(dims).map(|(letter, size)| match size {
            1 => Index::default(),
            _ => all
                .iter()
                .position(|l| l == letter)
                .map_or(Index::default(), |n| at[n].clone()),
        });
        cx.load(id, places.collect())
    });
    let Some(body): Option<Formula> = elements.reduce(|x, y| x * y) else {
        return malformed("there are no operands");
    };
    let axes: Vec<usize> = (to.len()..all.len()).collect();
    let sum = cx.reduced(Fold::Sum, &full, &axes, body);
    Ok(vec![Some(cx.program.view(sum, &result))])
}
