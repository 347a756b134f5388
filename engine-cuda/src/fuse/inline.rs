//! What is computed where it is read.
//!
//! | a tensor is inlined | because |
//! |---|---|
//! | that only moves elements | a read elsewhere costs the same |
//! | that reads nothing | it is a number or a position |
//! | with one reader, which needs each element once | its memory traffic is saved |
//! | of few instructions, read a few times | as above |
//!
//! Others, and those that libraries or outputs need, are computed once; a kernel that computes them may still hand them
//! to its other members in registers.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::live;
use crate::expr::{Expr, Index, TensorId};
use crate::program::{Def, Program, replacing};

/// So many instructions are repeated rather than remembered.
const CHEAP: u64 = 4;
/// Up to so many reads of each element.
const READS: f64 = 4.0;
/// The largest expression.
const LARGEST: u64 = 160;

/// What a kernel computes for a tensor: its own expression, with others inlined.
pub(super) type Bodies = BTreeMap<TensorId, Rc<Expr>>;

/// The expressions of the tensors that kernels compute.
pub(super) fn inline(program: &Program) -> Bodies {
    let live = live(program);
    let forced = forced(program, &live);
    let readers = readers(program, &live);
    let mut bodies = Bodies::new();
    let mut inlined = Bodies::new();
    for id in order(program, &live) {
        let tensor = program.tensor(id);
        let (Def::Map(expr) | Def::Reduce { body: expr, .. }) = &tensor.def else {
            continue;
        };
        let body = expr.replaced(
            &BTreeMap::new(),
            &mut |read, ty, at| match inlined.get(&read) {
                Some(inner) => renamed(inner, &at),
                None => Rc::new(Expr::Load(read, ty, at)),
            },
        );
        let is_map = matches!(tensor.def, Def::Map(_));
        let uses = readers.get(&id).cloned().unwrap_or_default();
        match is_map && !forced.contains(&id) && is_inlined(&body, &uses) {
            true => inlined.insert(id, body),
            false => bodies.insert(id, body),
        };
    }
    bodies
}

/// The tensors in an order that puts operands first: splitting adds some at the end.
pub(super) fn order(program: &Program, live: &[bool]) -> Vec<TensorId> {
    let mut done = vec![false; program.tensors.len()];
    let mut found = Vec::new();
    for root in (0..program.tensors.len()).filter(|&id| live[id]) {
        let mut open = vec![(root, false)];
        while let Some((id, entered)) = open.pop() {
            if entered {
                found.push(id);
            } else if !std::mem::replace(&mut done[id], true) {
                open.push((id, true));
                let operands = program.operands(id).into_iter().rev();
                open.extend(operands.filter(|&o| !done[o]).map(|o| (o, false)));
            }
        }
    }
    found
}

/// The tensors that must be in memory for libraries and outputs.
fn forced(program: &Program, live: &[bool]) -> BTreeSet<TensorId> {
    let mut found: BTreeSet<TensorId> = program
        .outputs
        .iter()
        .map(|(_, id)| program.base(*id))
        .collect();
    for (id, tensor) in program.tensors.iter().enumerate() {
        if let Def::Call(call) = &tensor.def
            && live[id]
        {
            found.extend(call.operands().map(|id| program.base(id)));
        }
    }
    found
}

/// How a tensor is read.
#[derive(Clone, Debug, Default)]
struct Uses {
    readers: usize,
    /// Reads of each element, all readers together.
    reads: f64,
}

fn readers(program: &Program, live: &[bool]) -> BTreeMap<TensorId, Uses> {
    let mut found: BTreeMap<TensorId, Uses> = BTreeMap::new();
    for (id, tensor) in program.tensors.iter().enumerate() {
        let (turns, expr) = match &tensor.def {
            _ if !live[id] => continue,
            Def::Map(expr) => (tensor.elements(), expr),
            Def::Reduce { full, body, .. } => (full.iter().product(), body),
            _ => continue,
        };
        let mut seen: BTreeMap<(TensorId, Vec<Index>), f64> = BTreeMap::new();
        reads(expr, turns as f64, &mut seen);
        let tensors: BTreeSet<TensorId> = seen.keys().map(|(id, _)| *id).collect();
        for tensor in tensors {
            found.entry(tensor).or_default().readers += 1;
        }
        for ((tensor, _), count) in seen {
            let size = program.tensor(tensor).elements().max(1) as f64;
            found.entry(tensor).or_default().reads += count / size;
        }
    }
    found
}

/// Reads by place; the same place twice is one read.
fn reads(expr: &Expr, turns: f64, seen: &mut BTreeMap<(TensorId, Vec<Index>), f64>) {
    let of_index = |index: &Index, seen: &mut BTreeMap<_, _>| {
        index.visit(&mut |_, _| {}, &mut |value| reads(value, turns, seen));
    };
    match expr {
        Expr::Number(_) => {}
        Expr::Load(id, _, at) => {
            at.iter().for_each(|index| of_index(index, seen));
            seen.insert((*id, at.clone()), turns);
        }
        Expr::Position(index) | Expr::Within(index, ..) => of_index(index, seen),
        Expr::Unary(_, x) | Expr::Cast(_, x) => reads(x, turns, seen),
        Expr::Binary(_, x, y) => {
            reads(x, turns, seen);
            reads(y, turns, seen);
        }
        Expr::Select(c, x, y) => {
            reads(c, turns, seen);
            // A part of a concatenation is read where it is, not everywhere.
            let split = matches!(**c, Expr::Within(..)) && !matches!(**y, Expr::Number(_));
            let turns = if split { turns / 2.0 } else { turns };
            reads(x, turns, seen);
            reads(y, turns, seen);
        }
        Expr::Loop(_, loops, x) => {
            let each: f64 = loops.iter().map(|(_, size)| *size as f64).product();
            reads(x, turns * each, seen);
        }
    }
}

fn is_inlined(body: &Expr, uses: &Uses) -> bool {
    let mut loads = 0;
    body.reads(&mut |_, _| loads += 1);
    let cost = body.cost();
    let moves = matches!(body, Expr::Load(..));
    let once = uses.readers == 1 && uses.reads <= 1.01;
    if moves || (loads == 0 && cost <= 2 * CHEAP) {
        return true;
    }
    let has_loop = matches!(body, Expr::Loop(..)) || cost > LARGEST;
    (once && size(body) <= LARGEST)
        || (!has_loop && cost <= CHEAP + loads && loads <= 2 && uses.reads <= READS)
}

/// Number of nodes.
fn size(expr: &Expr) -> u64 {
    1 + match expr {
        Expr::Number(_) | Expr::Load(..) | Expr::Position(_) | Expr::Within(..) => 0,
        Expr::Unary(_, x) | Expr::Cast(_, x) | Expr::Loop(_, _, x) => size(x),
        Expr::Binary(_, x, y) => size(x) + size(y),
        Expr::Select(c, x, y) => size(c) + size(x) + size(y),
    }
}

/// An expression with other indices in the place of its axes' variables, and with loop variables of its own.
fn renamed(expr: &Rc<Expr>, at: &[Index]) -> Rc<Expr> {
    // Loops that are inlined twice have equal bodies, or indices that differ: their variables never meet.
    expr.replaced(&replacing(at), &mut |id, ty, at| {
        Rc::new(Expr::Load(id, ty, at))
    })
}
