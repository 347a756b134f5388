//! Decides which values become parameters.
//!
//! Operators are visited in reverse order. A constant that is only read by folded operators needs no parameter. If
//! a constant is too large to fold, its operator stays, and the operands of that are considered in
//! turn.

use std::collections::BTreeSet;

use bcosc_ir::ops::Trait;
use bcosc_ir::{
    Facts, Graph, Model, Node, NodeId, Op, ParameterData, Tensor, TensorType, Use, Value,
};

use crate::canonical::constants;
use crate::{Outcome, Reason};

/// The source of a parameter's value.
pub(super) enum Source {
    Known(Tensor),
    Evaluate,
}

pub(super) fn make(
    model: &Model,
    facts: &Facts,
    largest: u64,
    outcome: &mut Outcome,
) -> Vec<(Value, Source)> {
    let graph = &model.graph;
    let order = graph.ops();
    let constant = constant_ops(graph, facts, &order);
    let mut planner = Planner {
        graph,
        facts,
        largest,
        folded: BTreeSet::new(),
    };
    let mut plan = Vec::new();
    for &node in order.iter().rev() {
        let Some(op) = graph.op(node) else { continue };
        match planner.fold(node, op, constant.contains(&node)) {
            Ok(folds) => plan.extend(folds),
            Err(Reason::Needed(_)) => {}
            Err(reason) => outcome.skipped(graph.label(node), reason),
        }
    }
    plan
}

/// Operators that depend on parameters and known values only.
pub(super) fn constant_ops(graph: &Graph, facts: &Facts, order: &[NodeId]) -> BTreeSet<NodeId> {
    let mut found = BTreeSet::new();
    for &node in order {
        let Some(op) = graph.op(node) else { continue };
        let is_constant = |value: Value| match graph.node(value.node) {
            Node::Parameter(parameter) => {
                parameter.as_input.is_none() && matches!(parameter.data, ParameterData::Dense(_))
            }
            Node::Op(_) => {
                found.contains(&value.node) || facts.constants.contains_key(graph.value_name(value))
            }
            Node::Input(_) | Node::Capture(_) => false,
        };
        // `Dropout` in training mode is random; unknown functions may be.
        let fixed = op.domain().is_empty()
            && op.subgraphs().next().is_none()
            && !op.has(Trait::Random)
            && !op.is("Dropout");
        if fixed && graph.inputs_of(node).into_iter().flatten().all(is_constant) {
            found.insert(node);
        }
    }
    found
}

struct Planner<'a> {
    graph: &'a Graph,
    facts: &'a Facts,
    largest: u64,
    /// Operators that the plan removes.
    folded: BTreeSet<NodeId>,
}

impl Planner<'_> {
    /// The parameters that replace an operator.
    fn fold(
        &mut self,
        node: NodeId,
        op: &Op,
        constant: bool,
    ) -> Result<Vec<(Value, Source)>, Reason> {
        let outputs = (0..self.graph.output_count(node)).map(|slot| self.graph.output(node, slot));
        let read: Vec<Value> = outputs
            .filter(|&value| !self.graph.uses(value).is_empty())
            .collect();
        let needed: Vec<Value> = read
            .iter()
            .copied()
            .filter(|&value| self.stays_read(value))
            .collect();
        if read.is_empty() {
            return Err(Reason::Needed("nothing reads it"));
        }
        if needed.is_empty() {
            self.folded.insert(node);
            return Ok(Vec::new());
        }
        let folds = needed
            .into_iter()
            .map(|value| Ok((value, self.source(value, op, constant)?)))
            .collect::<Result<Vec<_>, Reason>>()?;
        self.folded.insert(node);
        Ok(folds)
    }

    /// Whether a remaining operator reads a value.
    fn stays_read(&self, value: Value) -> bool {
        self.graph.uses(value).into_iter().any(|usage| match usage {
            Use::Input { node, .. } | Use::Capture { node, .. } => !self.folded.contains(&node),
            Use::Output(_) => true,
        })
    }

    fn source(&self, value: Value, op: &Op, constant: bool) -> Result<Source, Reason> {
        let name = self.graph.value_name(value);
        let is_output = self.graph.outputs().iter().any(|o| o.value == value);
        if is_output && (op.is("Identity") || op.is("Constant")) {
            return Err(Reason::OutputName(name.to_owned()));
        }
        if op.is("Constant") {
            return constants::held_by(op).map(Source::Known);
        }
        if let Some(tensor) = self.facts.constants.get(name) {
            let same_type = |declared: TensorType| declared.dtype == tensor.dtype();
            if self.graph.value_type(value).is_none_or(same_type) {
                self.affordable(value, tensor.byte_len())?;
                return Ok(Source::Known(tensor.clone()));
            }
        }
        if !constant {
            return Err(Reason::Needed("it depends on the input"));
        }
        let found = self.graph.value_type(value);
        let bytes = found.as_ref().and_then(|t| {
            let dims = t.known_shape()?;
            let count = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d))?;
            t.dtype.byte_len(count)
        });
        let bytes = bytes.ok_or_else(|| Reason::UnknownShape(name.to_owned()))?;
        self.affordable(value, bytes)?;
        Ok(Source::Evaluate)
    }

    /// Whether a constant of this size may replace a value.
    fn affordable(&self, value: Value, bytes: u64) -> Result<(), Reason> {
        if bytes <= self.largest {
            return Ok(());
        }
        let replaces = self.bytes_replaced(value);
        if bytes.saturating_sub(replaces) <= self.largest {
            return Ok(());
        }
        Err(Reason::TooLarge { bytes, replaces })
    }

    /// Bytes of the parameters that become unused once a value is a parameter.
    fn bytes_replaced(&self, value: Value) -> u64 {
        let mut gone = BTreeSet::from([value.node]);
        let mut queue = vec![value.node];
        let mut bytes = 0u64;
        while let Some(node) = queue.pop() {
            for operand in self.graph.inputs_of(node).into_iter().flatten() {
                if gone.contains(&operand.node) || !self.only_read_by(operand.node, &gone) {
                    continue;
                }
                gone.insert(operand.node);
                queue.push(operand.node);
                if let Some(tensor) = constants::constant(self.graph, operand) {
                    bytes = bytes.saturating_add(tensor.byte_len());
                }
            }
        }
        bytes
    }

    fn only_read_by(&self, node: NodeId, gone: &BTreeSet<NodeId>) -> bool {
        let outputs = (0..self.graph.output_count(node)).map(|slot| self.graph.output(node, slot));
        outputs
            .flat_map(|value| self.graph.uses(value))
            .all(|usage| match usage {
                Use::Input { node, .. } => gone.contains(&node) || self.folded.contains(&node),
                Use::Capture { .. } | Use::Output(_) => false,
            })
    }
}
