//! The verdict of the analysis on an output.

use std::collections::BTreeSet;

use bcosc_ir::{Graph, Node, NodeId, Value};
use serde::Serialize;

use super::{Linearity, Rule, Standing, rules};
use crate::analysis::carried;
use crate::analysis::image::image_input;
use crate::analysis::layers::is_structural;
use crate::analysis::weights;

/// The role of an operator between the input and an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Does not depend on the input.
    Constant,
    /// The same linear map for every input.
    Linear,
    /// Each element times a factor that depends on the input.
    Gate,
    /// Scaled by a statistic of the input.
    Norm,
    /// Mixes positions with weights that depend on the input.
    Attention,
    /// Selects elements.
    WinnerTakeAll,
    /// Part of a factor that is held fixed.
    Factor,
    /// Neither linear nor part of a factor.
    Nonlinear,
}

/// Whether an output is dynamic linear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The output.
    pub output: String,
    /// Whether it is W(x)x plus constant terms.
    pub dynamic_linear: bool,
    /// The nodes that break dynamic linearity, in graph order; empty if it is dynamic linear.
    pub broken_by: Vec<String>,
    /// The constant terms, in graph order.
    pub constants: Vec<Summand>,
}

/// A constant term of an output. If one input is the image, terms from other inputs count as constant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Summand {
    /// The parameter, the input, or the node that computes the constant.
    pub constant: String,
    /// The node that adds it.
    pub node: String,
}

impl Verdict {
    /// Whether contributions add up to the output exactly.
    pub fn is_complete(&self) -> bool {
        self.dynamic_linear && self.constants.is_empty()
    }
}

impl Linearity<'_> {
    /// A verdict for every output of the graph.
    pub fn verdicts(&self) -> Vec<Verdict> {
        let outputs = self.graph.outputs().iter();
        outputs.map(|output| self.verdict(output.value)).collect()
    }

    /// The verdict for a value.
    pub fn verdict(&self, output: Value) -> Verdict {
        let graph = self.graph;
        let name = graph.value_name(output).to_owned();
        let standing = self.standing(output);
        let mut verdict = Verdict {
            output: name,
            dynamic_linear: standing == Standing::Linear,
            broken_by: Vec::new(),
            constants: Vec::new(),
        };
        match standing {
            Standing::Linear if self.beside.contains(&output) => {
                verdict.dynamic_linear = false;
                verdict.broken_by.push(graph.label(output.node));
            }
            Standing::Linear => verdict.constants = self.summands(output),
            Standing::Free => verdict.broken_by = self.breakers(output),
            Standing::Constant => verdict.broken_by.push(graph.label(output.node)),
        }
        verdict
    }

    /// The role of every operator for the outputs.
    pub fn classes(&self) -> Vec<(NodeId, Class)> {
        let mut path = BTreeSet::new();
        let mut broken = BTreeSet::new();
        for output in self.graph.outputs() {
            match self.standing(output.value) {
                Standing::Linear => path.extend(self.linear_path(output.value)),
                Standing::Free => broken.extend(self.free_path(output.value)),
                Standing::Constant => {}
            }
        }
        let class = |id| match () {
            () if path.contains(&id) => self.class_on_path(id),
            () if broken.contains(&id) => Class::Nonlinear,
            () if self.depends(id) => Class::Factor,
            () => Class::Constant,
        };
        let ops = self.graph.ops().into_iter();
        ops.map(|id| (id, class(id))).collect()
    }

    fn depends(&self, node: NodeId) -> bool {
        let mut outputs = (0..self.graph.output_count(node)).map(|s| self.graph.output(node, s));
        outputs.any(|v| self.standing(v) != Standing::Constant)
    }

    fn class_on_path(&self, node: NodeId) -> Class {
        let any_detached = || {
            let arity = self.graph.inputs_of(node).len() as u32;
            (0..arity).any(|slot| self.is_detached(node, slot))
        };
        match rules::of(self.graph, node) {
            Rule::Gate { .. } | Rule::Choice => Class::Gate,
            Rule::Norm { .. }
                if self
                    .graph
                    .op(node)
                    .is_some_and(|op| op.is("BatchNormalization")) =>
            {
                Class::Linear
            }
            Rule::Norm { .. } => Class::Norm,
            Rule::Attention => Class::Attention,
            Rule::Winner | Rule::WinnerOfAll => Class::WinnerTakeAll,
            Rule::Product if any_detached() => Class::Attention,
            Rule::Scaling | Rule::Quotient if any_detached() => Class::Gate,
            _ => Class::Linear,
        }
    }

    /// The operators on the linear paths to a value.
    fn linear_path(&self, output: Value) -> BTreeSet<NodeId> {
        let mut seen = BTreeSet::new();
        let mut open = vec![output.node];
        while let Some(node) = open.pop() {
            if self.graph.op(node).is_none() || !seen.insert(node) {
                continue;
            }
            let operands = self.linear_operands(node);
            let seen_through = operands.filter(|value| !self.beside.contains(value));
            open.extend(seen_through.map(|v| v.node));
        }
        seen
    }

    /// The operators that make a value free.
    fn free_path(&self, output: Value) -> BTreeSet<NodeId> {
        let mut seen = BTreeSet::new();
        let mut open = vec![output.node];
        while let Some(node) = open.pop() {
            if self.graph.op(node).is_none() || !seen.insert(node) {
                continue;
            }
            open.extend(self.free_operands(node).map(|v| v.node));
        }
        seen
    }

    fn free_operands(&self, node: NodeId) -> impl Iterator<Item = Value> {
        let operands = self.graph.inputs_of(node).into_iter().flatten();
        operands.filter(|v| self.standing(*v) == Standing::Free)
    }

    /// The operators where linearity is lost.
    fn breakers(&self, output: Value) -> Vec<String> {
        let path = self.free_path(output);
        let breaks = |id: &&NodeId| self.free_operands(**id).next().is_none();
        let first = path.iter().filter(breaks);
        first.map(|id| self.graph.label(*id)).collect()
    }

    /// The constants that are added on the paths to a linear value.
    fn summands(&self, output: Value) -> Vec<Summand> {
        let mut found = Vec::new();
        let constant =
            |value| self.beside.contains(&value) || self.standing(value) == Standing::Constant;
        // W(x) applies to [x, 1-x], where the graph makes that of its input.
        let pair = image_input(self.graph).and_then(|image| {
            let pair = carried::pair(self.graph, image)?;
            self.graph.input(pair, 1)
        });
        for node in self.linear_path(output) {
            if pair.is_some_and(|inverse| inverse.node == node) {
                continue;
            }
            let operands = self.graph.inputs_of(node);
            for slot in added_slots(self.graph, node, operands.len()) {
                let Some(value) = operands.get(slot).copied().flatten() else {
                    continue;
                };
                if constant(value) && !is_zero(self.graph, value) {
                    found.push(Summand {
                        constant: source_name(self.graph, value),
                        node: self.graph.label(node),
                    });
                }
            }
        }
        found
    }
}

/// Slots of a node whose operands are added.
fn added_slots(graph: &Graph, node: NodeId, arity: usize) -> Vec<usize> {
    match rules::of(graph, node) {
        Rule::Sum | Rule::WinnerOfAll => (0..arity).collect(),
        Rule::Choice => (1..arity).collect(),
        Rule::Written => vec![0, 2],
        Rule::Product if graph.op(node).is_some_and(|op| op.is("Einsum")) => Vec::new(),
        Rule::Product => vec![2],
        Rule::Norm { added } => added.iter().map(|slot| *slot as usize).collect(),
        Rule::Linear if graph.op(node).is_some_and(|op| op.is("Pad")) => vec![2],
        _ => Vec::new(),
    }
}

/// Whether a constant is zero.
fn is_zero(graph: &Graph, value: Value) -> bool {
    if let Some(tensor) = graph.constant(value) {
        return match tensor.to_f64s() {
            Ok(elements) => elements.iter().all(|&x| x == 0.0),
            Err(_) => tensor.to_i64s().is_ok_and(|e| e.iter().all(|&x| x == 0)),
        };
    }
    match graph.producer(value) {
        Some((_, op)) if op.is("ConstantOfShape") => op
            .tensor("value")
            .is_none_or(|t| t.to_f64s().is_ok_and(|e| e.iter().all(|&x| x == 0.0))),
        Some((node, op)) if is_structural(op) || op.is("Expand") => graph
            .input(node, 0)
            .is_some_and(|value| is_zero(graph, value)),
        _ => false,
    }
}

/// The first input that a constant depends on; otherwise the largest parameter that it is computed from, or else the
/// node that computes it.
fn source_name(graph: &Graph, value: Value) -> String {
    let mut open = vec![value];
    let mut seen = BTreeSet::new();
    let mut best: Option<(u64, Value)> = None;
    while let Some(value) = open.pop() {
        if !seen.insert(value) {
            continue;
        }
        match graph.node(value.node) {
            Node::Op(_) if rules::of(graph, value.node) == Rule::ShapeOnly => {}
            Node::Op(_) => open.extend(graph.inputs_of(value.node).into_iter().flatten()),
            Node::Input(_) => return graph.value_name(value).to_owned(),
            _ => {
                let found = weights::constant_type(graph, value);
                let found = found.filter(|t| t.dtype.is_float());
                let size = found.and_then(|t| Some(t.known_shape()?.iter().product::<u64>()));
                if let Some(size) = size
                    && best.is_none_or(|(largest, _)| size > largest)
                {
                    best = Some((size, value));
                }
            }
        }
    }
    match best {
        Some((_, parameter)) => graph.value_name(parameter).to_owned(),
        None => graph.label(value.node),
    }
}
