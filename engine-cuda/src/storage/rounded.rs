//! What libraries read and write, in bf16.
//!
//! A value that a kernel computes for a library is rounded where it is written, and everybody reads it rounded. Weights, images and
//! outputs stay in single precision, and libraries read rounded copies. A product whose result is small next to its factors
//! keeps it in single precision, which costs nothing: logits, and gradients of weights of products. Gradients of weights of convolutions are
//! rounded.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::{of_libraries, returned};
use crate::expr::{Expr, Formula, TensorId, Type, cast};
use crate::program::{Call, Def, Product, Program};

/// A result with so many times fewer elements than its factors is not rounded.
const SMALL: u64 = 8;

pub(super) fn round(program: &mut Program) {
    let (_, calls) = of_libraries(program);
    let returned = returned(program);
    let mut rounded: BTreeSet<TensorId> = BTreeSet::new();
    for &call in &calls {
        if program.tensor(call).ty == Type::F32 && !stays(program, call) {
            program.tensors[call].ty = Type::Bf16;
            rounded.insert(call);
        }
    }
    let mut copies: BTreeMap<TensorId, TensorId> = BTreeMap::new();
    for &call in &calls {
        let Def::Call(found) = &program.tensor(call).def else {
            continue;
        };
        let factors = found.factors().map(|id| program.base(id));
        let factors = factors.map(|id| match program.tensor(id).ty {
            Type::F32 => read(program, id, &returned, &mut rounded, &mut copies),
            _ => id,
        });
        if let Def::Call(found) = &mut program.tensors[call].def {
            *found.factors_mut() = factors;
        }
    }
    for id in 0..program.tensors.len() {
        let is_copy = |read: TensorId| copies.get(&read) == Some(&id);
        program.rewrite(id, &mut |read, ty, at| match rounded.contains(&read) {
            true if !is_copy(read) => {
                let load = Rc::new(Expr::Load(read, Type::Bf16, at));
                cast(Type::F32, load)
            }
            _ => Rc::new(Expr::Load(read, ty, at)),
        });
    }
    widen_outputs(program, &rounded);
    // Views have the type of what they are of.
    for id in 0..program.tensors.len() {
        if matches!(program.tensor(id).def, Def::View(_)) {
            program.tensors[id].ty = program.tensor(program.base(id)).ty;
        }
    }
}

/// Whether the result of a call stays in single precision.
fn stays(program: &Program, call: TensorId) -> bool {
    match &program.tensor(call).def {
        Def::Call(Call::Product { product, .. }) => {
            let Product { batch, m, n, k, .. } = product;
            SMALL * batch * m * n <= batch * k * (m + n)
        }
        _ => false,
    }
}

/// The tensor that a library reads for one in single precision.
fn read(
    program: &mut Program,
    id: TensorId,
    returned: &BTreeSet<TensorId>,
    rounded: &mut BTreeSet<TensorId>,
    copies: &mut BTreeMap<TensorId, TensorId>,
) -> TensorId {
    if let Some(known) = copies.get(&id) {
        return *known;
    }
    if let Def::Map(body) = &program.tensor(id).def
        && !returned.contains(&id)
    {
        let body = cast(Type::Bf16, body.clone());
        program.tensors[id].def = Def::Map(body);
        program.tensors[id].ty = Type::Bf16;
        rounded.insert(id);
        return id;
    }
    let (name, dims) = (
        program.tensor(id).name.clone(),
        program.tensor(id).dims.clone(),
    );
    let element: Formula = program.load(id, program.tensor(id).vars());
    let copy = program.map(&name, &dims, element.cast(Type::Bf16));
    copies.insert(id, copy);
    copy
}

/// Outputs are in single precision.
fn widen_outputs(program: &mut Program, rounded: &BTreeSet<TensorId>) {
    for output in 0..program.outputs.len() {
        let id = program.outputs[output].1;
        let base = program.base(id);
        if !rounded.contains(&base) {
            continue;
        }
        let (name, own) = (
            program.tensor(id).name.clone(),
            program.tensor(id).dims.clone(),
        );
        let dims = program.tensor(base).dims.clone();
        let element = Expr::Load(base, Type::Bf16, program.tensor(base).vars());
        let wide = program.map(&name, &dims, Formula::from(element).cast(Type::F32));
        program.outputs[output].1 = program.view(wide, &own);
    }
}
