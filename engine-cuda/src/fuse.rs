//! From a program to kernels: which tensors one kernel computes.
//!
//! 1. `split`: a reduction with few results and many numbers becomes two, so that the whole device works on it.
//! 2. `inline`: what one reader needs, or what costs next to nothing, is computed where it is read.
//! 3. `epilogue`: what is added to products of matrices is added by the library.
//! 4. `groups`: tensors over the same space that read one another or the same numbers share a kernel.

mod epilogue;
mod groups;
mod inline;
mod split;

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::expr::{Expr, Fold, TensorId};
use crate::program::Program;

/// A step: a kernel or a call of a library.
#[derive(Clone, Debug)]
pub enum Item {
    /// A kernel.
    Kernel(Space),
    /// One kernel for spaces that differ in sizes and tensors alone.
    Many(Vec<Space>),
    /// The tensor that a library computes.
    Call(TensorId),
}

/// Tensors over one space, whose variables are numbered from 0; no axis has size 1.
#[derive(Clone, Debug, Default)]
pub struct Space {
    /// Sizes.
    pub dims: Vec<u64>,
    /// The axes that reductions combine, ascending; none in a pointwise kernel.
    pub reduced: Vec<usize>,
    /// What is computed, in order.
    pub members: Vec<Member>,
}

/// A tensor that a kernel computes.
#[derive(Clone, Debug)]
pub struct Member {
    /// The tensor.
    pub tensor: TensorId,
    /// What its elements belong to.
    pub kind: Kind,
    /// An expression over the variables of the space.
    pub expr: Rc<Expr>,
    /// Whether anything outside of the kernel reads it.
    pub stored: bool,
}

/// What the elements of a member belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Each element of the space.
    Element,
    /// Each row: the axes that are not reduced.
    Row,
    /// Each row, combined over its elements.
    Reduced(Fold),
}

impl Item {
    /// The kernels that it is made of.
    pub fn spaces(&self) -> &[Space] {
        match self {
            Item::Kernel(space) => std::slice::from_ref(space),
            Item::Many(spaces) => spaces,
            Item::Call(_) => &[],
        }
    }

    /// The tensors that it reads, by the tensor that has the memory.
    pub fn reads(&self, program: &Program) -> BTreeSet<TensorId> {
        match self {
            Item::Call(id) => {
                let operands = program.operands(*id).into_iter();
                operands.map(|id| program.base(id)).collect()
            }
            _ => self.spaces().iter().flat_map(Space::reads).collect(),
        }
    }

    /// The tensors that it writes.
    pub fn writes(&self) -> Vec<TensorId> {
        match self {
            Item::Call(id) => vec![*id],
            _ => {
                let members = self.spaces().iter().flat_map(|space| &space.members);
                let stored = members.filter(|member| member.stored);
                stored.map(|member| member.tensor).collect()
            }
        }
    }
}

impl Space {
    /// The tensors that it reads and does not compute.
    pub fn reads(&self) -> BTreeSet<TensorId> {
        let own: BTreeSet<TensorId> = self.members.iter().map(|member| member.tensor).collect();
        let mut found = BTreeSet::new();
        for member in &self.members {
            member.expr.reads(&mut |id, _| {
                if !own.contains(&id) {
                    found.insert(id);
                }
            });
        }
        found
    }

    /// Sizes of the axes that are not reduced.
    pub fn rows(&self) -> Vec<u64> {
        let kept = |axis: &usize| !self.reduced.contains(axis);
        (0..self.dims.len())
            .filter(kept)
            .map(|axis| self.dims[axis])
            .collect()
    }

    /// Sizes of the axes that are reduced.
    pub fn inner(&self) -> Vec<u64> {
        self.reduced.iter().map(|&axis| self.dims[axis]).collect()
    }
}

/// A program with everything that kernels compute inside of them.
#[derive(Clone, Debug)]
pub struct Fused {
    /// The program; tensors that no item computes are gone.
    pub program: Program,
    /// Steps, in an order in which they can run.
    pub items: Vec<Item>,
}

/// Decides what kernels compute.
pub fn fuse(mut program: Program) -> Fused {
    split::split(&mut program);
    let mut bodies = inline::inline(&program);
    epilogue::absorb(&mut program, &mut bodies);
    let items = groups::group(&program, bodies);
    Fused { program, items }
}

/// The tensors that outputs need, operands first.
pub(crate) fn ordered(program: &Program) -> Vec<TensorId> {
    inline::order(program, &live(program))
}

/// The tensors that outputs need.
fn live(program: &Program) -> Vec<bool> {
    let mut live = vec![false; program.tensors.len()];
    let mut open: Vec<TensorId> = program.outputs.iter().map(|(_, id)| *id).collect();
    while let Some(id) = open.pop() {
        if !std::mem::replace(&mut live[id], true) {
            open.extend(program.operands(id));
        }
    }
    live
}
