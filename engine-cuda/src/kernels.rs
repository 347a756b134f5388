//! Kernels as CUDA C: readable, without includes, the same text for the same computation.
//!
//! A kernel reads tensors `x0`, `x1` ... and writes `y0`, `y1` ...; its name ends with a checksum of its text, by which
//! it is cached. [`PRELUDE`] comes before it.

mod c;
mod emit;
mod exchange;
mod many;
mod pointwise;
mod rows;

use std::collections::{BTreeMap, BTreeSet};

use crc::{CRC_64_XZ, Crc};

use crate::expr::{TensorId, Type};
use crate::fuse::{Kind, Member, Space};
use crate::program::Program;

pub(crate) use many::{ADDRESSES, Form, many};

/// What kernels use: four numbers in one access, and functions that CUDA has in another form.
pub const PRELUDE: &str = include_str!("kernels/prelude.cu");

/// Threads of a block.
pub const THREADS: u64 = 256;

/// A kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its name.
    pub name: String,
    /// Its text, without the prelude.
    pub text: String,
    /// Its parameters, in order.
    pub parameters: Vec<Parameter>,
    /// How many of them, from the first on, come as one structure.
    pub table: usize,
    /// Blocks of [`THREADS`] threads.
    pub blocks: u64,
    /// Whether threads of a block wait for one another.
    pub syncs: bool,
}

/// A parameter of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The tensor.
    pub tensor: TensorId,
    /// Whether it is written.
    pub written: bool,
}

/// What a kernel does with a tensor's memory beyond the tensor itself.
pub type Aliases = BTreeSet<TensorId>;

/// Writes the kernel of a space. What `aliased` names is read from memory that the kernel writes, each element by the
/// thread that writes it, after the read.
pub fn kernel(program: &Program, space: &Space, aliased: &Aliases) -> Kernel {
    let body = match space.reduced.is_empty() {
        true => pointwise::body(program, space),
        false => rows::body(program, space),
    };
    let mut parameters = Vec::new();
    let mut signature = Vec::new();
    let declared = |id: TensorId| program.tensor(id).ty;
    for (id, name) in &body.written {
        parameters.push(Parameter {
            tensor: *id,
            written: true,
        });
        signature.push(format!("{}* {name}", declared(*id).c()));
    }
    for (id, name) in &body.read {
        parameters.push(Parameter {
            tensor: *id,
            written: false,
        });
        let restrict = if aliased.contains(id) {
            ""
        } else {
            " __restrict__"
        };
        signature.push(format!("const {}*{restrict} {name}", declared(*id).c()));
    }
    let kind = if space.reduced.is_empty() {
        "map"
    } else {
        "rows"
    };
    let rest = format!("({})\n{{\n{}}}\n", signature.join(", "), body.text);
    checked(
        kind,
        &body.comment,
        (parameters, 0),
        body.blocks,
        body.syncs,
        |name| format!("extern \"C\" __global__ void {name}{rest}"),
    )
}

/// A kernel with its name, of which the text must have nothing but copies.
fn checked(
    kind: &str,
    comment: &str,
    (parameters, table): (Vec<Parameter>, usize),
    blocks: u64,
    syncs: bool,
    text: impl Fn(&str) -> String,
) -> Kernel {
    let checksum = Crc::<u64>::new(&CRC_64_XZ).checksum(text("").as_bytes());
    let name = format!("{kind}_{checksum:016x}");
    Kernel {
        text: format!("// {comment}\n{}", text(&name)),
        name,
        parameters,
        table,
        blocks,
        syncs,
    }
}

/// The inside of a kernel.
struct Body {
    comment: String,
    text: String,
    read: Vec<(TensorId, String)>,
    written: Vec<(TensorId, String)>,
    blocks: u64,
    syncs: bool,
}

/// Names of what a kernel writes.
fn written(space: &Space) -> Vec<(TensorId, String)> {
    let stored = space.members.iter().filter(|member| member.stored);
    stored
        .enumerate()
        .map(|(n, member)| (member.tensor, format!("y{n}")))
        .collect()
}

/// Whether positions need 64 bits.
fn is_long(program: &Program, space: &Space) -> bool {
    let mut largest: u64 = space.dims.iter().product();
    for member in &space.members {
        largest = largest.max(program.tensor(member.tensor).elements());
        member
            .expr
            .reads(&mut |id, _| largest = largest.max(program.tensor(id).elements()));
    }
    largest > i32::MAX as u64 / 2
}

/// The members of a space, and their places in it, by tensor.
fn members(space: &Space) -> BTreeMap<TensorId, (usize, &Member)> {
    let placed = space.members.iter().enumerate();
    placed
        .map(|(place, member)| (member.tensor, (place, member)))
        .collect()
}

/// The type of four numbers in one access.
fn four(ty: Type) -> &'static str {
    match ty {
        Type::F32 => "floatx4",
        Type::F64 => "doublex4",
        Type::Bf16 => "bf16x4",
        Type::I64 => "longx4",
        Type::I32 => "intx4",
        Type::U8 => "bytex4",
        Type::Bool => "boolx4",
    }
}

/// The pass of each member: how many passes must be done before it can be computed. What a reduction finds is known
/// after its pass.
pub(crate) fn levels(space: &Space) -> BTreeMap<TensorId, usize> {
    let mut known: BTreeMap<TensorId, usize> = BTreeMap::new();
    let mut levels = BTreeMap::new();
    for member in &space.members {
        let mut level = 0;
        member
            .expr
            .reads(&mut |id, _| level = level.max(known.get(&id).copied().unwrap_or(0)));
        levels.insert(member.tensor, level);
        let after = usize::from(matches!(member.kind, Kind::Reduced(_)));
        known.insert(member.tensor, level + after);
    }
    levels
}

/// Numbers of rows that nothing needs but what is written: one thread of each row computes them, at the end.
pub(crate) fn results(space: &Space) -> BTreeSet<TensorId> {
    let mut needed: BTreeSet<TensorId> = BTreeSet::new();
    let mut results = BTreeSet::new();
    for member in space.members.iter().rev() {
        if member.kind == Kind::Row && !needed.contains(&member.tensor) {
            results.insert(member.tensor);
        } else {
            member.expr.reads(&mut |id, _| {
                needed.insert(id);
            });
        }
    }
    results
}
