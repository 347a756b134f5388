//! What is added to products of matrices: a bias, and numbers such as those of a residual connection.
//!
//! ```text
//! t = a b        y = t + bias + sum        becomes        y = a b + bias + sum
//! ```
//!
//! cuBLASLt adds both while it writes the result, so that `t` is neither written nor read. Only what is a kernel of its own is worth it:
//! a sum that is inlined where it is read costs nothing there. A bias must have the type of the result, so with bf16 only sums are added.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::inline::Bodies;
use crate::expr::{Binary, Expr, Index, TensorId, Type, flat};
use crate::program::{Added, Call, Def, Product, Program, Tensor};

/// Lets products compute sums that nothing else is made of.
pub(super) fn absorb(program: &mut Program, bodies: &mut Bodies) {
    let readers = readers(program, bodies);
    let found: Vec<(TensorId, Call)> = bodies
        .iter()
        .filter_map(|(&id, body)| Some((id, call(program, &readers, id, body)?)))
        .collect();
    for (id, call) in found {
        bodies.remove(&id);
        program.tensors[id].def = Def::Call(call);
    }
}

/// How many kernels, calls and outputs read a tensor, by the tensor that has the memory.
fn readers(program: &Program, bodies: &Bodies) -> BTreeMap<TensorId, usize> {
    let mut found: BTreeMap<TensorId, usize> = BTreeMap::new();
    let mut count = |id: TensorId| *found.entry(program.base(id)).or_default() += 1;
    for body in bodies.values() {
        body.reads(&mut |id, _| count(id));
    }
    for tensor in &program.tensors {
        if let Def::Call(call) = &tensor.def {
            call.operands().for_each(&mut count);
        }
    }
    program.outputs.iter().for_each(|(_, id)| count(*id));
    found
}

/// The product that computes a tensor, if its body is a sum of one and what cuBLASLt can add to it.
fn call(
    program: &Program,
    readers: &BTreeMap<TensorId, usize>,
    id: TensorId,
    body: &Rc<Expr>,
) -> Option<Call> {
    let tensor = program.tensor(id);
    let Def::Map(_) = tensor.def else { return None };
    let mut terms = Vec::new();
    if !collect(body, &mut terms) || terms.len() < 2 {
        return None;
    }
    let is_alone = |id: TensorId| readers.get(&program.base(id)) == Some(&1);
    let (place, product, factors) = terms.iter().enumerate().find_map(|(place, term)| {
        let base = program.base(term.tensor);
        let Def::Call(Call::Product {
            product,
            factors,
            added,
        }) = &program.tensor(base).def
        else {
            return None;
        };
        let fits = added.is_empty() && is_alone(base) && term.is_element_of(program, tensor);
        fits.then(|| (place, product.clone(), *factors))
    })?;
    terms.remove(place);
    let mut added = Added::default();
    for term in terms {
        let is_bias = term.is_column_of(program, tensor, &product)
            && [tensor.ty, program.tensor(factors[0]).ty] == [Type::F32; 2];
        let slot = if is_bias && added.bias.is_none() {
            &mut added.bias
        } else if term.is_element_of(program, tensor) && !is_input(program, term.tensor) {
            &mut added.sum
        } else {
            return None;
        };
        if slot.replace(term.tensor).is_some() {
            return None;
        }
    }
    Some(Call::Product {
        product,
        factors,
        added,
    })
}

/// Whether a tensor comes from the caller, and may be state that a kernel updates in place.
fn is_input(program: &Program, id: TensorId) -> bool {
    matches!(program.tensor(program.base(id)).def, Def::Input)
}

/// A number that is read.
struct Term<'a> {
    tensor: TensorId,
    ty: Type,
    at: &'a [Index],
}

/// The numbers whose sum an expression is; whether it is such a sum. The library adds in single precision and rounds once, at the end.
fn collect<'a>(expr: &'a Expr, terms: &mut Vec<Term<'a>>) -> bool {
    match expr {
        Expr::Binary(Binary::Add, x, y) => collect(x, terms) && collect(y, terms),
        Expr::Cast(Type::Bf16 | Type::F32, x) if matches!(x.ty(), Type::Bf16 | Type::F32) => {
            collect(x, terms)
        }
        Expr::Load(tensor, ty, at) => {
            let tensor = *tensor;
            terms.push(Term {
                tensor,
                ty: *ty,
                at,
            });
            ty.is_float()
        }
        _ => false,
    }
}

impl Term<'_> {
    fn position(&self, program: &Program) -> Index {
        flat(self.at, &program.tensor(self.tensor).dims)
    }

    /// Whether it is the element of the same position, of a tensor of the same size and type.
    fn is_element_of(&self, program: &Program, result: &Tensor) -> bool {
        self.ty == result.ty
            && program.tensor(self.tensor).elements() == result.elements()
            && self.position(program) == flat(&result.vars(), &result.dims)
    }

    /// Whether it is the element of the same column, of a tensor with one for each column of the products.
    fn is_column_of(&self, program: &Program, result: &Tensor, product: &Product) -> bool {
        let (Some(&columns), Some(column)) = (result.dims.last(), result.vars().pop()) else {
            return false;
        };
        self.ty == result.ty
            && columns == product.n
            && program.tensor(self.tensor).elements() == columns
            && self.position(program) == column
    }
}
