//! What shares kernels: at the end of a run the optimiser's work on parameters, at its beginning copies of weights.
//!
//! A kernel whose results are outputs, or are needed by such kernels alone, can wait. It does where nothing must be kept in
//! memory longer for it: its inputs are no larger than what it writes, or are kept anyway. Those that wait and have one form
//! become one kernel. State is then read by everything else before it is written over.
//!
//! What is made of inputs alone, such as weights in bf16, can come first, and does where others have its form. It is kept longer
//! then, but weights are needed again in the backward part anyway.

use std::collections::{BTreeMap, BTreeSet};

use crate::expr::TensorId;
use crate::fuse::{Item, Space};
use crate::kernels::{ADDRESSES, Form};
use crate::program::{Def, Program};

/// The items in their new order.
pub(super) fn gather(program: &Program, items: Vec<Item>) -> Vec<Item> {
    let waiting = waiting(program, &items);
    let (mut found, items): (Vec<Item>, Vec<(Item, bool)>) = first(program, items, waiting);
    let mut levels: BTreeMap<TensorId, usize> = BTreeMap::new();
    // By level and form, in the order in which forms come first.
    let mut last: Vec<Vec<(Option<Form>, Vec<Space>)>> = Vec::new();
    for (item, waits) in items {
        let Item::Kernel(space) = item else {
            found.push(item);
            continue;
        };
        if !waits {
            found.push(Item::Kernel(space));
            continue;
        }
        let reads = space.reads();
        let before = reads.iter().filter_map(|id| levels.get(id));
        let level = before.max().map_or(0, |level| level + 1);
        levels.extend(space.members.iter().map(|member| (member.tensor, level)));
        if last.len() <= level {
            last.resize_with(level + 1, Vec::new);
        }
        let form = Form::of(program, &space).map(|(form, _)| form);
        let groups = &mut last[level];
        let has_room = |group: &&mut (Option<Form>, Vec<Space>)| {
            let (own, spaces) = group;
            let room = form.as_ref().map_or(0, |form| ADDRESSES / form.columns());
            own.is_some() && *own == form && spaces.len() < room
        };
        match groups.iter_mut().find(has_room) {
            Some((_, spaces)) => spaces.push(space),
            None => groups.push((form, vec![space])),
        }
    }
    for (_, mut spaces) in last.into_iter().flatten() {
        found.push(match (spaces.len(), spaces.pop()) {
            (1, Some(space)) => Item::Kernel(space),
            (_, last) => {
                spaces.extend(last);
                Item::Many(spaces)
            }
        });
    }
    found
}

/// What comes first, and the others.
fn first(
    program: &Program,
    items: Vec<Item>,
    waiting: Vec<bool>,
) -> (Vec<Item>, Vec<(Item, bool)>) {
    let mut groups: BTreeMap<Form, Vec<usize>> = BTreeMap::new();
    for (number, (item, waits)) in items.iter().zip(&waiting).enumerate() {
        let Item::Kernel(space) = item else { continue };
        let reads = space.reads();
        let is_given = |id: &TensorId| matches!(program.tensor(*id).def, Def::Input);
        if *waits || reads.is_empty() || !reads.iter().all(is_given) {
            continue;
        }
        if let Some((form, _)) = Form::of(program, space) {
            groups.entry(form).or_default().push(number);
        }
    }
    let mut shared: BTreeMap<usize, Vec<Space>> = BTreeMap::new();
    let mut leaders: BTreeMap<usize, usize> = BTreeMap::new();
    for (form, numbers) in groups {
        // What has more addresses than a kernel takes stays alone.
        for together in numbers.chunks((ADDRESSES / form.columns()).max(1)) {
            if let [leader, _, ..] = together {
                leaders.extend(together.iter().map(|number| (*number, *leader)));
            }
        }
    }
    let mut others = Vec::new();
    for (number, (item, waits)) in items.into_iter().zip(waiting).enumerate() {
        match (leaders.get(&number), item) {
            (Some(leader), Item::Kernel(space)) => shared.entry(*leader).or_default().push(space),
            (_, item) => others.push((item, waits)),
        }
    }
    (shared.into_values().map(Item::Many).collect(), others)
}

/// Which items wait.
fn waiting(program: &Program, items: &[Item]) -> Vec<bool> {
    let mut readers: BTreeMap<TensorId, Vec<usize>> = BTreeMap::new();
    let mut fixed: BTreeSet<TensorId> = BTreeSet::new();
    let mut every_run = vec![true; items.len()];
    for (number, item) in items.iter().enumerate() {
        let reads = item.reads(program);
        let is_constant = |id: &TensorId| {
            fixed.contains(id) || matches!(program.tensor(*id).def, Def::Constant(..))
        };
        if reads.iter().all(is_constant) {
            fixed.extend(item.writes());
            every_run[number] = false;
        }
        for id in reads {
            readers.entry(id).or_default().push(number);
        }
    }
    let bytes = |id: &TensorId| {
        let tensor = program.tensor(*id);
        tensor.elements() * tensor.ty.bytes()
    };
    let mut waits = vec![false; items.len()];
    // What is kept until the end anyway.
    let mut kept: BTreeSet<TensorId> = BTreeSet::new();
    for (number, item) in items.iter().enumerate().rev() {
        let writes = item.writes();
        let mut after = writes.iter().filter_map(|id| readers.get(id)).flatten();
        let reads = item.reads(program);
        let (state, computed): (Vec<TensorId>, Vec<TensorId>) = reads
            .into_iter()
            .filter(|id| !fixed.contains(id))
            .partition(|id| matches!(program.tensor(*id).def, Def::Input | Def::Constant(..)));
        let longer: u64 = computed
            .iter()
            .filter(|id| !kept.contains(id))
            .map(bytes)
            .sum();
        let own: u64 = writes.iter().chain(&state).map(bytes).sum();
        waits[number] = every_run[number]
            && matches!(item, Item::Kernel(_))
            && after.all(|&reader| waits[reader])
            && longer <= own;
        if waits[number] {
            kept.extend(computed);
        }
    }
    waits
}
