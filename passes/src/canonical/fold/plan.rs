//! Which values become parameters.
//!
//! Operators are visited from the outputs back. A constant that only other folded operators read
//! needs no parameter: it goes with them. A constant that is too large to fold leaves its operator
//! in place, and the operands of that are considered in turn.

use std::collections::BTreeSet;

use bcosc_ir::{
    Facts, Graph, Model, Node, NodeId, Op, ParameterData, Tensor, TensorType, Use, Value,
};

use crate::canonical::constants;
use crate::{Outcome, Reason};

/// Where a parameter's value comes from.
pub(super) enum Source {
    Known(Tensor),
    Evaluate,
}

/// Operators that give another result each time.
const RANDOM: &[&str] = &[
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
];

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

/// Operators that depend on parameters and known values alone.
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
        // `Dropout` in training mode is random, and so is a function that nobody knows.
        let fixed = op.domain().is_empty()
            && op.subgraphs().next().is_none()
            && !RANDOM.contains(&op.op_type())
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
    /// Operators that go once the plan is carried out.
    folded: BTreeSet<NodeId>,
}

impl Planner<'_> {
    /// The parameters that take an operator's place.
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

    /// Whether something that stays reads a value.
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

    /// Whether a constant of a size may take a value's place.
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

    /// Bytes of the parameters that nothing reads once a value is a parameter itself.
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
