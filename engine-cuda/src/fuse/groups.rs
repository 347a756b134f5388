//! Which tensors share a kernel.
//!
//! A tensor joins a group over the same space when it reads a member, or something that a member reads too; every
//! member must be read at the variables of the space, and nothing on the way from the group to the tensor may be
//! computed outside of it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::inline::{Bodies, order};
use super::{Item, Kind, Member, Space, live};
use crate::expr::{Expr, Index, TensorId, Type};
use crate::program::{Def, Program};

/// Members of a kernel.
const MEMBERS: usize = 12;
/// Tensors that a kernel reads.
const READS: usize = 24;
/// Numbers of a row that a kernel reads more than once: they must still be in a cache then.
const ROW: u64 = 8192;
/// Rows that keep a device busy, and so few numbers that nothing does.
const ROWS: u64 = 256;
const FEW: u64 = 1 << 16;

/// Groups tensors and orders the steps.
pub(super) fn group(program: &Program, bodies: Bodies) -> Vec<Item> {
    let live = live(program);
    let mut grouping = Grouping {
        program,
        groups: Vec::new(),
        of: BTreeMap::new(),
        readers: BTreeMap::new(),
    };
    for id in order(program, &live) {
        if let Some(body) = bodies.get(&id) {
            grouping.place(id, body);
        } else if let Def::Call(call) = &program.tensor(id).def {
            let reads: BTreeSet<TensorId> = call.operands().map(|id| program.base(id)).collect();
            grouping.open(Item::Call(id), id, reads);
        }
    }
    grouping.finish()
}

struct Group {
    item: Item,
    /// What it reads from outside.
    reads: BTreeSet<TensorId>,
    /// The groups that compute these.
    after: BTreeSet<usize>,
}

struct Grouping<'a> {
    program: &'a Program,
    groups: Vec<Group>,
    /// The group of each tensor that is computed.
    of: BTreeMap<TensorId, usize>,
    /// The groups that read a tensor.
    readers: BTreeMap<TensorId, BTreeSet<usize>>,
}

/// A tensor in terms of its space.
struct Placed {
    dims: Vec<u64>,
    reduced: Vec<usize>,
    kind: Kind,
    expr: Rc<Expr>,
}

/// The axes that are larger than 1.
fn large(dims: &[u64]) -> Vec<usize> {
    (0..dims.len()).filter(|&axis| dims[axis] != 1).collect()
}

/// An expression with variables renumbered.
fn renumbered(expr: &Rc<Expr>, axes: &[(usize, usize)], dims: &[u64]) -> Rc<Expr> {
    let vars = axes
        .iter()
        .map(|&(from, to)| (from as u32, Index::var(to as u32, dims[to] as i64)));
    let vars = vars.collect();
    expr.replaced(&vars, &mut |id, ty, at| Rc::new(Expr::Load(id, ty, at)))
}

impl Placed {
    fn of(program: &Program, id: TensorId, body: &Rc<Expr>) -> Self {
        let tensor = program.tensor(id);
        let (full, axes, kind) = match &tensor.def {
            Def::Reduce {
                fold, full, axes, ..
            } => (full, &axes[..], Kind::Reduced(*fold)),
            _ => (&tensor.dims, &[][..], Kind::Element),
        };
        let kept = large(full);
        let dims: Vec<u64> = kept.iter().map(|&axis| full[axis]).collect();
        let pairs: Vec<(usize, usize)> = kept.iter().copied().zip(0..).collect();
        let reduced = pairs
            .iter()
            .filter(|(from, _)| axes.contains(from))
            .map(|(_, to)| *to);
        Placed {
            expr: renumbered(body, &pairs, &dims),
            reduced: reduced.collect(),
            dims,
            kind,
        }
    }

    /// The same as a member of a space, if it fits.
    fn within(&self, space: &Space) -> Option<(Kind, Rc<Expr>)> {
        if self.dims == space.dims && (self.reduced == space.reduced || self.kind == Kind::Element)
        {
            return Some((self.kind, self.expr.clone()));
        }
        if self.kind != Kind::Element || space.reduced.is_empty() || self.dims != space.rows() {
            return None;
        }
        let kept = (0..space.dims.len()).filter(|axis| !space.reduced.contains(axis));
        let pairs: Vec<(usize, usize)> = kept.enumerate().collect();
        Some((Kind::Row, renumbered(&self.expr, &pairs, &space.dims)))
    }
}

impl Space {
    /// Whether a read of a member by another is at the variables of the space.
    fn reads_in_place(&self, program: &Program, kind: Kind, read: TensorId, at: &[Index]) -> bool {
        let Some(member) = self.members.iter().find(|member| member.tensor == read) else {
            return true;
        };
        let axes: Vec<usize> = match member.kind {
            Kind::Element if kind == Kind::Row => return false,
            Kind::Element => (0..self.dims.len()).collect(),
            Kind::Row | Kind::Reduced(_) => (0..self.dims.len())
                .filter(|axis| !self.reduced.contains(axis))
                .collect(),
        };
        let own = large(&program.tensor(read).dims);
        own.len() == axes.len()
            && own
                .iter()
                .zip(&axes)
                .all(|(&axis, &var)| at[axis] == Index::var(var as u32, self.dims[var] as i64))
    }

    /// Whether rows are short enough to be read twice, and many enough for one group of threads each.
    fn is_sound(dims: &[u64], reduced: &[usize]) -> bool {
        let inner: u64 = reduced.iter().map(|&axis| dims[axis]).product();
        let all: u64 = dims.iter().product();
        inner <= ROW && (all / inner.max(1) >= ROWS || all <= FEW)
    }
}

impl Grouping<'_> {
    fn open(&mut self, item: Item, id: TensorId, reads: BTreeSet<TensorId>) {
        let group = self.groups.len();
        self.groups.push(Group {
            item,
            reads: BTreeSet::new(),
            after: BTreeSet::new(),
        });
        self.extend(group, id, reads);
    }

    fn extend(&mut self, group: usize, id: TensorId, reads: BTreeSet<TensorId>) {
        self.of.insert(id, group);
        for read in reads {
            match self.of.get(&read) {
                Some(&own) if own == group => continue,
                Some(&other) => {
                    self.groups[group].after.insert(other);
                }
                None => {}
            }
            self.groups[group].reads.insert(read);
            self.readers.entry(read).or_default().insert(group);
        }
    }

    fn place(&mut self, id: TensorId, body: &Rc<Expr>) {
        let placed = Placed::of(self.program, id, body);
        let mut reads = BTreeSet::new();
        placed.expr.reads(&mut |read, _| {
            reads.insert(read);
        });
        let joined = self.candidates(&reads).into_iter().find_map(|group| {
            let (space, kind, expr) = self.joined(group, &placed, &reads)?;
            Some((group, space, kind, expr))
        });
        let member = |kind, expr| Member {
            tensor: id,
            kind,
            expr,
            stored: false,
        };
        match joined {
            Some((group, mut space, kind, expr)) => {
                space.members.push(member(kind, expr));
                self.groups[group].item = Item::Kernel(space);
                self.extend(group, id, reads);
            }
            None => {
                let Placed {
                    dims,
                    reduced,
                    kind,
                    expr,
                } = placed;
                let members = vec![member(kind, expr)];
                self.open(
                    Item::Kernel(Space {
                        dims,
                        reduced,
                        members,
                    }),
                    id,
                    reads,
                );
            }
        }
    }

    /// Groups that a tensor may join: those that it reads, newest first, then those that read the same.
    fn candidates(&self, reads: &BTreeSet<TensorId>) -> Vec<usize> {
        let mut found: Vec<usize> = reads
            .iter()
            .filter_map(|read| self.of.get(read).copied())
            .collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        let large = |read: &&TensorId| self.program.tensor(**read).elements() > FEW / 16;
        let others = reads
            .iter()
            .filter(large)
            .filter_map(|read| self.readers.get(read));
        let mut others: Vec<usize> = others.flatten().copied().collect();
        others.sort_unstable_by(|a, b| b.cmp(a));
        others.truncate(8);
        found.extend(others);
        let mut seen = BTreeSet::new();
        found.retain(|group| seen.insert(*group));
        found
    }

    /// The space of a group with a tensor in it, if that is allowed.
    fn joined(
        &self,
        group: usize,
        placed: &Placed,
        reads: &BTreeSet<TensorId>,
    ) -> Option<(Space, Kind, Rc<Expr>)> {
        let Item::Kernel(space) = &self.groups[group].item else {
            return None;
        };
        if space.members.len() >= MEMBERS {
            return None;
        }
        let mut outside = self.groups[group].reads.clone();
        outside.extend(
            reads
                .iter()
                .filter(|read| self.of.get(read) != Some(&group)),
        );
        if outside.len() > READS {
            return None;
        }
        let mut space = space.clone();
        // A pointwise kernel becomes one over rows.
        if space.reduced.is_empty() && !placed.reduced.is_empty() && space.dims == placed.dims {
            space.reduced.clone_from(&placed.reduced);
        }
        let (kind, expr) = placed.within(&space)?;
        let pointwise = space.reduced.is_empty();
        let one_pass = |kind: Kind| matches!(kind, Kind::Reduced(_));
        let reads_member = reads.iter().any(|read| self.of.get(read) == Some(&group));
        // Reductions that only read the same numbers share one pass, however long it is.
        let shares_pass =
            one_pass(kind) && !reads_member && space.members.iter().all(|m| one_pass(m.kind));
        if !pointwise
            && !shares_pass
            && kind != Kind::Row
            && !Space::is_sound(&space.dims, &space.reduced)
        {
            return None;
        }
        let mut in_place = true;
        expr.reads(&mut |read, at| {
            in_place &= space.reads_in_place(self.program, kind, read, at);
        });
        if !in_place || has_bytes(&expr, kind) {
            return None;
        }
        let others = reads
            .iter()
            .filter_map(|read| self.of.get(read))
            .filter(|&&other| other != group);
        let others: BTreeSet<usize> = others.copied().collect();
        (!self.reaches(&others, group)).then_some((space, kind, expr))
    }

    /// Whether a group comes before one of several others.
    fn reaches(&self, from: &BTreeSet<usize>, to: usize) -> bool {
        let mut open: Vec<usize> = from.iter().copied().collect();
        let mut seen = from.clone();
        while let Some(group) = open.pop() {
            if group == to {
                return true;
            }
            open.extend(self.groups[group].after.iter().filter(|&&g| seen.insert(g)));
        }
        false
    }

    /// Orders the steps, and notes which members others read.
    fn finish(self) -> Vec<Item> {
        let Grouping {
            program,
            groups,
            of,
            readers,
        } = self;
        let outputs: BTreeSet<TensorId> = program
            .outputs
            .iter()
            .map(|(_, id)| program.base(*id))
            .collect();
        let read_elsewhere = |id: TensorId| {
            let own = of.get(&id);
            let mut readers = readers.get(&id).into_iter().flatten();
            outputs.contains(&id) || readers.any(|reader| Some(reader) != own)
        };
        let mut waiting: Vec<usize> = groups.iter().map(|group| group.after.len()).collect();
        let mut next: Vec<Vec<usize>> = vec![Vec::new(); groups.len()];
        for (index, group) in groups.iter().enumerate() {
            group
                .after
                .iter()
                .for_each(|&before| next[before].push(index));
        }
        let mut ready: BTreeSet<usize> = (0..groups.len()).filter(|&g| waiting[g] == 0).collect();
        let mut sequence = Vec::new();
        while let Some(group) = ready.pop_first() {
            sequence.push(group);
            for &after in &next[group] {
                waiting[after] -= 1;
                if waiting[after] == 0 {
                    ready.insert(after);
                }
            }
        }
        let mut items: BTreeMap<usize, Item> =
            groups.into_iter().map(|g| g.item).enumerate().collect();
        let mut ordered = Vec::new();
        for group in sequence {
            let Some(mut item) = items.remove(&group) else {
                continue;
            };
            if let Item::Kernel(space) = &mut item {
                for member in &mut space.members {
                    member.stored = read_elsewhere(member.tensor);
                }
            }
            ordered.push(item);
        }
        ordered
    }
}

/// Whether a reduction combines bytes, which threads cannot exchange; it gets a kernel of its own, in a wider type.
fn has_bytes(expr: &Expr, kind: Kind) -> bool {
    matches!(kind, Kind::Reduced(_)) && matches!(expr.ty(), Type::Bool | Type::U8)
}
