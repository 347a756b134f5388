//! Reductions in two steps.
//!
//! ```text
//! y[c] = sum over n, p of x[n, c, p]        t[n, c] = sum over p of x[n, c, p]        y[c] = sum over n of t[n, c]
//! ```
//!
//! The first step has more rows. An axis that is the only one is cut into pieces first.

use std::rc::Rc;

use crate::expr::{Expr, Fold, Formula};
use crate::program::{Def, Program, replacing, vars};

/// Fewer rows do not fill a device.
const ROWS: u64 = 1024;
/// Shorter rows are not worth a second kernel.
const LENGTH: u64 = 4096;
/// Pieces of an axis have about so many elements.
const PIECE: u64 = 256;

pub(super) fn split(program: &mut Program) {
    for id in 0..program.tensors.len() {
        let tensor = program.tensor(id).clone();
        let Def::Reduce {
            fold,
            full,
            axes,
            body,
        } = tensor.def.clone()
        else {
            continue;
        };
        let length: u64 = axes.iter().map(|&axis| full[axis]).product();
        if length == 1 {
            // Nothing is combined.
            program.tensors[id].def = Def::Map(body);
            continue;
        }
        if tensor.elements() >= ROWS || length < LENGTH {
            continue;
        }
        if let Some((full, axes, body)) = apart(full, axes, body) {
            program.tensors[id].def = two(program, id, fold, full, &axes, body);
        }
    }
}

/// The reduction with at least two axes to combine, if it can be cut.
fn apart(
    full: Vec<u64>,
    axes: Vec<usize>,
    body: Rc<Expr>,
) -> Option<(Vec<u64>, Vec<usize>, Rc<Expr>)> {
    let large = axes.iter().filter(|&&axis| full[axis] > 1).count();
    if large > 1 {
        return Some((full, axes, body));
    }
    let axis = *axes.iter().max_by_key(|&&axis| full[axis])?;
    let size = full[axis];
    let piece = (16..=4 * PIECE)
        .filter(|n| size.is_multiple_of(*n))
        .min_by_key(|n| n.abs_diff(PIECE))?;
    let mut cut = full.clone();
    cut.splice(axis..=axis, [size / piece, piece]);
    let mut at = vars(&cut);
    let whole = at[axis].times(piece as i64).plus(&at[axis + 1]);
    at.splice(axis..axis + 2, [whole]);
    let body = body.replaced(&replacing(&at), &mut |id, ty, at| {
        Rc::new(Expr::Load(id, ty, at))
    });
    let moved = axes.iter().map(|&a| if a > axis { a + 1 } else { a });
    let mut axes: Vec<usize> = moved.chain([axis + 1]).collect();
    axes.sort_unstable();
    Some((cut, axes, body))
}

/// All axes but the first are combined by a tensor of its own.
fn two(
    program: &mut Program,
    id: usize,
    fold: Fold,
    full: Vec<u64>,
    axes: &[usize],
    body: Rc<Expr>,
) -> Def {
    let name = program.tensor(id).name.clone();
    let large: Vec<usize> = axes
        .iter()
        .copied()
        .filter(|&axis| full[axis] > 1)
        .collect();
    let (first, rest) = (large[0], &large[1..]);
    let parts = program.reduce(&name, fold, &full, rest, Formula(body));
    let dims = program.tensor(parts).dims.clone();
    let element = Expr::Load(parts, program.tensor(parts).ty, vars(&dims));
    // The reader knows the tensor by its old sizes; the axes of size 1 between them do not count.
    Def::Reduce {
        fold,
        full: dims,
        axes: vec![first],
        body: Rc::new(element),
    }
}
