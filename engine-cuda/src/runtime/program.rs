//! A plan in a device's memory, with kernels loaded and algorithms chosen: what is enqueued for a run.

use std::sync::Arc;

use bcosc_engine::EngineError;
use cudarc::driver::result as driver;
use cudarc::driver::sys::CUstream;

use super::found::Known;
use super::gpu::{Gpu, Libraries, failed};
use super::kernel::Kernel;
use super::memory::Memory;
use super::{Space, convolution, product};
use crate::plan::{BufferId, Place, Plan, Planned, Step};
use crate::program::{Added, Convolution};

/// Workspace that products of matrices may take.
const SPACE_OF_PRODUCTS: u64 = 32 << 20;
/// Least workspace that a search may use, and how many times that of its operands.
const SPACE: u64 = 1 << 30;
const SPACE_OF_OPERANDS: u64 = 8;

/// A plan that is ready to run on a device.
#[derive(Debug)]
pub struct Program {
    /// The plan.
    pub plan: Plan,
    /// What each buffer is in.
    memory: Vec<(Arc<Memory>, u64)>,
    kernels: Vec<Kernel>,
    prepare: Vec<Operation>,
    steps: Vec<Operation>,
    space: Memory,
}

/// A step with what it needs.
#[derive(Debug)]
enum Operation {
    Launch {
        kernel: usize,
        blocks: u32,
        addresses: Vec<u64>,
    },
    Convolution {
        prepared: convolution::Prepared,
        addresses: [u64; 3],
    },
    Product {
        prepared: product::Prepared,
        addresses: [u64; 3],
    },
    Copy {
        from: u64,
        to: u64,
        bytes: u64,
    },
}

impl Program {
    /// Loads a plan: compiles kernels, uploads constants, chooses algorithms, and runs what depends on constants alone.
    pub fn load(gpu: &Arc<Gpu>, planned: Planned) -> Result<Self, EngineError> {
        let Planned { plan, constants } = planned;
        let precision = plan.precision;
        let libraries = gpu.lock()?;
        libraries.run_on(gpu.stream())?;
        let load = |source| Kernel::load(gpu, source, precision);
        let kernels = plan.kernels.iter().map(load);
        let kernels = kernels.collect::<Result<Vec<_>, _>>()?;
        let memory = places(gpu, &plan)?;
        for (binding, values) in plan.constants.iter().zip(&constants) {
            let (memory, _) = place_of(&memory, binding.buffer)?;
            memory.fill(&values.bytes()?)?;
        }
        let mut loading = Loading {
            gpu,
            plan: &plan,
            memory: &memory,
            libraries: &libraries,
            known: Known::read(),
            searched: false,
        };
        let prepare = loading.operations(&plan.prepare);
        let loaded = prepare.and_then(|prepare| Ok((prepare, loading.operations(&plan.steps)?)));
        // Workspaces of searches are many times what a run needs.
        let trimmed = match loading.searched {
            true => gpu.give_back_unused(),
            false => Ok(()),
        };
        let (prepare, steps) = loaded?;
        trimmed?;
        loading.known.write();
        let needed = prepare.iter().chain(&steps).map(Operation::space).max();
        let space = Memory::new(gpu, needed.unwrap_or(0))?;
        let program = Program {
            memory,
            kernels,
            prepare,
            steps,
            space,
            plan,
        };
        program.enqueue(&program.prepare, &libraries, gpu.stream())?;
        Ok(program)
    }

    /// The memory of a buffer that has its own.
    pub fn memory(&self, buffer: BufferId) -> Result<&(Arc<Memory>, u64), EngineError> {
        place_of(&self.memory, buffer)
    }

    /// Enqueues the steps of a run.
    pub fn run(&self, libraries: &Libraries, stream: CUstream) -> Result<(), EngineError> {
        self.enqueue(&self.steps, libraries, stream)
    }

    fn enqueue(
        &self,
        operations: &[Operation],
        libraries: &Libraries,
        stream: CUstream,
    ) -> Result<(), EngineError> {
        libraries.run_on(stream)?;
        let space = Space {
            address: self.space.address(),
            bytes: self.space.bytes(),
        };
        for operation in operations {
            match operation {
                Operation::Launch {
                    kernel,
                    blocks,
                    addresses,
                } => {
                    let kernel = self.kernels.get(*kernel).ok_or_else(no_such_buffer)?;
                    kernel.launch(*blocks, addresses, stream)?;
                }
                Operation::Convolution {
                    prepared,
                    addresses,
                } => {
                    prepared.run(libraries.cudnn, *addresses, space)?;
                }
                Operation::Product {
                    prepared,
                    addresses,
                } => {
                    prepared.run(libraries.lt, *addresses, space, stream)?;
                }
                Operation::Copy { from, to, bytes } => {
                    let bytes = usize::try_from(*bytes).unwrap_or(0);
                    // SAFETY: both are buffers of the plan, of this size.
                    unsafe { driver::memcpy_dtod_async(*to, *from, bytes, stream) }
                        .map_err(failed("a copy"))?;
                }
            }
        }
        Ok(())
    }
}

/// The memory of each buffer.
fn places(gpu: &Arc<Gpu>, plan: &Plan) -> Result<Vec<(Arc<Memory>, u64)>, EngineError> {
    let [arena, prepared] = [plan.arena, plan.prepared].map(|bytes| Memory::new(gpu, bytes));
    let (arena, prepared) = (Arc::new(arena?), Arc::new(prepared?));
    let mut found: Vec<(Arc<Memory>, u64)> = Vec::with_capacity(plan.buffers.len());
    for buffer in &plan.buffers {
        found.push(match buffer.place {
            Place::Input | Place::Constant => (Arc::new(Memory::new(gpu, buffer.bytes())?), 0),
            Place::Arena(offset) => (arena.clone(), offset),
            Place::Prepared(offset) => (prepared.clone(), offset),
            Place::Within(other) => found.get(other).cloned().ok_or_else(no_such_buffer)?,
        });
    }
    Ok(found)
}

fn place_of(
    memory: &[(Arc<Memory>, u64)],
    buffer: BufferId,
) -> Result<&(Arc<Memory>, u64), EngineError> {
    memory.get(buffer).ok_or_else(no_such_buffer)
}

fn no_such_buffer() -> EngineError {
    EngineError::Load {
        place: "the plan".to_owned(),
        reason: "it names a buffer or a kernel that it does not have".to_owned(),
    }
}

struct Loading<'a> {
    gpu: &'a Arc<Gpu>,
    plan: &'a Plan,
    memory: &'a [(Arc<Memory>, u64)],
    libraries: &'a Libraries,
    known: Known,
    /// Whether algorithms were measured.
    searched: bool,
}

impl Loading<'_> {
    fn address(&self, buffer: BufferId) -> Result<u64, EngineError> {
        let (memory, offset) = place_of(self.memory, buffer)?;
        Ok(memory.address() + offset)
    }

    fn addresses(
        &self,
        operands: &[BufferId; 2],
        result: BufferId,
    ) -> Result<[u64; 3], EngineError> {
        Ok([
            self.address(operands[0])?,
            self.address(operands[1])?,
            self.address(result)?,
        ])
    }

    fn operations(&mut self, steps: &[Step]) -> Result<Vec<Operation>, EngineError> {
        steps.iter().map(|step| self.operation(step)).collect()
    }

    fn operation(&mut self, step: &Step) -> Result<Operation, EngineError> {
        let plan = self.plan;
        let buffer = |id: BufferId| plan.buffers.get(id).ok_or_else(no_such_buffer);
        Ok(match step {
            Step::Launch {
                kernel,
                blocks,
                arguments,
            } => Operation::Launch {
                kernel: *kernel,
                blocks: u32::try_from(*blocks).map_err(|_| no_such_buffer())?,
                addresses: arguments
                    .iter()
                    .map(|id| self.address(*id))
                    .collect::<Result<_, _>>()?,
            },
            Step::Copy { from, to } => Operation::Copy {
                from: self.address(*from)?,
                to: self.address(*to)?,
                bytes: buffer(*from)?.bytes(),
            },
            Step::Product {
                product,
                operands,
                added,
                result,
            } => Operation::Product {
                prepared: product::Prepared::new(
                    self.libraries.lt,
                    product,
                    product::Types {
                        factors: buffer(operands[0])?.ty,
                        result: buffer(*result)?.ty,
                    },
                    plan.precision,
                    Added {
                        bias: added.bias.map(|id| self.address(id)).transpose()?,
                        sum: added.sum.map(|id| self.address(id)).transpose()?,
                    },
                    SPACE_OF_PRODUCTS,
                )?,
                addresses: self.addresses(operands, *result)?,
            },
            Step::Convolution {
                convolution,
                operands,
                result,
            } => {
                let addresses = self.addresses(operands, *result)?;
                let bytes = [operands[0], operands[1], *result]
                    .into_iter()
                    .map(|id| Ok(buffer(id)?.bytes()));
                let bytes = bytes
                    .collect::<Result<Vec<u64>, EngineError>>()?
                    .into_iter()
                    .sum();
                let prepared =
                    self.convolution(convolution, addresses, bytes, buffer(*result)?.ty)?;
                Operation::Convolution {
                    prepared,
                    addresses,
                }
            }
        })
    }

    /// A convolution with the algorithm that was found before, or is found now.
    fn convolution(
        &mut self,
        convolution: &Convolution,
        addresses: [u64; 3],
        bytes: u64,
        ty: crate::expr::Type,
    ) -> Result<convolution::Prepared, EngineError> {
        let key = format!(
            "{} | cuDNN {} | {:?} {:?} | {convolution:?}",
            self.gpu.name,
            self.gpu.cudnn_version(),
            self.plan.precision,
            ty
        );
        // With a larger batch, algorithms that are many times faster need more.
        let most = SPACE
            .max(SPACE_OF_OPERANDS * bytes)
            .min(self.gpu.free_bytes()? / 2);
        let known = self.known.get(&key);
        let known = known.filter(|algorithm| algorithm.space <= most);
        let mut held = None;
        let search = || {
            let memory = Memory::new(self.gpu, most)?;
            let space = Space {
                address: memory.address(),
                bytes: most,
            };
            held = Some(memory);
            Ok((addresses, space))
        };
        let prepared = convolution::Prepared::new(
            self.libraries.cudnn,
            convolution,
            ty,
            self.plan.precision,
            known,
            search,
        );
        self.searched |= held.is_some();
        let prepared = prepared?;
        if held.is_some() {
            self.known.insert(key, prepared.algorithm);
        }
        Ok(prepared)
    }
}

impl Operation {
    fn space(&self) -> u64 {
        match self {
            Operation::Convolution { prepared, .. } => prepared.algorithm.space,
            Operation::Product { prepared, .. } => prepared.space,
            Operation::Launch { .. } | Operation::Copy { .. } => 0,
        }
    }
}
