//! Applies a table of rules until none matches.
//!
//! A node is visited again only if a neighbour changed, so the work is linear in the number of changes. Every rule
//! removes an operator or moves one closer to the inputs, so the worklist
//! terminates.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bcosc_ir::ops::{self, Trait};
use bcosc_ir::{Graph, Model, NodeId, Op, Patch, Use, Value};

use crate::{Outcome, PassError, Reason};

/// One way to rewrite one kind of operator.
pub(crate) struct Rule {
    /// Standard operators that it applies to.
    pub ops: Ops,
    /// Description for the report.
    pub what: &'static str,
    /// The rewrite, or the reason why it does not apply.
    pub rewrite: fn(&Site<'_>) -> Result<Patch, Reason>,
}

/// Standard operators.
pub(crate) enum Ops {
    /// Those of these names.
    Named(&'static [&'static str]),
    /// Those with a trait.
    Having(Trait),
}

impl Ops {
    /// Their names.
    pub fn names(&self) -> Vec<&'static str> {
        match self {
            Ops::Named(names) => names.to_vec(),
            Ops::Having(wanted) => ops::having(*wanted).collect(),
        }
    }
}

/// The operator that a rule is applied to.
pub(crate) struct Site<'a> {
    pub graph: &'a Graph,
    pub node: NodeId,
    pub op: &'a Op,
    /// Version of the standard operator set.
    pub opset: i64,
}

impl<'a> Site<'a> {
    /// The standard operator at a node.
    pub fn new(model: &'a Model, node: NodeId) -> Option<Self> {
        let graph = &model.graph;
        let op = graph.op(node).filter(|op| op.domain().is_empty())?;
        let opset = model.opset("").unwrap_or(0);
        Some(Site {
            graph,
            node,
            op,
            opset,
        })
    }

    /// A required operand.
    pub fn input(&self, slot: u32) -> Result<Value, Reason> {
        self.graph.input(self.node, slot).ok_or(Reason::Malformed)
    }

    /// The first output.
    pub fn output(&self) -> Value {
        self.graph.output(self.node, 0)
    }

    /// The patch that replaces the operator by `value`.
    pub fn bypass(&self, value: Value) -> Result<Patch, Reason> {
        can_stand_for(self.graph, self.output(), value)?;
        let mut patch = Patch::at(self.node);
        patch.replace(self.output(), value);
        Ok(patch)
    }
}

/// An output of the graph keeps its name, so it can only be replaced by a value that can be renamed: one that an
/// operator computes, that is not an output, and that no subgraph reads.
pub(super) fn can_stand_for(graph: &Graph, old: Value, new: Value) -> Result<(), Reason> {
    let is_output = |value| graph.outputs().iter().any(|o| o.value == value);
    if !is_output(old) {
        return Ok(());
    }
    let bound = |usage: &Use| !matches!(usage, Use::Input { .. });
    if graph.op(new.node).is_some() && !graph.uses(new).iter().any(bound) {
        return Ok(());
    }
    Err(Reason::OutputName(graph.value_name(old).to_owned()))
}

/// Applies the rules wherever they match, and records changes and reasons.
pub(super) fn apply_rules(
    model: &mut Model,
    rules: &'static [Rule],
    outcome: &mut Outcome,
) -> Result<(), PassError> {
    let mut table: BTreeMap<&str, Vec<&Rule>> = BTreeMap::new();
    for rule in rules {
        for op in rule.ops.names() {
            table.entry(op).or_default().push(rule);
        }
    }
    let mut queue: VecDeque<NodeId> = model.graph.ops().into();
    let mut queued: BTreeSet<NodeId> = queue.iter().copied().collect();
    let mut obstacles: BTreeMap<NodeId, Reason> = BTreeMap::new();
    while let Some(node) = queue.pop_front() {
        queued.remove(&node);
        obstacles.remove(&node);
        if !model.graph.contains(node) {
            continue;
        }
        let (patch, what) = match first_match(model, &table, node) {
            Ok(found) => found,
            Err(reason) => {
                obstacles.extend(reason.map(|reason| (node, reason)));
                continue;
            }
        };
        outcome.changed(model.graph.label(node), what);
        let mut touched = neighbours(&model.graph, node);
        touched.extend(model.graph.apply(patch)?);
        for node in touched {
            if model.graph.contains(node) && model.graph.op(node).is_some() && queued.insert(node) {
                queue.push_back(node);
            }
        }
    }
    for node in model.graph.ops() {
        if let Some(reason) = obstacles.remove(&node) {
            outcome.skipped(model.graph.label(node), reason);
        }
    }
    Ok(())
}

/// The first rule that matches; otherwise the first reason worth reporting.
fn first_match(
    model: &Model,
    table: &BTreeMap<&str, Vec<&'static Rule>>,
    node: NodeId,
) -> Result<(Patch, &'static str), Option<Reason>> {
    let site = Site::new(model, node).ok_or(None)?;
    let mut obstacle = None;
    for rule in table.get(site.op.op_type()).into_iter().flatten() {
        match (rule.rewrite)(&site) {
            Ok(patch) => return Ok((patch, rule.what)),
            Err(Reason::Needed(_)) => {}
            Err(reason) => obstacle = obstacle.or(Some(reason)),
        }
    }
    Err(obstacle)
}

fn neighbours(graph: &Graph, node: NodeId) -> Vec<NodeId> {
    let producers = graph.inputs_of(node).into_iter().flatten().map(|v| v.node);
    let producers = producers.filter(|&id| graph.op(id).is_some());
    let outputs = (0..graph.output_count(node)).map(|slot| graph.output(node, slot));
    let consumers = outputs.flat_map(|value| graph.uses(value));
    let consumers = consumers.filter_map(|usage| match usage {
        Use::Input { node, .. } => Some(node),
        Use::Capture { .. } | Use::Output(_) => None,
    });
    std::iter::once(node)
        .chain(producers)
        .chain(consumers)
        .collect()
}
