//! Attention in any form: a softmax over scores q k^T, multiplied with values v.
//!
//! ```text
//! weights = Softmax (q @ k^T, scaled before or after, plus masks and position biases)
//! y       = weights @ v                      also with Einsum, or the Attention operator
//! ```
//!
//! Windows, grids, heads, cross-covariance (over channels), cosine similarity and rotary embeddings only change the
//! operators between the projections and the two products. A projection is the last linear layer before
//! these: one packed layer, or three.

use std::collections::{BTreeMap, BTreeSet};

use bcosc_ir::ops::Trait;
use bcosc_ir::{Graph, NodeId, Op, Value};

use crate::analysis::layers::{Layer, data_consumers};

/// One attention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attention {
    /// The product of weights and values.
    pub node: NodeId,
    /// The softmax; the node itself for the `Attention` operator.
    pub softmax: NodeId,
    /// The values, as used in the product.
    pub values: Value,
    /// The linear layers that compute queries and keys, in order.
    pub queries_and_keys: BTreeSet<NodeId>,
    /// The linear layers that compute values, in order.
    pub value_layers: BTreeSet<NodeId>,
}

/// All attentions of a graph, in order.
pub fn all(graph: &Graph) -> Vec<Attention> {
    let mut sources = Projections {
        scores: Sources::new(graph, true),
        values: Sources::new(graph, false),
    };
    let ops = graph.ops().into_iter();
    ops.filter_map(|node| {
        let op = graph.op(node)?;
        match op.op_type() {
            _ if !op.domain().is_empty() => None,
            "Attention" => of_operator(graph, node, &mut sources),
            "Softmax" => of_softmax(graph, node, &mut sources),
            _ => None,
        }
    })
    .collect()
}

/// The projections (queries, keys and values), which stay linear.
pub fn projections(attentions: &[Attention]) -> BTreeSet<NodeId> {
    let layers = attentions.iter();
    layers
        .flat_map(|a| a.queries_and_keys.iter().chain(&a.value_layers))
        .copied()
        .collect()
}

fn of_operator(graph: &Graph, node: NodeId, sources: &mut Projections<'_>) -> Option<Attention> {
    let values = graph.input(node, 2)?;
    let scores = [graph.input(node, 0)?, graph.input(node, 1)?];
    Some(Attention {
        node,
        softmax: node,
        values,
        queries_and_keys: scores
            .iter()
            .flat_map(|v| sources.scores.layers(*v))
            .collect(),
        value_layers: sources.values.layers(values),
    })
}

fn of_softmax(graph: &Graph, softmax: NodeId, sources: &mut Projections<'_>) -> Option<Attention> {
    let (node, slot) = application(graph, graph.output(softmax, 0))?;
    let values = graph.input(node, 1 - slot)?;
    let scores = graph.input(softmax, 0)?;
    let value_layers = sources.values.layers(values);
    let queries_and_keys = match score_product(graph, scores, &mut sources.scores) {
        Some(product) => {
            let operands = graph.inputs_of(product).into_iter().flatten();
            operands.flat_map(|v| sources.scores.layers(v)).collect()
        }
        // Separable attention has one query for all positions, from the layer that makes the values.
        // Without a common layer, this is a choice between branches.
        None => {
            let scored_by = sources.scores.layers(scores);
            (scored_by == value_layers).then_some(scored_by)?
        }
    };
    Some(Attention {
        node,
        softmax,
        values,
        queries_and_keys,
        value_layers,
    })
}

/// Whether an operator may be between the softmax and the product with values: structural operators, dropout, computed
/// masks, mixing of heads.
fn follows_softmax(op: &Op) -> bool {
    let computes = || {
        matches!(
            op.op_type(),
            "Add" | "BatchNormalization" | "Conv" | "Mul" | "Where"
        )
    };
    op.has_any(&[Trait::Structural, Trait::Cast]) || op.domain().is_empty() && computes()
}

/// Maximum number of operators between the softmax and the product.
const FARTHEST: usize = 64;

/// The product of weights and values, and the slot of the weights.
fn application(graph: &Graph, weights: Value) -> Option<(NodeId, u32)> {
    let mut open = vec![weights];
    let mut seen = BTreeSet::new();
    while let Some(value) = open.pop() {
        for node in data_consumers(graph, value) {
            let op = graph.op(node).filter(|op| op.domain().is_empty())?;
            let slot = (0..2).find(|&slot| graph.input(node, slot) == Some(value));
            let other = slot.and_then(|slot| graph.input(node, 1 - slot));
            let is_data = other.is_some_and(|v| graph.constant(v).is_none());
            let weighs = is_product(graph, node) || op.is("Mul") && sums_positions(graph, node);
            if weighs && is_data {
                return slot.map(|slot| (node, slot));
            }
            let talks = op.is("MatMul") && !is_data;
            let near = seen.len() < FARTHEST;
            if near && (talks || follows_softmax(op)) && seen.insert(node) {
                open.extend((0..graph.output_count(node)).map(|slot| graph.output(node, slot)));
            }
        }
    }
    None
}

fn is_product(graph: &Graph, node: NodeId) -> bool {
    let is = |name| graph.op(node).is_some_and(|op| op.is(name));
    is("MatMul") || is("Einsum") && graph.inputs_of(node).len() == 2
}

/// Whether an elementwise product is summed: attention with one query.
fn sums_positions(graph: &Graph, node: NodeId) -> bool {
    let consumers = data_consumers(graph, graph.output(node, 0));
    consumers
        .iter()
        .any(|&id| graph.op(id).is_some_and(|op| op.is("ReduceSum")))
}

/// Whether an operator may be between the product of queries and keys and the softmax: scales, masks, biases, mixing
/// of heads.
fn precedes_softmax(op: &Op) -> bool {
    let computes = || {
        matches!(
            op.op_type(),
            "BatchNormalization" | "Clip" | "Conv" | "MatMul" | "Tanh" | "Where"
        )
    };
    op.has_any(&[Trait::Arithmetic, Trait::Cast, Trait::Structural])
        || op.domain().is_empty() && computes()
}

/// The product of queries and keys that scores come from: of several candidates, one of two projections.
fn score_product(graph: &Graph, scores: Value, sources: &mut Sources<'_>) -> Option<NodeId> {
    let mut open = vec![scores];
    let mut seen = BTreeSet::new();
    let mut found = None;
    while let Some(value) = open.pop() {
        let Some((node, op)) = graph.producer(value) else {
            continue;
        };
        if !op.domain().is_empty() || !seen.insert(node) {
            continue;
        }
        let operands: Vec<Value> = graph.inputs_of(node).into_iter().flatten().collect();
        let both_data = operands.iter().all(|v| graph.constant(*v).is_none());
        if is_product(graph, node) && both_data {
            if operands.iter().all(|v| !sources.layers(*v).is_empty()) {
                return Some(node);
            }
            found = found.or(Some(node));
        } else if precedes_softmax(op) {
            open.extend(operands);
        }
    }
    found
}

/// What heads, cosine similarity and rotary positions are computed with besides arithmetic, between a projection and the
/// products.
const ON_VECTORS: &[&str] = &[
    "Abs",
    "Clip",
    "Cos",
    "Max",
    "ReduceL2",
    "ReduceMean",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "RotaryEmbedding",
    "Where",
];

/// Whether an operator may be between a projection and the products: per-vector operators and structural ones. Queries
/// and keys may be normalised; values only by norms that can be folded into a layer.
fn follows_projection(op: &Op, normed: bool) -> bool {
    let plain = op.has_any(&[Trait::Arithmetic, Trait::Cast, Trait::Structural]);
    let norms = op.has(Trait::Norm) && (normed || op.is("BatchNormalization"));
    let computes = || ON_VECTORS.contains(&op.op_type());
    plain || norms || op.domain().is_empty() && computes()
}

/// Where queries, keys and values come from.
struct Projections<'g> {
    scores: Sources<'g>,
    values: Sources<'g>,
}

/// Finds the layers that a value was projected by.
struct Sources<'g> {
    graph: &'g Graph,
    /// Whether norms may follow a projection.
    normed: bool,
    found: BTreeMap<Value, BTreeSet<NodeId>>,
}

impl<'g> Sources<'g> {
    fn new(graph: &'g Graph, normed: bool) -> Self {
        Sources {
            graph,
            normed,
            found: BTreeMap::new(),
        }
    }

    /// The layers that a value comes from, if nothing in between mixes them. Empty if it also comes from
    /// anything else: a residual sum is not a projection.
    fn layers(&mut self, value: Value) -> BTreeSet<NodeId> {
        let mut order = vec![(value, false)];
        while let Some((value, ready)) = order.pop() {
            if self.found.contains_key(&value) {
                continue;
            }
            let before = self.operands(value);
            if ready {
                let layers = self.combine(value, &before);
                self.found.insert(value, layers);
            } else {
                order.push((value, true));
                order.extend(before.into_iter().map(|v| (v, false)));
            }
        }
        self.found.get(&value).cloned().unwrap_or_default()
    }

    /// The data operands of an operator that may follow a projection.
    fn operands(&self, value: Value) -> Vec<Value> {
        let Some((node, op)) = self.graph.producer(value) else {
            return Vec::new();
        };
        if !follows_projection(op, self.normed)
            || matches!(Layer::of(self.graph, node), Some(Ok(_)))
        {
            return Vec::new();
        }
        let operands = self.graph.inputs_of(node).into_iter().flatten();
        operands
            .filter(|v| self.graph.producer(*v).is_some())
            .collect()
    }

    fn combine(&self, value: Value, before: &[Value]) -> BTreeSet<NodeId> {
        if self.graph.producer(value).is_some()
            && matches!(Layer::of(self.graph, value.node), Some(Ok(_)))
        {
            return BTreeSet::from([value.node]);
        }
        let sets = before.iter().filter_map(|v| self.found.get(v));
        // Sizes, scales and angles come from no layer; all data operands must come from the same layers.
        let mut sets = sets.filter(|set| !set.is_empty());
        let Some(first) = sets.next() else {
            return BTreeSet::new();
        };
        match sets.all(|set| set == first) {
            true => first.clone(),
            false => BTreeSet::new(),
        }
    }
}

#[cfg(test)]
mod tests;
