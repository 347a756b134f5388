//! Execution plans: what runs, in which order, and where its numbers are.
//!
//! A [`Plan`] holds everything but the numbers: its JSON is what other programs need to run it. Buffers of the arena
//! share memory where their lifetimes allow; every step writes to fixed places, so a run can be captured as one CUDA
//! graph.

mod arena;
mod build;
mod state;
mod tail;

use bcosc_engine::Precision;
use serde::{Deserialize, Serialize};

pub use arena::Lifetime;
pub use build::{Planned, plan, plan_in};

use crate::expr::Type;
use crate::program::{Added, Convolution, Product};

/// Every buffer starts at a multiple of so many bytes.
pub const ALIGNMENT: u64 = 256;

/// The version of plans as JSON. It changes with what a program that runs them must know.
pub const VERSION: u32 = 1;

/// The number of a buffer.
pub type BufferId = usize;

/// What runs, in which order, and where its numbers are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`VERSION`].
    pub version: u32,
    /// How products are rounded.
    #[serde(with = "named")]
    pub precision: Precision,
    /// Inputs, in the order of the graph.
    pub inputs: Vec<Binding>,
    /// Outputs, in the order of the graph.
    pub outputs: Vec<Binding>,
    /// Outputs whose memory is that of an input, which they replace.
    pub state: Vec<State>,
    /// Constants of the model that are read.
    pub constants: Vec<Binding>,
    /// Where numbers are.
    pub buffers: Vec<Buffer>,
    /// Kernels by number.
    pub kernels: Vec<Source>,
    /// Steps that depend on constants alone; they run once.
    pub prepare: Vec<Step>,
    /// Steps of every run.
    pub steps: Vec<Step>,
    /// Bytes of the arena.
    pub arena: u64,
    /// Bytes of what is prepared.
    pub prepared: u64,
}

/// A tensor by name, and its buffer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The name in the graph.
    pub name: String,
    /// The buffer.
    pub buffer: BufferId,
    /// Sizes.
    pub dims: Vec<u64>,
}

/// An output that is the next value of an input. After a run the input's buffer holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The number of the input.
    pub input: usize,
    /// The number of the output.
    pub output: usize,
}

/// A place for numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffer {
    /// Element type.
    #[serde(rename = "type")]
    pub ty: Type,
    /// Number of elements.
    pub elements: u64,
    /// Where it is.
    pub place: Place,
}

impl Buffer {
    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.elements * self.ty.bytes()
    }
}

/// Where a buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// In memory of its own, filled by the caller before a run.
    Input,
    /// In memory of its own, filled once from the model.
    Constant,
    /// In what is prepared, from this byte on.
    Prepared(u64),
    /// In the arena, from this byte on.
    Arena(u64),
    /// In another buffer.
    Within(BufferId),
}

/// A kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Its text, which [`crate::kernels::PRELUDE`] precedes; empty where it is in a file of its own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Element types of its parameters; those that it writes come first.
    pub parameters: Vec<Type>,
    /// How many parameters it writes. It may read what is there first.
    pub writes: usize,
    /// How many parameters, from the first on, are pointers in a structure that is passed by value.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub table: usize,
    /// Whether threads of a block wait for one another.
    pub syncs: bool,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// A kernel.
    Launch {
        /// Its number.
        kernel: usize,
        /// Blocks of [`crate::kernels::THREADS`] threads.
        blocks: u64,
        /// A buffer for each parameter.
        arguments: Vec<BufferId>,
    },
    /// A convolution of the library.
    Convolution {
        /// Which, and its sizes.
        convolution: Convolution,
        /// `[x, w]`, `[dy, w]` or `[x, dy]`.
        operands: [BufferId; 2],
        /// What it writes.
        result: BufferId,
    },
    /// Products of matrices of the library.
    Product {
        /// Sizes and strides.
        product: Product,
        /// The factors.
        operands: [BufferId; 2],
        /// What is added to the products.
        #[serde(default, skip_serializing_if = "Added::is_empty")]
        added: Added<BufferId>,
        /// What it writes.
        result: BufferId,
    },
    /// A copy of a whole buffer.
    Copy {
        /// What is read.
        from: BufferId,
        /// What is written.
        to: BufferId,
    },
}

impl Step {
    /// The buffers that it reads.
    pub fn reads(&self, kernels: &[Source]) -> Vec<BufferId> {
        match self {
            Step::Launch {
                kernel, arguments, ..
            } => {
                let writes = kernels.get(*kernel).map_or(0, |kernel| kernel.writes);
                arguments.iter().skip(writes).copied().collect()
            }
            Step::Convolution { operands, .. } => operands.to_vec(),
            Step::Product {
                operands, added, ..
            } => operands.iter().copied().chain(added.operands()).collect(),
            Step::Copy { from, .. } => vec![*from],
        }
    }

    /// The buffers that it writes.
    pub fn writes(&self, kernels: &[Source]) -> Vec<BufferId> {
        match self {
            Step::Launch {
                kernel, arguments, ..
            } => {
                let writes = kernels.get(*kernel).map_or(0, |kernel| kernel.writes);
                arguments.iter().take(writes).copied().collect()
            }
            Step::Convolution { result, .. } | Step::Product { result, .. } => vec![*result],
            Step::Copy { to, .. } => vec![*to],
        }
    }
}

/// A precision by its name.
mod named {
    use bcosc_engine::Precision;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(precision: &Precision, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(precision)
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Precision, D::Error> {
        let name = String::deserialize(from)?;
        name.parse().map_err(D::Error::custom)
    }
}

impl Plan {
    /// The buffer that has the memory of another.
    pub fn memory(&self, mut buffer: BufferId) -> BufferId {
        while let Some(Buffer {
            place: Place::Within(other),
            ..
        }) = self.buffers.get(buffer)
        {
            buffer = *other;
        }
        buffer
    }

    /// The plan as JSON.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}
