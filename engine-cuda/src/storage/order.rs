//! Kernels that go through their elements in the order of what they read.
//!
//! Each tensor that no library and no output has the memory of takes the order of axes of the largest tensors that it reads,
//! and is kept in that order itself. So a sum over an image with channels last reads neighbouring channels together.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::{of_libraries, returned};
use crate::expr::{Atom, Expr, Index, TensorId, flat};
use crate::fuse::ordered;
use crate::program::{Def, Program, permuted, vars};

pub(super) fn reorder(program: &mut Program) {
    let (mut kept, _) = of_libraries(program);
    kept.extend(returned(program));
    // By tensor, its axes in their new order.
    let mut moved: BTreeMap<TensorId, Vec<usize>> = BTreeMap::new();
    for id in ordered(program) {
        program.rewrite(id, &mut |read, ty, at| {
            let at = match moved.get(&read) {
                Some(order) => permuted(&at, order),
                None => at,
            };
            Rc::new(Expr::Load(read, ty, at))
        });
        if !kept.contains(&id)
            && let Some(order) = order(program, id)
        {
            turn(program, id, &order);
            moved.insert(id, order);
        }
    }
}

/// The order that most of what a tensor reads has; none if it is its own.
fn order(program: &Program, id: TensorId) -> Option<Vec<usize>> {
    let tensor = program.tensor(id);
    let (dims, body) = match &tensor.def {
        Def::Map(body) => (&tensor.dims, body),
        Def::Reduce { full, body, .. } => (full, body),
        _ => return None,
    };
    let mut votes: BTreeMap<Vec<usize>, u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    body.reads(&mut |read, at| {
        let from = program.tensor(read);
        if let Some(order) = order_of(&flat(at, &from.dims), dims)
            && seen.insert(read)
        {
            *votes.entry(order).or_default() += from.elements() * from.ty.bytes();
        }
    });
    let own: Vec<usize> = (0..dims.len()).collect();
    let most = votes.values().copied().max()?;
    // Its own, where that is as good.
    let wins = |order: &Vec<usize>| votes.get(order) == Some(&most);
    let found = votes.keys().find(|order| wins(order))?;
    (!wins(&own)).then(|| found.clone())
}

/// The axes by their steps in a position, the longest first; axes of size 1 stay where they are. None if the position does not
/// tell.
fn order_of(position: &Index, dims: &[u64]) -> Option<Vec<usize>> {
    let large: Vec<usize> = (0..dims.len()).filter(|&axis| dims[axis] > 1).collect();
    let step = |axis: usize| {
        let var = Atom::Var(axis as u32, dims[axis] as i64);
        position.terms.get(&var).map(|step| step.abs())
    };
    let mut steps = large
        .iter()
        .map(|&axis| Some((step(axis)?, axis)))
        .collect::<Option<Vec<_>>>()?;
    steps.sort_by_key(|(step, axis)| (std::cmp::Reverse(*step), *axis));
    let mut order: Vec<usize> = (0..dims.len()).collect();
    for (place, (_, axis)) in large.into_iter().zip(steps) {
        order[place] = axis;
    }
    Some(order)
}

/// Puts the axes of a tensor into another order.
fn turn(program: &mut Program, id: TensorId, order: &[usize]) {
    let tensor = &mut program.tensors[id];
    tensor.dims = permuted(&tensor.dims, order);
    let place = |axis: &usize| order.iter().position(|from| from == axis);
    let turned = |body: &Rc<Expr>, dims: &[u64]| {
        let at = order.iter().zip(vars(dims));
        let at = at.map(|(&from, index)| (from as u32, index));
        body.replaced(&at.collect(), &mut |id, ty, at| {
            Rc::new(Expr::Load(id, ty, at))
        })
    };
    match &mut tensor.def {
        Def::Map(body) => *body = turned(body, &tensor.dims),
        Def::Reduce {
            full, axes, body, ..
        } => {
            *full = permuted(full, order);
            *body = turned(body, full);
            *axes = axes.iter().filter_map(place).collect();
            axes.sort_unstable();
        }
        _ => {}
    }
}
