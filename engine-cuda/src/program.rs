//! A graph as tensors, each defined by an expression over others or by a call of a library.
//!
//! | definition | content |
//! |---|---|
//! | [`Def::Map`] | every element by itself |
//! | [`Def::Reduce`] | a sum, product or extremum along axes |
//! | [`Def::View`] | the same elements in another shape |
//! | [`Def::Call`] | a convolution or a product of matrices |

mod library;
mod sizes;

use std::collections::BTreeMap;
use std::rc::Rc;

use bcosc_ir::Tensor as Values;

pub use library::{Added, Call, Convolution, Direction, Factor, Layout, Product};

use crate::expr::{Expr, Fold, Formula, Index, Number, TensorId, Type, flat, unflat};

/// Variables from here on belong to loops; those below to axes.
const LOOPS: u32 = 1000;

/// Tensors in an order that puts operands first.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// All tensors.
    pub tensors: Vec<Tensor>,
    /// Inputs by name, in the order of the graph.
    pub inputs: Vec<(String, TensorId)>,
    /// Outputs by name, in the order of the graph.
    pub outputs: Vec<(String, TensorId)>,
    loops: u32,
    /// Channels-last copies by what they are of.
    last: BTreeMap<TensorId, TensorId>,
}

/// A tensor.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// The value that it is, or the node that needs it.
    pub name: String,
    /// Element type.
    pub ty: Type,
    /// Sizes.
    pub dims: Vec<u64>,
    /// How it comes about.
    pub def: Def,
}

/// How a tensor comes about.
#[derive(Clone, Debug)]
pub enum Def {
    /// From the caller.
    Input,
    /// From the model; the number that all elements are, where they are equal.
    Constant(Values, Option<Number>),
    /// Each element from an expression over the variables of the axes.
    Map(Rc<Expr>),
    /// From an expression over axes of sizes `full`, of which some are combined and keep size 1.
    Reduce {
        /// How numbers are combined.
        fold: Fold,
        /// Sizes before.
        full: Vec<u64>,
        /// The axes that are combined, ascending.
        axes: Vec<usize>,
        /// What is combined.
        body: Rc<Expr>,
    },
    /// The elements of another tensor.
    View(TensorId),
    /// From a library.
    Call(Call),
}

impl Tensor {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.dims.iter().product()
    }

    /// The index of each axis by its own variable.
    pub fn vars(&self) -> Vec<Index> {
        vars(&self.dims)
    }
}

/// A variable for each axis.
pub fn vars(dims: &[u64]) -> Vec<Index> {
    let numbered = (0..).zip(dims);
    numbered
        .map(|(n, &size)| Index::var(n, size as i64))
        .collect()
}

impl Program {
    /// A tensor.
    pub fn tensor(&self, id: TensorId) -> &Tensor {
        &self.tensors[id]
    }

    /// Adds a tensor.
    pub fn add(&mut self, tensor: Tensor) -> TensorId {
        self.tensors.push(tensor);
        self.tensors.len() - 1
    }

    /// Adds a constant of the model.
    pub fn constant(&mut self, name: &str, ty: Type, values: Values) -> TensorId {
        let uniform = uniform(&values, ty);
        self.add(Tensor {
            name: name.to_owned(),
            ty,
            dims: values.dims(),
            def: Def::Constant(values, uniform),
        })
    }

    /// Adds a tensor that an expression defines.
    pub fn map(&mut self, name: &str, dims: &[u64], expr: Formula) -> TensorId {
        self.add(Tensor {
            name: name.to_owned(),
            ty: expr.ty(),
            dims: dims.to_vec(),
            def: Def::Map(expr.0),
        })
    }

    /// Adds a reduction whose axes keep size 1.
    pub fn reduce(
        &mut self,
        name: &str,
        fold: Fold,
        full: &[u64],
        axes: &[usize],
        body: Formula,
    ) -> TensorId {
        let mut dims = full.to_vec();
        for &axis in axes {
            dims[axis] = 1;
        }
        let ty = body.ty();
        let def = Def::Reduce {
            fold,
            full: full.to_vec(),
            axes: axes.to_vec(),
            body: body.0,
        };
        let name = name.to_owned();
        self.add(Tensor {
            name,
            ty,
            dims,
            def,
        })
    }

    /// Adds a view.
    pub fn view(&mut self, of: TensorId, dims: &[u64]) -> TensorId {
        let Tensor {
            name,
            ty,
            dims: own,
            ..
        } = self.tensor(of);
        if own == dims {
            return of;
        }
        let (name, ty) = (name.clone(), *ty);
        let dims = dims.to_vec();
        self.add(Tensor {
            name,
            ty,
            dims,
            def: Def::View(of),
        })
    }

    /// A tensor with its second axis behind the others: the same memory where it has that order, and one copy for all readers
    /// otherwise.
    pub fn channels_last(&mut self, id: TensorId) -> TensorId {
        let dims = self.tensor(id).dims.clone();
        let order: Vec<usize> = [0].into_iter().chain(2..dims.len()).chain([1]).collect();
        if let Def::Map(expr) = &self.tensor(id).def
            && let Expr::Load(from, _, at) = &**expr
            && *at == permuted(&vars(&dims), &order)
            && self.tensor(*from).dims == permuted(&dims, &order)
        {
            return *from;
        }
        if let Some(known) = self.last.get(&id) {
            return *known;
        }
        let made = self.moved(id, &order);
        self.last.insert(id, made);
        made
    }

    /// A tensor with its last axis after the first one.
    pub fn channels_first(&mut self, id: TensorId) -> TensorId {
        let rank = self.tensor(id).dims.len();
        let order: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
        self.moved(id, &order)
    }

    /// A tensor with its axes in another order.
    fn moved(&mut self, id: TensorId, order: &[usize]) -> TensorId {
        let Tensor { name, dims, .. } = self.tensor(id).clone();
        let to = permuted(&dims, order);
        let mut at = vec![Index::default(); dims.len()];
        for (index, &axis) in vars(&to).into_iter().zip(order) {
            at[axis] = index;
        }
        let element = self.load(id, at);
        self.map(&name, &to, element)
    }

    /// Calls a function with every read of a definition; what it returns takes the place of the read.
    pub fn rewrite(
        &mut self,
        id: TensorId,
        load: &mut dyn FnMut(TensorId, Type, Vec<Index>) -> Rc<Expr>,
    ) {
        if let Def::Map(expr) | Def::Reduce { body: expr, .. } = &mut self.tensors[id].def {
            *expr = expr.replaced(&BTreeMap::new(), load);
        }
    }

    /// A variable for a loop.
    pub fn loop_var(&mut self, size: i64) -> (u32, Index) {
        self.loops += 1;
        let number = LOOPS + self.loops;
        (number, Index::var(number, size))
    }

    /// An element of a tensor. Constants with equal elements are numbers.
    pub fn load(&self, id: TensorId, at: Vec<Index>) -> Formula {
        let tensor = self.tensor(id);
        match &tensor.def {
            Def::View(of) => {
                let at = unflat(&flat(&at, &tensor.dims), &self.tensor(*of).dims);
                self.load(*of, at)
            }
            Def::Constant(_, Some(number)) => Expr::Number(*number).into(),
            _ => Expr::Load(id, tensor.ty, at).into(),
        }
    }

    /// An element of a tensor that is broadcast to sizes, at the variables of their axes.
    pub fn broadcast(&self, id: TensorId, to: &[u64]) -> Formula {
        self.broadcast_at(id, &vars(to))
    }

    /// An element of a tensor whose axes are the last ones of `at`; axes of size 1 are read at 0.
    pub fn broadcast_at(&self, id: TensorId, at: &[Index]) -> Formula {
        let dims = &self.tensor(id).dims;
        let skip = at.len().saturating_sub(dims.len());
        let pairs = at[skip..].iter().zip(dims);
        let at = pairs.map(|(index, &size)| match size {
            1 => Index::default(),
            _ => index.clone(),
        });
        self.load(id, at.collect())
    }

    /// The tensor with the memory of another: what it is a view of.
    pub fn base(&self, mut id: TensorId) -> TensorId {
        while let Def::View(of) = self.tensor(id).def {
            id = of;
        }
        id
    }

    /// The tensors that a definition reads.
    pub fn operands(&self, id: TensorId) -> Vec<TensorId> {
        let mut found = Vec::new();
        match &self.tensor(id).def {
            Def::Input | Def::Constant(..) => {}
            Def::Map(expr) | Def::Reduce { body: expr, .. } => {
                expr.reads(&mut |tensor, _| found.push(tensor));
            }
            Def::View(of) => found.push(*of),
            Def::Call(call) => found.extend(call.operands()),
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// The one number that all elements of a constant are.
pub fn uniform(values: &Values, ty: Type) -> Option<Number> {
    let bytes = values.bytes().ok()?;
    let size = usize::try_from(ty.bytes()).ok()?;
    let first = bytes.get(..size)?;
    if !bytes.chunks_exact(size).all(|element| element == first) {
        return None;
    }
    let one = Values::from_bytes(values.dtype(), &[1], bytes.slice(..size));
    match ty.is_float() {
        true => Some(Number::new(ty, *one.to_f64s().ok()?.first()?)),
        false => Some(Number::int(ty, *one.to_i64s().ok()?.first()?)),
    }
}

/// Elements in another order: the first is the one of number `order[0]`.
pub fn permuted<T: Clone>(elements: &[T], order: &[usize]) -> Vec<T> {
    order.iter().map(|&from| elements[from].clone()).collect()
}

/// Variables of a space in the place of those of another.
pub fn replacing(at: &[Index]) -> BTreeMap<u32, Index> {
    (0..).zip(at.iter().cloned()).collect()
}
