//! Dynamic linearity: is an output provably W(x)x plus constants?
//!
//! Every value has one of three standings: *constant*, *linear* (W(x)x plus constants, where W(x) is a product of
//! weights and detached factors), or *free* (it depends on x in any other way, and can only be used as a
//! factor). Rules:
//!
//! ```text
//! linear * constant = linear      linear * free = linear, the free operand detached
//!                                 linear * linear = linear, if one is a gate for the other: it has fewer elements, is
//!                                 computed from the other, or went through more gates
//! linear + constant = linear      linear + free = free
//! f(linear) = gate(x) * x, or free
//! softmax(q k^T) v: q k^T is free, v is linear
//! ```
//!
//! Explanations hold detached operands fixed. The analysis does not depend on the architecture: a squeeze-excite
//! gate is a product with a sigmoid, a decomposed GELU a product with an error function, a B-cos layer a product
//! with |y| / ||x||.

mod rules;
mod verdict;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use bcosc_ir::{Graph, NodeId, Value};

pub use rules::{Rule, operators};
pub use verdict::{Class, Verdict};

use crate::analysis::image::{image_input, is_image};
use crate::analysis::layers::Layer;

/// How a value depends on the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It does not depend on the input.
    Constant,
    /// It is W(x)x plus constants.
    Linear,
    /// It depends on the input in any other way.
    Free,
}

/// The analysis result for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    standing: Standing,
    /// Number of gates since the last layer.
    gates: u32,
}

const CONSTANT: Known = Known {
    standing: Standing::Constant,
    gates: 0,
};
const LINEAR: Known = Known {
    standing: Standing::Linear,
    gates: 0,
};
const FREE: Known = Known {
    standing: Standing::Free,
    gates: 0,
};

/// The standing of every value of a graph, and the detached operands.
#[derive(Clone, Debug)]
pub struct Linearity<'g> {
    graph: &'g Graph,
    /// Position of each operator in topological order.
    places: BTreeMap<NodeId, usize>,
    known: BTreeMap<Value, Known>,
    detached: BTreeSet<(NodeId, u32)>,
    /// The values of [`beside_image`], which count as constant.
    beside: BTreeSet<Value>,
}

impl Known {
    /// The same after another gate.
    fn gated(self) -> Self {
        Known {
            gates: self.gates.saturating_add(1),
            ..self
        }
    }
}

/// The values that depend on inputs, but not on the image. Explanations only explain the image, so these count as constant.
fn beside_image(graph: &Graph, ops: &[NodeId]) -> BTreeSet<Value> {
    let inputs = graph.inputs();
    let image = image_input(graph).filter(|image| is_image(graph, *image));
    let Some(image) = image.filter(|_| inputs.len() > 1) else {
        return BTreeSet::new();
    };
    let mut beside: BTreeSet<Value> = inputs.into_iter().filter(|input| *input != image).collect();
    let mut of_image = BTreeSet::from([image]);
    for &node in ops {
        let captured = graph.captured_by(node);
        let read: Vec<Value> = graph
            .inputs_of(node)
            .into_iter()
            .flatten()
            .chain(captured)
            .collect();
        let results = (0..graph.output_count(node)).map(|slot| graph.output(node, slot));
        if read.iter().any(|value| of_image.contains(value)) {
            of_image.extend(results);
        } else if read.iter().any(|value| beside.contains(value)) {
            beside.extend(results);
        }
    }
    beside
}

impl<'g> Linearity<'g> {
    /// Analyses a graph with known types. x is the floating-point inputs together, or all inputs if none is
    /// floating point.
    pub fn of(graph: &'g Graph) -> Self {
        let inputs = graph.inputs();
        let floats = |v: &&Value| {
            let found = graph.value_type(**v);
            found.is_none_or(|t| t.dtype.is_float())
        };
        let mut data: Vec<Value> = inputs.iter().filter(floats).copied().collect();
        if data.is_empty() {
            data = inputs;
        }
        let ops = graph.ops();
        let mut analysis = Linearity {
            graph,
            places: ops.iter().copied().zip(0..).collect(),
            known: data.into_iter().map(|x| (x, LINEAR)).collect(),
            detached: BTreeSet::new(),
            beside: beside_image(graph, &ops),
        };
        for node in ops {
            analysis.visit(node);
        }
        analysis
    }

    /// How a value depends on the input.
    pub fn standing(&self, value: Value) -> Standing {
        self.get(Some(value)).standing
    }

    /// Whether explanations hold an operand fixed.
    pub fn is_detached(&self, node: NodeId, slot: u32) -> bool {
        self.detached.contains(&(node, slot))
    }

    fn get(&self, value: Option<Value>) -> Known {
        let known = value.and_then(|v| self.known.get(&v));
        known.copied().unwrap_or(CONSTANT)
    }

    fn visit(&mut self, node: NodeId) {
        let graph = self.graph;
        let operands = graph.inputs_of(node);
        let captured = graph.captured_by(node);
        let mut read = operands.iter().flatten().chain(&captured);
        if read.all(|&v| self.standing(v) == Standing::Constant) {
            return;
        }
        let found = match rules::of(graph, node) {
            Rule::ShapeOnly => return,
            Rule::Factor => FREE,
            Rule::Linear | Rule::Winner => self.first(node, &operands),
            Rule::Gate { smooth } => self.gate(&operands, smooth),
            Rule::Norm { added } => self.norm(node, &operands, added),
            Rule::Sum | Rule::WinnerOfAll => self.sum(&operands),
            Rule::Choice => self.choice(node, &operands),
            Rule::Scaling => self.scaling(node, &operands),
            Rule::Product => self.product(node, &operands),
            Rule::Quotient => self.quotient(node, &operands),
            Rule::Written => self.written(node, &operands),
            Rule::Attention => self.attention(node, &operands),
        };
        for slot in 0..graph.output_count(node) {
            // Further outputs are indices, masks and statistics; those of a split are parts alike.
            let known = match (slot, rules::of(graph, node)) {
                (0, _) | (_, Rule::Linear) => found,
                _ => FREE,
            };
            self.known.insert(graph.output(node, slot), known);
        }
    }

    /// Operand 0, unchanged; the others are indices and sizes, and held fixed if they depend on x.
    fn first(&mut self, node: NodeId, operands: &[Option<Value>]) -> Known {
        let found = self.get(operands.first().copied().flatten());
        if found.standing != Standing::Linear {
            // A constant indexed by a function of x.
            return FREE;
        }
        for (slot, operand) in operands.iter().enumerate().skip(1) {
            if self.get(*operand).standing != Standing::Constant {
                self.detached.insert((node, slot as u32));
            }
        }
        found
    }

    fn gate(&self, operands: &[Option<Value>], smooth: bool) -> Known {
        let x = self.get(operands.first().copied().flatten());
        match x.standing {
            Standing::Linear if smooth => x.gated(),
            Standing::Linear => x,
            _ => FREE,
        }
    }

    fn norm(&mut self, node: NodeId, operands: &[Option<Value>], added: &[u32]) -> Known {
        if self.get(operands.first().copied().flatten()).standing != Standing::Linear {
            return FREE;
        }
        for slot in 1..operands.len() as u32 {
            if self.get(operands[slot as usize]).standing == Standing::Constant {
                continue;
            }
            if added.contains(&slot) {
                return FREE;
            }
            self.detached.insert((node, slot));
        }
        LINEAR
    }

    fn sum(&self, operands: &[Option<Value>]) -> Known {
        let found = || operands.iter().map(|v| self.get(*v));
        if found().any(|known| known.standing == Standing::Free) {
            return FREE;
        }
        Known {
            gates: found().map(|known| known.gates).max().unwrap_or(0),
            ..LINEAR
        }
    }

    fn choice(&mut self, node: NodeId, operands: &[Option<Value>]) -> Known {
        let branches = operands.get(1..).unwrap_or_default();
        let constant = |v: &Option<Value>| self.get(*v).standing == Standing::Constant;
        if branches.iter().all(constant) {
            return FREE;
        }
        let found = self.sum(branches);
        let condition = self.get(operands.first().copied().flatten());
        if found.standing == Standing::Linear && condition.standing != Standing::Constant {
            self.detached.insert((node, 0));
        }
        found
    }

    fn written(&mut self, node: NodeId, operands: &[Option<Value>]) -> Known {
        let &[data, places, updates] = operands else {
            return FREE;
        };
        let found = self.sum(&[data, updates]);
        let linear = [data, updates].map(|v| self.get(v).standing == Standing::Linear);
        if !linear.contains(&true) {
            return FREE;
        }
        if self.get(places).standing != Standing::Constant {
            self.detached.insert((node, 1));
        }
        found
    }

    fn scaling(&mut self, node: NodeId, operands: &[Option<Value>]) -> Known {
        let &[Some(a), Some(b)] = operands else {
            return FREE;
        };
        let (left, right) = (self.get(Some(a)), self.get(Some(b)));
        let (slot, kept) = match (left.standing, right.standing) {
            (Standing::Linear, Standing::Constant) => return left,
            (Standing::Constant, Standing::Linear) => return right,
            (Standing::Linear, Standing::Free) => (1, left),
            (Standing::Free, Standing::Linear) => (0, right),
            // A square is x times |x|; either operand can be the gate.
            (Standing::Linear, Standing::Linear) if a == b => (1, left),
            (Standing::Linear, Standing::Linear) => match self.gate_of_two((a, left), (b, right)) {
                Some(0) => (0, right),
                Some(slot) => (slot, left),
                None => return FREE,
            },
            _ => return FREE,
        };
        self.detached.insert((node, slot));
        kept.gated()
    }

    /// Which of two linear factors is the gate: the one that is broadcast, or else the one that is computed from the
    /// other, or else the one that went through more gates.
    fn gate_of_two(&self, (a, left): (Value, Known), (b, right): (Value, Known)) -> Option<u32> {
        let by_axes = match (self.axes(a), self.axes(b)) {
            (Some(a), Some(b)) => b.cmp(&a),
            _ => Ordering::Equal,
        };
        let by_origin = || self.maps(b, a).cmp(&self.maps(a, b));
        let by_gates = || left.gates.cmp(&right.gates);
        match by_axes.then_with(by_origin).then_with(by_gates) {
            Ordering::Greater => Some(0),
            Ordering::Less => Some(1),
            Ordering::Equal => None,
        }
    }

    /// Whether a linear value is linear in another.
    fn maps(&self, x: Value, y: Value) -> bool {
        let after = |value: &Value| self.place(*value) > self.place(x);
        let mut seen = BTreeSet::new();
        let mut open = vec![y];
        while let Some(value) = open.pop() {
            if value == x {
                return true;
            }
            if after(&value) && seen.insert(value.node) {
                open.extend(self.linear_operands(value.node));
            }
        }
        false
    }

    /// The operands that the result of a node is linear in.
    fn linear_operands(&self, node: NodeId) -> impl Iterator<Item = Value> {
        let operands = self.graph.inputs_of(node).into_iter().enumerate();
        operands.filter_map(move |(slot, value)| {
            let value = value.filter(|v| self.standing(*v) == Standing::Linear)?;
            (!self.is_detached(node, slot as u32)).then_some(value)
        })
    }

    /// The position of a value in topological order; inputs and constants come first.
    fn place(&self, value: Value) -> Option<usize> {
        self.places.get(&value.node).copied()
    }

    /// Number of axes of size other than 1.
    fn axes(&self, value: Value) -> Option<usize> {
        let dims = self.graph.value_type(value)?.shape?;
        Some(dims.iter().filter(|d| d.known() != Some(1)).count())
    }

    fn product(&mut self, node: NodeId, operands: &[Option<Value>]) -> Known {
        let einsum = self.graph.op(node).is_some_and(|op| op.is("Einsum"));
        let (factors, added) = match einsum {
            true => (operands, &[][..]),
            false => operands.split_at(operands.len().min(2)),
        };
        let standings: Vec<Standing> = factors.iter().map(|v| self.get(*v).standing).collect();
        let linear = standings.iter().filter(|s| **s == Standing::Linear).count();
        let fixed = |v: &Option<Value>| self.get(*v).standing == Standing::Free;
        if linear != 1 || added.iter().any(fixed) {
            return FREE;
        }
        for (slot, standing) in standings.iter().enumerate() {
            if *standing == Standing::Free {
                self.detached.insert((node, slot as u32));
            }
        }
        LINEAR
    }

    fn quotient(&mut self, node: NodeId, operands: &[Option<Value>]) -> Known {
        let &[Some(a), Some(b)] = operands else {
            return FREE;
        };
        match (self.standing(a), self.standing(b)) {
            (Standing::Linear, Standing::Constant) => self.get(Some(a)),
            (Standing::Linear, _) => {
                self.detached.insert((node, 1));
                self.get(Some(a)).gated()
            }
            _ => FREE,
        }
    }

    fn attention(&mut self, node: NodeId, operands: &[Option<Value>]) -> Known {
        if self.get(operands.get(2).copied().flatten()).standing != Standing::Linear {
            return FREE;
        }
        for (slot, operand) in operands.iter().enumerate() {
            if slot != 2 && self.get(*operand).standing != Standing::Constant {
                self.detached.insert((node, slot as u32));
            }
        }
        LINEAR
    }
}

/// Linear layers whose input does not depend on the input of the graph, such as those of position embeddings.
pub fn layers_on_constants(graph: &Graph) -> BTreeSet<NodeId> {
    let analysis = Linearity::of(graph);
    let layers = Layer::all(graph).into_iter();
    let constant_layers = layers.filter(|layer| analysis.standing(layer.x) == Standing::Constant);
    constant_layers.map(|layer| layer.node).collect()
}

#[cfg(test)]
mod tests;
