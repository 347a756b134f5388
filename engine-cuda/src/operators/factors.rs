//! Where the factors of products lie in memory: transposed tensors are read as they are, if a library can.

use super::RuleContext;
use super::convolutions::plain_read;
use crate::expr::{Atom, Index, TensorId, flat};
use crate::program::Factor;

/// Where the elements of a tensor are: offset and step per axis, in elements of the tensor that has the memory.
struct Layout {
    base: TensorId,
    offset: u64,
    strides: Vec<u64>,
}

fn packed(dims: &[u64]) -> Vec<u64> {
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis];
    }
    strides
}

impl Layout {
    /// The layouts of a tensor: those it has in memory of others, then its own.
    fn of(cx: &RuleContext<'_>, id: TensorId) -> Vec<Layout> {
        let dims = cx.dims(id);
        let base = cx.program.base(id);
        let own = Layout {
            base: id,
            offset: 0,
            strides: packed(&dims),
        };
        // A view of a transposed tensor has no steps, but where the view only adds axes of size 1.
        let moved = plain_read(&cx.program.tensor(base).def).and_then(|(from, at)| {
            let squeezed =
                |dims: &[u64]| dims.iter().copied().filter(|&d| d != 1).collect::<Vec<_>>();
            let of_base = cx.dims(base);
            if squeezed(&of_base) != squeezed(&dims) {
                return None;
            }
            let position = flat(at, &cx.dims(from));
            let strides = steps(&position, &of_base)?;
            let of_base = of_base.iter().zip(strides).filter(|(size, _)| **size != 1);
            let mut of_base = of_base.map(|(_, step)| step);
            let strides = dims.iter().map(|&size| match size {
                1 => Some(0),
                _ => of_base.next(),
            });
            Some(Layout {
                base: cx.program.base(from),
                offset: u64::try_from(position.constant).ok()?,
                strides: strides.collect::<Option<_>>()?,
            })
        });
        moved.into_iter().chain([own]).collect()
    }

    /// The one step that goes through axes in order, if there is one.
    fn step(&self, dims: &[u64], axes: &[usize]) -> Option<u64> {
        let mut axes = axes.iter().rev().filter(|&&axis| dims[axis] != 1);
        let Some(&last) = axes.next() else {
            return Some(0);
        };
        let first = self.strides[last];
        let mut next = first * dims[last];
        for &axis in axes {
            if self.strides[axis] != next {
                return None;
            }
            next *= dims[axis];
        }
        Some(first)
    }

    fn factor(&self, dims: &[u64], [batch, rows, columns]: [&[usize]; 3]) -> Option<Factor> {
        let (batch, mut row, mut column) = (
            self.step(dims, batch)?,
            self.step(dims, rows)?,
            self.step(dims, columns)?,
        );
        let count = |axes: &[usize]| axes.iter().map(|&axis| dims[axis]).product::<u64>();
        let (rows, columns) = (count(rows), count(columns));
        // Libraries want one of the two steps to be 1, and the other to pass over what that goes through. An axis of
        // size 1 has any step.
        if column == 1 || columns == 1 {
            column = 1;
            row = if rows == 1 { columns } else { row };
        } else if row == 1 || rows == 1 {
            row = 1;
        }
        let sound = column == 1 && row >= columns || row == 1 && column >= rows;
        sound.then_some(Factor {
            offset: self.offset,
            batch,
            row,
            column,
        })
    }
}

/// The step of each axis in a position that is a sum of multiples of the axes' variables.
fn steps(position: &Index, dims: &[u64]) -> Option<Vec<u64>> {
    let mut strides = vec![0; dims.len()];
    for (atom, factor) in &position.terms {
        let Atom::Var(number, _) = atom else {
            return None;
        };
        *strides.get_mut(*number as usize)? = u64::try_from(*factor).ok()?;
    }
    Some(strides)
}

/// A factor of a product: where its matrices are in memory.
pub(super) fn factor(
    cx: &RuleContext<'_>,
    id: TensorId,
    axes: [&[usize]; 3],
) -> Option<(TensorId, Factor)> {
    let dims = cx.dims(id);
    let layouts = Layout::of(cx, id).into_iter();
    let mut found = layouts.map(|layout| Some((layout.base, layout.factor(&dims, axes)?)));
    found.find_map(|found| found)
}
