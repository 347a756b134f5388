//! Kernels over rows: reductions, with what comes before and after them in the same kernel.
//!
//! `lanes` threads work on a row. Where the last axis is reduced they are neighbours, and read neighbouring elements;
//! otherwise neighbouring threads have neighbouring rows, for the same reason. A row is gone through in passes: each has
//! the reductions and elements whose numbers per row are known, then lanes exchange what they found.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::c::{binary, literal};
use super::emit::{Emitter, row};
use super::exchange::{accumulator, exchange};
use super::{Body, THREADS, is_long, levels, members, results, written};
use crate::expr::{Expr, Fold, Index, Number, TensorId, unflat};
use crate::fuse::{Kind, Member, Space};
use crate::program::{Program, replacing};

/// The number of a row, and of an element in it.
pub(super) const ROW: u32 = 900;
pub(super) const ELEMENT: u32 = 901;

/// How threads share rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shares {
    /// Threads of a row: 1, 8, 32 or all of a block.
    pub lanes: u64,
    /// Whether they are neighbours.
    pub along: bool,
}

impl Shares {
    pub fn of(space: &Space) -> Self {
        let rows: u64 = space.rows().iter().product();
        let inner: u64 = space.inner().iter().product();
        let along = space.reduced.last() == Some(&(space.dims.len() - 1));
        let lanes = match along {
            true if inner <= 8 && rows >= 1 << 12 => 1,
            true if inner <= 128 || (inner <= 2048 && rows >= 1 << 11) => 32,
            true => THREADS,
            false if rows >= 1 << 15 || inner <= 16 => 1,
            false if rows >= 1 << 11 || inner <= 256 => 8,
            false => 32,
        };
        Shares { lanes, along }
    }

    /// Rows of a block.
    pub fn rows(self) -> u64 {
        THREADS / self.lanes
    }
}

pub(super) fn body(program: &Program, space: &Space) -> Body {
    let (rows_of, inner_of) = (space.rows(), space.inner());
    let rows: u64 = rows_of.iter().product();
    let inner: u64 = inner_of.iter().product();
    let shares = Shares::of(space);
    let placed = placed(space, &rows_of, &inner_of);
    let written = written(space);
    let long = is_long(program, space);
    let vars = [(ROW, "row"), (ELEMENT, "k")];
    let mut e = Emitter::new(program, members(&placed), &vars, long);
    let sizes = Sizes {
        block: "blockIdx.x",
        rows: rows.to_string(),
        inner: inner.to_string(),
        full: rows.is_multiple_of(shares.rows()) || shares.lanes == 1,
        place: place(&placed),
        at: None,
    };
    let syncs = write(&mut e, &placed, shares, &written, sizes);
    let (text, read) = e.finish();
    Body {
        comment: format!(
            "{:?} along axes {:?}, {} threads for a row",
            space.dims, space.reduced, shares.lanes
        ),
        text,
        read,
        written,
        blocks: rows.div_ceil(shares.rows()).max(1),
        syncs,
    }
}

/// Writes the statements of a kernel; says whether threads wait for one another.
pub(super) fn write(
    e: &mut Emitter<'_>,
    space: &Space,
    shares: Shares,
    written: &[(TensorId, String)],
    sizes: Sizes,
) -> bool {
    let mut rows = Rows {
        space,
        shares,
        sizes,
        levels: levels(space),
        results: results(space),
        written,
        syncs: false,
    };
    rows.write(e);
    rows.syncs
}

/// Sizes of a space as C has them.
pub(super) struct Sizes {
    /// The number of a block.
    pub block: &'static str,
    pub rows: String,
    /// Elements of a row.
    pub inner: String,
    /// Whether every group of threads has a row.
    pub full: bool,
    /// Where an element of the space is in memory.
    pub place: Index,
    /// What computes a variable of `place`, for each element.
    pub at: Option<String>,
}

/// Where an element of a space is in memory.
fn place(space: &Space) -> Index {
    let (rows, inner) = (space.rows(), space.inner());
    let count = |sizes: &[u64]| sizes.iter().product::<u64>() as i64;
    let mut of_rows = unflat(&Index::var(ROW, count(&rows)), &rows).into_iter();
    let mut of_inner = unflat(&Index::var(ELEMENT, count(&inner)), &inner).into_iter();
    let axes = (0..space.dims.len()).map(|axis| {
        let reduced = space.reduced.contains(&axis);
        let side = if reduced { &mut of_inner } else { &mut of_rows };
        side.next().unwrap_or_default()
    });
    crate::expr::flat(&axes.collect::<Vec<_>>(), &space.dims)
}

/// A space in terms of the number of a row and of an element in it.
fn placed(space: &Space, rows: &[u64], inner: &[u64]) -> Space {
    let count = |dims: &[u64]| dims.iter().product::<u64>() as i64;
    let mut of_rows = unflat(&Index::var(ROW, count(rows)), rows).into_iter();
    let mut of_inner = unflat(&Index::var(ELEMENT, count(inner)), inner).into_iter();
    let axes = (0..space.dims.len()).map(|axis| {
        let side = if space.reduced.contains(&axis) {
            &mut of_inner
        } else {
            &mut of_rows
        };
        side.next().unwrap_or_default()
    });
    let axes: Vec<Index> = axes.collect();
    let vars = replacing(&axes);
    let members = space.members.iter().map(|member| Member {
        expr: member
            .expr
            .replaced(&vars, &mut |id, ty, at| Rc::new(Expr::Load(id, ty, at))),
        ..member.clone()
    });
    Space {
        members: members.collect(),
        ..space.clone()
    }
}

struct Rows<'a> {
    space: &'a Space,
    shares: Shares,
    sizes: Sizes,
    levels: BTreeMap<TensorId, usize>,
    results: BTreeSet<TensorId>,
    written: &'a [(TensorId, String)],
    syncs: bool,
}

impl Rows<'_> {
    fn write(&mut self, e: &mut Emitter<'_>) {
        let integer = e.integer();
        let Shares { lanes, along } = self.shares;
        let per_block = self.shares.rows();
        let (of_block, lane) = match (lanes, along) {
            (THREADS, _) => ("0".to_owned(), "threadIdx.x".to_owned()),
            (1, _) => ("threadIdx.x".to_owned(), "0".to_owned()),
            (_, true) => (
                format!("threadIdx.x / {lanes}"),
                format!("threadIdx.x % {lanes}"),
            ),
            (_, false) => (
                format!("threadIdx.x % {per_block}"),
                format!("threadIdx.x / {per_block}"),
            ),
        };
        match lanes {
            THREADS => e.line(&format!("const {integer} row = {};", self.sizes.block)),
            _ => e.line(&format!(
                "const {integer} row = ({integer}){} * {per_block} + {of_block};",
                self.sizes.block
            )),
        }
        e.line(&format!("const {integer} lane = {lane};"));
        if lanes == 1 {
            e.line(&format!("if (row >= {}) return;", self.sizes.rows));
        }
        // Threads without a row keep in step with the others.
        let full = self.sizes.full;
        let limit = match full {
            true => self.sizes.inner.clone(),
            false => {
                e.line(&format!(
                    "const {integer} length = row < {} ? {} : 0;",
                    self.sizes.rows, self.sizes.inner
                ));
                "length".to_owned()
            }
        };
        let last = self.levels.values().copied().max().unwrap_or(0);
        for level in 0..=last + 1 {
            self.of_rows(e, level, full);
            if level <= last {
                self.pass(e, level, &limit);
            }
        }
        self.of_one_thread(e);
    }

    fn members(&self, level: usize) -> Vec<Member> {
        let members = self.space.members.iter();
        members
            .filter(|member| self.levels.get(&member.tensor) == Some(&level))
            .cloned()
            .collect()
    }

    /// The name of the number of a row.
    fn name(&self, id: TensorId) -> String {
        row(self
            .space
            .members
            .iter()
            .position(|member| member.tensor == id)
            .unwrap_or(0))
    }

    fn stored(&self, id: TensorId) -> Option<&str> {
        let found = self.written.iter().find(|(tensor, _)| *tensor == id);
        found.map(|(_, name)| name.as_str())
    }

    /// What belongs to the row, once its numbers are known.
    fn of_rows(&self, e: &mut Emitter<'_>, level: usize, full: bool) {
        for member in self.members(level) {
            if member.kind == Kind::Row && !self.results.contains(&member.tensor) {
                let name = self.name(member.tensor);
                let ty = member.expr.ty().c();
                if full {
                    let value = e.value(&member.expr);
                    e.line(&format!("const {ty} {name} = {value};"));
                } else {
                    // Threads without a row have nothing to read.
                    e.line(&format!("{ty} {name} = 0;"));
                    e.block(&format!("if (row < {})", self.sizes.rows), |e| {
                        let value = e.value(&member.expr);
                        e.line(&format!("{name} = {value};"));
                    });
                }
                self.store_row(e, member.tensor, &name);
            }
        }
    }

    /// What nobody but the reader of results needs. No other thread of the row reads what is written over here.
    fn of_one_thread(&self, e: &mut Emitter<'_>) {
        let members = self.space.members.iter();
        let members: Vec<&Member> = members
            .filter(|member| self.results.contains(&member.tensor))
            .collect();
        let write = |e: &mut Emitter<'_>| {
            for member in &members {
                let (name, ty) = (self.name(member.tensor), member.expr.ty().c());
                let value = e.value(&member.expr);
                e.line(&format!("const {ty} {name} = {value};"));
                if let Some(to) = self.stored(member.tensor) {
                    e.line(&format!("{to}[row] = {name};"));
                }
            }
        };
        match self.first_lane() {
            _ if members.is_empty() => {}
            Some(condition) => e.block(&condition, write),
            None => write(e),
        }
    }

    /// The condition that holds for one thread of each row; none where each has one.
    fn first_lane(&self) -> Option<String> {
        match (self.shares.lanes, self.sizes.full) {
            (1, _) => None,
            (_, true) => Some("if (lane == 0)".to_owned()),
            _ => Some(format!("if (lane == 0 && row < {})", self.sizes.rows)),
        }
    }

    fn store_row(&self, e: &mut Emitter<'_>, id: TensorId, value: &str) {
        let Some(name) = self.stored(id) else { return };
        let condition = self.first_lane().map_or(String::new(), |c| c + " ");
        e.line(&format!("{condition}{name}[row] = {value};"));
    }

    /// Goes through the row once.
    fn pass(&mut self, e: &mut Emitter<'_>, level: usize, limit: &str) {
        let members = self.members(level);
        let folds: Vec<(Member, Fold, String)> = members
            .iter()
            .filter_map(|member| match member.kind {
                Kind::Reduced(fold) => Some((member.clone(), fold, self.name(member.tensor))),
                _ => None,
            })
            .collect();
        let elements: Vec<&Member> = members
            .iter()
            .filter(|member| member.kind == Kind::Element && self.stored(member.tensor).is_some())
            .collect();
        if folds.is_empty() && elements.is_empty() {
            return;
        }
        for (member, fold, name) in &folds {
            let ty = member.expr.ty();
            let start = literal(Number::new(ty, fold.neutral(ty)));
            e.line(&format!("{} {name} = {start};", accumulator(ty)));
        }
        let integer = e.integer();
        let lanes = self.shares.lanes;
        let head = format!("for ({integer} k = lane; k < {limit}; k += {lanes})");
        let place = self.sizes.place.clone();
        e.block(&head, |e| {
            if let Some(at) = &self.sizes.at {
                e.line(at);
            }
            for (member, fold, name) in &folds {
                let value = e.value(&member.expr);
                let sum = binary(fold.binary(), member.expr.ty(), name, &value);
                e.line(&format!("{name} = {sum};"));
            }
            for member in &elements {
                let value = e.value(&member.expr);
                let index = e.index(&place);
                if let Some(name) = self.stored(member.tensor) {
                    e.line(&format!("{name}[{index}] = {value};"));
                }
            }
        });
        for (member, fold, name) in &folds {
            exchange(e, self.shares, member.expr.ty(), *fold, name);
            self.syncs |= self.shares.lanes > 1;
            self.store_row(e, member.tensor, name);
        }
    }
}
