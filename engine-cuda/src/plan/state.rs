//! State: outputs that are the next values of inputs, written over the old ones where nobody needs these any more.

use std::collections::{BTreeMap, BTreeSet};

use super::State;
use super::build::{Builder, Traffic};
use crate::expr::{Index, TensorId};
use crate::fuse::{Item, Kind, Space};
use crate::kernels::{levels, results};
use crate::program::{Program, vars};

/// The end of the name of an output that is the next value of an input.
const NEXT: &str = ".next";

impl Builder<'_> {
    /// Outputs that are the next values of inputs.
    pub fn state(&self) -> Vec<State> {
        let inputs = self.program.inputs.iter().enumerate();
        let pairs = inputs.filter_map(|(input, (name, id))| {
            let next = format!("{name}{NEXT}");
            let output = self
                .program
                .outputs
                .iter()
                .position(|(output, _)| *output == next)?;
            let [old, new] =
                [*id, self.program.outputs[output].1].map(|id| self.program.tensor(id));
            (old.ty == new.ty && old.dims == new.dims).then_some(State { input, output })
        });
        pairs.collect()
    }

    /// New values that can be written over the old ones: by the tensor of the new one, that of the old one.
    pub fn replaced(
        &self,
        traffic: &[Traffic],
        every: &[usize],
        pairs: &[State],
    ) -> BTreeMap<TensorId, TensorId> {
        let outputs = |base: TensorId| {
            self.program
                .outputs
                .iter()
                .filter(|(_, id)| self.program.base(*id) == base)
                .count()
        };
        let mut found = BTreeMap::new();
        for State { input, output } in pairs {
            let old = self.program.inputs[*input].1;
            let new = self.program.base(self.program.outputs[*output].1);
            let writer = every
                .iter()
                .position(|&item| traffic[item].writes.contains(&new));
            let last = every
                .iter()
                .rposition(|&item| traffic[item].reads.contains(&old));
            let Some(writer) = writer else { continue };
            // Nobody reads the old value later, and it is not an output itself.
            let free =
                last.is_none_or(|last| last <= writer) && outputs(old) == 0 && outputs(new) == 1;
            let in_place = match &self.items[every[writer]] {
                Item::Call(_) => last.is_none_or(|last| last < writer),
                item => item.spaces().iter().all(|space| {
                    let writes = space.members.iter().any(|member| member.tensor == new);
                    match writes {
                        true => {
                            is_written_last(self.program, space, old, new)
                                || is_of_one_thread(self.program, space, old, new)
                        }
                        false => !space.reads().contains(&old),
                    }
                }),
            };
            if free && in_place && !found.values().any(|&taken| taken == old) {
                found.insert(new, old);
            }
        }
        found
    }
}

/// Whether a kernel may write the elements of `new` over those of `old`: a thread reads only the element that it writes
/// later, and nobody reads it after that.
fn is_written_last(program: &Program, space: &Space, old: TensorId, new: TensorId) -> bool {
    let own: Vec<Index> = vars(&space.dims);
    let mut in_place = true;
    for member in &space.members {
        member.expr.reads(&mut |id, at| {
            if id == old {
                let dims = &program.tensor(id).dims;
                let large = at.iter().zip(dims).filter(|(_, size)| **size != 1);
                in_place &=
                    member.kind != Kind::Row && large.map(|(index, _)| index).eq(own.iter());
            }
        });
    }
    let levels = levels(space);
    let level = |id: TensorId| levels.get(&id).copied().unwrap_or(0);
    // What is computed to compute each member, elements of other members among it.
    let mut reading: BTreeSet<TensorId> = BTreeSet::new();
    for member in &space.members {
        member.expr.reads(&mut |id, _| {
            let element = space
                .members
                .iter()
                .any(|m| m.tensor == id && m.kind == Kind::Element);
            if id == old || element && reading.contains(&id) {
                reading.insert(member.tensor);
            }
        });
    }
    let place = |id: TensorId| space.members.iter().position(|member| member.tensor == id);
    let is_element = space
        .members
        .iter()
        .any(|m| m.tensor == new && m.kind == Kind::Element);
    // The element is remembered where the new value is made of it; otherwise it would be read again.
    let remembered = reading.contains(&new);
    let after = |member: &&crate::fuse::Member| {
        let (other, own) = (level(member.tensor), level(new));
        let same_pass = other == own && member.kind == Kind::Element;
        other > own || same_pass && !remembered && place(member.tensor) > place(new)
    };
    let read = space
        .members
        .iter()
        .filter(|member| reading.contains(&member.tensor));
    in_place
        && is_element
        && !read
            .filter(|member| member.tensor != new)
            .any(|member| after(&member))
}

/// Whether a kernel may write the numbers of rows `new` over `old`: one thread of each row reads and writes them.
fn is_of_one_thread(program: &Program, space: &Space, old: TensorId, new: TensorId) -> bool {
    let results = results(space);
    let rows = vars(&space.dims);
    let rows: Vec<&Index> = (0..rows.len())
        .filter(|axis| !space.reduced.contains(axis))
        .map(|axis| &rows[axis])
        .collect();
    let mut in_place = results.contains(&new);
    let mut written = false;
    for member in &space.members {
        member.expr.reads(&mut |id, at| {
            if id == old {
                let dims = &program.tensor(id).dims;
                let large = at.iter().zip(dims).filter(|(_, size)| **size != 1);
                in_place &= !written
                    && results.contains(&member.tensor)
                    && large.map(|(index, _)| index).eq(rows.iter().copied());
            }
        });
        written |= member.tensor == new;
    }
    in_place
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::expr::{Expr, Fold, Formula, Type};
    use crate::fuse::Member;
    use crate::program::{Def, Tensor};

    /// A kernel over rows of a tensor `old`, whose members are given by kind and by what they read.
    fn space(members: &[(Kind, &[TensorId])]) -> (Program, Space) {
        let mut program = Program::default();
        let dims = vec![300, 8];
        for _ in 0..=members.len() {
            let (name, dims) = (String::new(), dims.clone());
            program.add(Tensor {
                name,
                ty: Type::F32,
                dims,
                def: Def::Input,
            });
        }
        let members = (1..).zip(members).map(|(tensor, (kind, reads))| {
            let loads = reads
                .iter()
                .map(|&id| Expr::Load(id, Type::F32, vars(&dims)).into());
            let sum: Formula = loads.reduce(|a: Formula, b| a + b).unwrap();
            Member {
                tensor,
                kind: *kind,
                expr: Rc::clone(&sum.0),
                stored: true,
            }
        });
        let space = Space {
            dims: dims.clone(),
            reduced: vec![1],
            members: members.collect(),
        };
        (program, space)
    }

    #[test]
    fn a_new_value_is_written_over_the_old_one_if_nobody_reads_it_later() {
        let sum = Kind::Reduced(Fold::Sum);
        let holds = |members: &[(Kind, &[TensorId])], new| {
            let (program, space) = space(members);
            is_written_last(&program, &space, 0, new)
        };
        // The norm of the old value, then the update.
        assert!(holds(&[(sum, &[0]), (Kind::Element, &[0, 1])], 2));
        // The update, and somebody who reads the old value in the next pass.
        assert!(!holds(
            &[(Kind::Element, &[0]), (sum, &[1]), (Kind::Element, &[0, 2])],
            1
        ));
        // Two readers in one pass: the first remembers what it has read.
        assert!(holds(&[(Kind::Element, &[0]), (Kind::Element, &[0])], 1));
        // The new value does not depend on the old one, which is read after it.
        assert!(!holds(&[(Kind::Element, &[3]), (Kind::Element, &[0])], 1));
        // A number of a row has no element of its own.
        assert!(!holds(&[(sum, &[0]), (Kind::Row, &[1])], 2));
    }

    #[test]
    fn a_number_of_a_row_is_written_over_the_old_one_by_its_only_reader() {
        let sum = Kind::Reduced(Fold::Sum);
        // Tensor 0 holds a number for each row.
        let holds = |members: &[(Kind, &[TensorId])], new| {
            let (mut program, mut space) = space(members);
            program.tensors[0].dims = vec![300, 1];
            for member in &mut space.members {
                member.expr = member
                    .expr
                    .replaced(&BTreeMap::new(), &mut |id, ty, mut at| {
                        if id == 0 {
                            at[1] = Index::default();
                        }
                        Rc::new(Expr::Load(id, ty, at))
                    });
            }
            is_of_one_thread(&program, &space, 0, new)
        };
        // The statistics of a batch, and their running mean.
        assert!(holds(&[(sum, &[5]), (Kind::Row, &[0, 1])], 2));
        // Every thread of the row needs the new value.
        assert!(!holds(
            &[(sum, &[5]), (Kind::Row, &[0, 1]), (Kind::Element, &[2, 5])],
            2
        ));
        // Every thread of the row needs the old value.
        assert!(!holds(
            &[(sum, &[5]), (Kind::Row, &[0, 1]), (Kind::Element, &[0, 5])],
            2
        ));
        // Two results of one thread, in order.
        assert!(holds(
            &[(sum, &[5]), (Kind::Row, &[0, 1]), (Kind::Row, &[2])],
            2
        ));
        // The old value is read after the new one is written.
        assert!(!holds(
            &[(sum, &[5]), (Kind::Row, &[0, 1]), (Kind::Row, &[0])],
            2
        ));
    }
}
