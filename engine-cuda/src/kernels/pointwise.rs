//! Pointwise kernels: a thread for each element, or for four in a row where memory allows.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::emit::Emitter;
use super::{Body, THREADS, four, is_long, members, written};
use crate::expr::{Atom, Expr, Index, TensorId, unflat};
use crate::fuse::{Member, Space};
use crate::program::{Program, replacing};

/// The number of a thread, and the number of an element of its four.
pub(super) const THREAD: u32 = 900;
pub(super) const LANE: u32 = 901;
/// What kernels call them.
pub(super) const VARS: [(u32, &str); 2] = [(THREAD, "i"), (LANE, "lane")];
/// Fewer elements get a thread each.
const FEW: u64 = 1 << 14;

pub(super) fn body(program: &Program, space: &Space) -> Body {
    let count: u64 = space.dims.iter().product();
    let lanes = lanes(program, space);
    let placed = placed(space, count, lanes);
    let written = written(space);
    let threads = count / lanes;
    let long = is_long(program, space);
    let mut e = Emitter::new(program, members(&placed), &VARS, long);
    write(
        &mut e,
        program,
        &placed,
        lanes,
        &written,
        ["blockIdx.x", &threads.to_string()],
    );
    let (text, read) = e.finish();
    Body {
        comment: format!("{:?}, each element by itself", space.dims),
        text,
        read,
        written,
        blocks: threads.div_ceil(THREADS).max(1),
        syncs: false,
    }
}

/// How many elements a thread has.
pub(super) fn lanes(program: &Program, space: &Space) -> u64 {
    let count: u64 = space.dims.iter().product();
    let whole = count.is_multiple_of(4) && count >= FEW;
    match whole && is_worth_it(program, &placed(space, count, 4)) {
        true => 4,
        false => 1,
    }
}

/// Writes the statements of a kernel whose threads have so many elements each; `block` is the number of a block.
pub(super) fn write(
    e: &mut Emitter<'_>,
    program: &Program,
    placed: &Space,
    lanes: u64,
    written: &[(TensorId, String)],
    [block, threads]: [&str; 2],
) {
    let integer = e.integer();
    e.line(&format!(
        "const {integer} i = ({integer}){block} * {THREADS} + threadIdx.x;"
    ));
    e.line(&format!("if (i >= {threads}) return;"));
    let stored = |tensor: TensorId| written.iter().find(|(id, _)| *id == tensor).map(|(_, n)| n);
    if lanes == 1 {
        for member in &placed.members {
            if let Some(name) = stored(member.tensor) {
                let value = e.value(&member.expr);
                e.line(&format!("{name}[i] = {value};"));
            }
        }
    } else {
        let fours = fours(program, placed, e);
        for (expr, id, position) in fours {
            let (ty, name, start) = (program.tensor(id).ty, e.tensor(id), e.index(&position));
            let four = four(ty);
            let value = e.name("four");
            e.line(&format!(
                "const {four} {value} = *(const {four}*)({name} + {start});"
            ));
            e.learn(expr, format!("{value}.at[lane]"));
        }
        for (id, name) in written {
            e.line(&format!("{} {name}_four;", four(program.tensor(*id).ty)));
        }
        e.line("#pragma unroll");
        e.block("for (int lane = 0; lane < 4; ++lane)", |e| {
            for member in &placed.members {
                if let Some(name) = stored(member.tensor) {
                    let value = e.value(&member.expr);
                    e.line(&format!("{name}_four.at[lane] = {value};"));
                }
            }
        });
        for (id, name) in written {
            let four = four(program.tensor(*id).ty);
            e.line(&format!("*({four}*)({name} + 4 * i) = {name}_four;"));
        }
    }
}

/// A space in terms of a thread's number, and of the element among its four.
fn placed(space: &Space, count: u64, lanes: u64) -> Space {
    let thread = Index::var(THREAD, (count / lanes) as i64);
    let position = thread
        .times(lanes as i64)
        .plus(&Index::var(LANE, lanes as i64));
    let vars = replacing(&unflat(&position, &space.dims));
    let members = space.members.iter().map(|member| Member {
        expr: member
            .expr
            .replaced(&vars, &mut |id, ty, at| Rc::new(Expr::Load(id, ty, at))),
        ..member.clone()
    });
    Space {
        dims: space.dims.clone(),
        reduced: Vec::new(),
        members: members.collect(),
    }
}

/// How the four elements of a thread read a tensor.
#[derive(PartialEq)]
enum Access {
    /// All the same.
    Same,
    /// Four in a row, at a multiple of four: this one first.
    Four(Index),
    /// From four places.
    Apart,
}

fn access(position: &Index) -> Access {
    if !names_lane(position) {
        return Access::Same;
    }
    let mut rest = position.clone();
    let alone = rest.terms.remove(&Atom::Var(LANE, 4)) == Some(1);
    let aligned = rest.constant % 4 == 0 && rest.terms.values().all(|factor| factor % 4 == 0);
    match alone && aligned && !names_lane(&rest) {
        true => Access::Four(rest),
        false => Access::Apart,
    }
}

/// Whether an index differs among the four. Computed indices may.
fn names_lane(index: &Index) -> bool {
    let found = Cell::new(false);
    let var = &mut |var, _| found.set(found.get() || var == LANE);
    index.visit(var, &mut |_| found.set(true));
    found.get()
}

/// Reads of tensors that the kernel does not compute.
fn reads<'s>(space: &'s Space) -> impl Iterator<Item = (TensorId, Vec<Index>)> + 's {
    let own: BTreeSet<TensorId> = space.members.iter().map(|member| member.tensor).collect();
    let mut found = BTreeSet::new();
    for member in &space.members {
        member.expr.reads(&mut |id, at| {
            if !own.contains(&id) {
                found.insert((id, at.to_vec()));
            }
        });
    }
    found.into_iter()
}

/// Whether most reads are of four in a row, and nothing loops.
fn is_worth_it(program: &Program, space: &Space) -> bool {
    let mut loops = false;
    let (mut good, mut bad) = (0, 0);
    for (id, at) in reads(space) {
        at.iter()
            .for_each(|index| index.visit(&mut |var, _| loops |= var > LANE, &mut |_| {}));
        let position = crate::expr::flat(&at, &program.tensor(id).dims);
        match access(&position) {
            Access::Apart => bad += 1,
            Access::Same | Access::Four(_) => good += 1,
        }
    }
    !loops && good >= bad
}

/// The reads of four in a row that are certainly inside of their tensors.
fn fours(program: &Program, space: &Space, e: &Emitter<'_>) -> Vec<(Rc<Expr>, TensorId, Index)> {
    let mut found = BTreeMap::new();
    for (id, at) in reads(space) {
        if let Access::Four(position) = access(&e.position(id, &at))
            && e.is_inside(id, &at)
        {
            let expr = Rc::new(Expr::Load(id, program.tensor(id).ty, at));
            found.insert(expr, (id, position));
        }
    }
    found
        .into_iter()
        .map(|(expr, (id, position))| (expr, id, position))
        .collect()
}
