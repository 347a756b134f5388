//! Values computed in the order that a library wants.
//!
//! ```text
//! x[n, c, h, w] = f(n, c, h, w)        r[n, h, w, c] = f(n, c, h, w)
//! r[n, h, w, c] = x[n, c, h, w]   =>   y[n, c, h, w] = g(r[n, h, w, c])
//! y[n, c, h, w] = g(x[n, c, h, w])
//! ```

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{of_libraries, returned};
use crate::expr::{Expr, Index, TensorId};
use crate::program::{Def, Program, vars};

/// A tensor that is read in the place of another: by its axes, those of the other; none of size 1.
struct Copy {
    tensor: TensorId,
    axes: Vec<Option<usize>>,
}

pub(super) fn at_once(program: &mut Program) {
    let (read, _) = of_libraries(program);
    let returned = returned(program);
    let mut copies: BTreeMap<TensorId, Copy> = BTreeMap::new();
    for &tensor in &read {
        let Some((from, axes)) = copied(program, tensor) else {
            continue;
        };
        let elsewhere = read.contains(&from) || returned.contains(&from);
        let Def::Map(body) = &program.tensor(from).def else {
            continue;
        };
        if elsewhere || copies.contains_key(&from) {
            continue;
        }
        let own = vars(&program.tensor(tensor).dims);
        let places = axes.iter().zip(own);
        let at = places.filter_map(|(axis, index)| Some(((*axis)? as u32, index)));
        let mut at: BTreeMap<u32, Index> = at.collect();
        for axis in 0..program.tensor(from).dims.len() as u32 {
            at.entry(axis).or_default();
        }
        let body = body.replaced(&at, &mut |id, ty, at| Expr::Load(id, ty, at).into());
        program.tensors[tensor].def = Def::Map(body);
        copies.insert(from, Copy { tensor, axes });
    }
    for id in 0..program.tensors.len() {
        program.rewrite(id, &mut |read, ty, at| {
            Rc::new(match copies.get(&read) {
                Some(Copy { tensor, axes }) => {
                    let index = |axis: &Option<usize>| match axis {
                        Some(axis) => at[*axis].clone(),
                        None => Index::default(),
                    };
                    Expr::Load(*tensor, ty, axes.iter().map(index).collect())
                }
                None => Expr::Load(read, ty, at),
            })
        });
    }
}

/// What a tensor is a copy of in another order of axes, and which of these each of its own is.
fn copied(program: &Program, id: TensorId) -> Option<(TensorId, Vec<Option<usize>>)> {
    let Def::Map(expr) = &program.tensor(id).def else {
        return None;
    };
    let Expr::Load(from, _, at) = &**expr else {
        return None;
    };
    let own = program.tensor(id);
    let axes = vars(&own.dims).into_iter().zip(&own.dims);
    let axes = axes.map(|(var, &size)| match size {
        1 => Some(None),
        _ => at.iter().position(|index| *index == var).map(Some),
    });
    let axes = axes.collect::<Option<Vec<_>>>()?;
    let whole = program.tensor(*from).elements() == own.elements();
    whole.then_some((*from, axes))
}
