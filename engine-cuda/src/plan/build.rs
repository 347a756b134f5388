//! From kernels and calls to a plan.

use std::collections::{BTreeMap, BTreeSet};

use bcosc_engine::{EngineError, InputShapes, Precision};
use bcosc_ir::{Model, Tensor as Values};

use super::arena::{Lifetime, place};
use super::tail::gather;
use super::{ALIGNMENT, Binding, Buffer, BufferId, Place, Plan, Source, State, Step, VERSION};
use crate::expr::TensorId;
use crate::fuse::{Fused, Item, Space, fuse};
use crate::kernels::{Aliases, Kernel, kernel, many};
use crate::lower::lower;
use crate::program::{Call, Def, Program};
use crate::storage::arrange;

/// A plan with the constants of the model that it reads.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// One for each of the plan's constants.
    pub constants: Vec<Values>,
}

/// Plans a model in single precision for inputs of these shapes. An output `NAME.next` of the type of an input `NAME` is the input's next value,
/// as in training steps.
///
/// # Errors
/// [`EngineError::Unsupported`] names all nodes that have no kernel; other errors are of inputs without a shape, and of
/// graphs that make no sense for the shapes.
pub fn plan(model: &Model, shapes: &InputShapes) -> Result<Planned, EngineError> {
    plan_in(model, shapes, Precision::Fp32)
}

/// As [`plan`], in any precision.
///
/// # Errors
/// As [`plan`].
pub fn plan_in(
    model: &Model,
    shapes: &InputShapes,
    precision: Precision,
) -> Result<Planned, EngineError> {
    let mut program = lower(model, shapes, precision)?;
    arrange(&mut program, precision);
    let Fused { program, items } = fuse(program);
    let items = gather(&program, items);
    let fused = Fused { program, items };
    Ok(Builder::new(&fused).build(precision))
}

pub(super) struct Builder<'a> {
    pub program: &'a Program,
    pub items: &'a [Item],
    buffers: Vec<Buffer>,
    /// The buffer of each tensor that has memory.
    of: BTreeMap<TensorId, BufferId>,
    constants: Vec<(TensorId, BufferId)>,
    kernels: Vec<Source>,
    numbers: BTreeMap<String, usize>,
}

/// What an item reads and writes.
pub(super) struct Traffic {
    pub reads: BTreeSet<TensorId>,
    pub writes: Vec<TensorId>,
}

impl<'a> Builder<'a> {
    fn new(fused: &'a Fused) -> Self {
        Builder {
            program: &fused.program,
            items: &fused.items,
            buffers: Vec::new(),
            of: BTreeMap::new(),
            constants: Vec::new(),
            kernels: Vec::new(),
            numbers: BTreeMap::new(),
        }
    }

    fn build(mut self, precision: Precision) -> Planned {
        let program = self.program;
        let inputs = self.bindings(&program.inputs);
        let traffic: Vec<Traffic> = self
            .items
            .iter()
            .map(|item| Traffic {
                reads: item.reads(program),
                writes: item.writes(),
            })
            .collect();
        let (once, every) = self.phases(&traffic);
        let pairs = self.state();
        let replaced = self.replaced(&traffic, &every, &pairs);

        // Constants, then what is prepared, then what shares the arena.
        for traffic in &traffic {
            for &read in &traffic.reads {
                self.constant(read);
            }
        }
        for (_, id) in &program.outputs {
            self.constant(program.base(*id));
        }
        let mut prepared = 0;
        for &item in &once {
            for &id in &traffic[item].writes {
                let buffer = self.add(id, Place::Prepared(prepared));
                let bytes = self.buffers[buffer].bytes();
                prepared += bytes.max(1).next_multiple_of(ALIGNMENT);
            }
        }
        let arena = self.arena(&traffic, &every, &replaced);

        let prepare = once
            .iter()
            .map(|&item| self.step(item, &replaced))
            .collect();
        let mut steps: Vec<Step> = every
            .iter()
            .map(|&item| self.step(item, &replaced))
            .collect();
        let outputs = self.bindings(&program.outputs);
        for State { input, output } in &pairs {
            let (from, to) = (outputs[*output].buffer, inputs[*input].buffer);
            if !replaced.contains_key(&program.base(program.outputs[*output].1)) {
                steps.push(Step::Copy { from, to });
            }
        }
        let constants = self.constants.iter().map(|&(id, buffer)| Binding {
            name: program.tensor(id).name.clone(),
            buffer,
            dims: program.tensor(id).dims.clone(),
        });
        let constants: Vec<Binding> = constants.collect();
        let values = self
            .constants
            .iter()
            .filter_map(|(id, _)| match &program.tensor(*id).def {
                Def::Constant(values, _) => Some(values.clone()),
                _ => None,
            });
        Planned {
            constants: values.collect(),
            plan: Plan {
                version: VERSION,
                precision,
                inputs,
                outputs,
                state: pairs,
                constants,
                buffers: self.buffers,
                kernels: self.kernels,
                prepare,
                steps,
                arena,
                prepared,
            },
        }
    }

    fn add(&mut self, id: TensorId, place: Place) -> BufferId {
        let tensor = self.program.tensor(id);
        let number = self.buffers.len();
        self.buffers.push(Buffer {
            ty: tensor.ty,
            elements: tensor.elements(),
            place,
        });
        self.of.insert(id, number);
        number
    }

    /// Gives a constant a buffer.
    fn constant(&mut self, id: TensorId) {
        if matches!(self.program.tensor(id).def, Def::Constant(..)) && !self.of.contains_key(&id) {
            let buffer = self.add(id, Place::Constant);
            self.constants.push((id, buffer));
        }
    }

    fn bindings(&mut self, named: &[(String, TensorId)]) -> Vec<Binding> {
        let mut found = Vec::new();
        for (name, id) in named {
            let base = self.program.base(*id);
            let buffer = match self.of.get(&base) {
                Some(buffer) => *buffer,
                None => self.add(base, Place::Input),
            };
            let dims = self.program.tensor(*id).dims.clone();
            found.push(Binding {
                name: name.clone(),
                buffer,
                dims,
            });
        }
        found
    }

    /// Items that depend on constants alone, and the others.
    fn phases(&self, traffic: &[Traffic]) -> (Vec<usize>, Vec<usize>) {
        let mut fixed: BTreeSet<TensorId> = BTreeSet::new();
        let (mut once, mut every) = (Vec::new(), Vec::new());
        for (item, Traffic { reads, writes }) in traffic.iter().enumerate() {
            let constant = |id: &TensorId| {
                fixed.contains(id) || matches!(self.program.tensor(*id).def, Def::Constant(..))
            };
            if reads.iter().all(constant) {
                fixed.extend(writes);
                once.push(item);
            } else {
                every.push(item);
            }
        }
        (once, every)
    }

    /// Gives the results of items their places; returns the size of the arena.
    fn arena(
        &mut self,
        traffic: &[Traffic],
        every: &[usize],
        replaced: &BTreeMap<TensorId, TensorId>,
    ) -> u64 {
        let outputs: BTreeSet<TensorId> = self
            .program
            .outputs
            .iter()
            .map(|(_, id)| self.program.base(*id))
            .collect();
        let mut lifetimes = Vec::new();
        let mut placed = Vec::new();
        for (step, &item) in every.iter().enumerate() {
            for &id in &traffic[item].writes {
                if let Some(old) = replaced.get(&id) {
                    let memory = self.of.get(old).copied().unwrap_or_default();
                    self.add(id, Place::Within(memory));
                    continue;
                }
                let reader = every
                    .iter()
                    .rposition(|&item| traffic[item].reads.contains(&id));
                let last = match outputs.contains(&id) {
                    true => every.len(),
                    false => reader.unwrap_or(step).max(step),
                };
                let tensor = self.program.tensor(id);
                let bytes = tensor.elements() * tensor.ty.bytes();
                lifetimes.push(Lifetime {
                    first: step,
                    last,
                    bytes,
                });
                placed.push(id);
            }
        }
        let (offsets, size) = place(&lifetimes);
        for (id, offset) in placed.into_iter().zip(offsets) {
            self.add(id, Place::Arena(offset));
        }
        size
    }

    fn buffer(&self, id: TensorId) -> BufferId {
        let found = self.of.get(&self.program.base(id));
        debug_assert!(found.is_some(), "tensor {id} has no memory");
        found.copied().unwrap_or_default()
    }

    fn step(&mut self, item: usize, replaced: &BTreeMap<TensorId, TensorId>) -> Step {
        match &self.items[item] {
            Item::Call(id) => {
                let result = self.buffer(*id);
                match &self.program.tensor(*id).def {
                    Def::Call(Call::Convolution {
                        convolution,
                        operands,
                    }) => Step::Convolution {
                        convolution: convolution.clone(),
                        operands: operands.map(|id| self.buffer(id)),
                        result,
                    },
                    Def::Call(Call::Product {
                        product,
                        factors,
                        added,
                    }) => Step::Product {
                        product: product.clone(),
                        operands: factors.map(|id| self.buffer(id)),
                        added: added.map(|id| self.buffer(id)),
                        result,
                    },
                    // Items name calls only.
                    _ => Step::Copy {
                        from: result,
                        to: result,
                    },
                }
            }
            Item::Kernel(space) => {
                let made = self.kernel(space, replaced);
                self.launch(made)
            }
            Item::Many(spaces) => match many(self.program, spaces, replaced) {
                Some(made) => self.launch(made),
                None => unreachable!("kernels of one form have a common one"),
            },
        }
    }

    fn kernel(&self, space: &Space, replaced: &BTreeMap<TensorId, TensorId>) -> Kernel {
        let written = space
            .members
            .iter()
            .filter_map(|member| replaced.get(&member.tensor));
        let aliased: Aliases = written.copied().collect();
        kernel(self.program, space, &aliased)
    }

    fn launch(&mut self, made: Kernel) -> Step {
        let arguments = made
            .parameters
            .iter()
            .map(|parameter| self.buffer(parameter.tensor))
            .collect();
        let kernel = match self.numbers.get(&made.name) {
            Some(number) => *number,
            None => {
                let types = made
                    .parameters
                    .iter()
                    .map(|p| self.program.tensor(p.tensor).ty);
                self.kernels.push(Source {
                    name: made.name.clone(),
                    text: made.text,
                    parameters: types.collect(),
                    writes: made.parameters.iter().filter(|p| p.written).count(),
                    table: made.table,
                    syncs: made.syncs,
                });
                self.numbers.insert(made.name, self.kernels.len() - 1);
                self.kernels.len() - 1
            }
        };
        Step::Launch {
            kernel,
            blocks: made.blocks,
            arguments,
        }
    }
}
