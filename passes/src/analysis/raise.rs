//! Recognition of composite operations that exporters decompose.
//!
//! Nothing is rewritten: passes get a view of each composite, and the graph stays unchanged.

pub mod attention;
pub mod attention_pool;
mod formula;
mod library;
mod pattern;

use std::collections::{BTreeMap, BTreeSet};

use bcosc_ir::{Graph, NodeId, Value};

pub use library::Kind;
use library::{Library, OPERATORS};

use crate::analysis::layers::Layer;
use crate::analysis::weights;

/// A composite operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composite {
    /// What it is.
    pub kind: Kind,
    /// Its input.
    pub x: Value,
    /// Its output.
    pub out: Value,
    /// Its operators.
    pub nodes: BTreeSet<NodeId>,
}

/// An operator that usually belongs to a composite, but to none that was recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unrecognised {
    /// The operator.
    pub node: NodeId,
    /// The closest composite, and the node that does not match it.
    pub nearest: Option<(Kind, NodeId)>,
}

/// The recognised composites of a graph.
#[derive(Clone, Debug, Default)]
pub struct Raised {
    /// Composites, in the order of their last operators.
    pub composites: Vec<Composite>,
    /// Unrecognised operators.
    pub unrecognised: Vec<Unrecognised>,
}

/// A partial match: number of matched operators, the composite, and the node that did not match.
type Near = (usize, Kind, NodeId);

/// Operators that usually belong to a composite.
const TELLTALE: &[&str] = &[
    "Erf",
    "Exp",
    "HardSigmoid",
    "ReduceL2",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Sqrt",
    "Tanh",
];

impl Raised {
    /// Recognises composites. Those that are part of a larger one are not listed.
    pub fn of(graph: &Graph) -> Self {
        let library = Library::standard();
        let mut found = Vec::new();
        let mut nearest: BTreeMap<NodeId, Near> = BTreeMap::new();
        for node in graph.ops() {
            if let Some(composite) = of_operator(graph, node) {
                found.push(composite);
                continue;
            }
            let Some(op) = graph.op(node).filter(|op| op.domain().is_empty()) else {
                continue;
            };
            let out = graph.output(node, 0);
            for entry in library.ending_in(op.op_type()) {
                match pattern::find(graph, &entry.pattern, out) {
                    Ok(found_here) if is_sound(graph, entry.kind, &found_here.values, out) => {
                        if let Some(x) = found_here.values.get("x") {
                            found.push(Composite {
                                kind: entry.kind,
                                x: *x,
                                out,
                                nodes: found_here.nodes.into_iter().collect(),
                            });
                        }
                        break;
                    }
                    Ok(_) => {}
                    Err((fitted, stopped)) => {
                        let near = nearest.entry(node).or_insert((fitted, entry.kind, stopped));
                        if fitted > near.0 {
                            *near = (fitted, entry.kind, stopped);
                        }
                    }
                }
            }
        }
        for attention in attention::all(graph) {
            found.push(Composite {
                kind: Kind::Attention,
                x: attention.values,
                out: graph.output(attention.node, 0),
                nodes: BTreeSet::from([attention.softmax, attention.node]),
            });
        }
        let composites = largest(found);
        let covered: BTreeSet<NodeId> = composites.iter().flat_map(|c| &c.nodes).copied().collect();
        let unrecognised = left_over(graph, &covered, &nearest);
        Raised {
            composites,
            unrecognised,
        }
    }

    /// Norms, in the order of the graph.
    pub fn norms(&self) -> impl Iterator<Item = &Composite> {
        self.composites.iter().filter(|c| c.kind.is_norm())
    }
}

fn of_operator(graph: &Graph, node: NodeId) -> Option<Composite> {
    let op = graph.op(node).filter(|op| op.domain().is_empty())?;
    let (_, kind) = OPERATORS.iter().find(|(name, _)| op.is(name))?;
    Some(Composite {
        kind: *kind,
        x: graph.input(node, 0)?,
        out: graph.output(node, 0),
        nodes: BTreeSet::from([node]),
    })
}

/// Conditions that a formula cannot express.
fn is_sound(graph: &Graph, kind: Kind, values: &BTreeMap<String, Value>, out: Value) -> bool {
    let Some(&x) = values.get("x") else {
        return false;
    };
    match kind {
        // The scale of a norm is followed by a shift, not by a residual sum.
        Kind::LayerScale if values.get("y").is_none_or(|y| graph.constant(*y).is_some()) => false,
        // A factor per channel of a layer's output: not a scalar, nor a table of angles.
        Kind::LayerScale => values.get("$scale").is_some_and(|scale| {
            let found = weights::constant_type(graph, *scale).and_then(|t| t.known_shape());
            found.is_some_and(|dims| dims.iter().filter(|d| **d > 1).count() == 1)
        }),
        Kind::SigmoidGate => graph.constant(x).is_none(),
        // The reshape may combine several; the channel axis must come right after the batch.
        Kind::GroupNorm => graph
            .value_type(out)
            .and_then(|t| t.rank())
            .is_none_or(|r| r > 2),
        _ => true,
    }
}

/// Composites that are not part of another one, in the order of their last operators.
fn largest(mut found: Vec<Composite>) -> Vec<Composite> {
    found.sort_by_key(|c| (std::cmp::Reverse(c.nodes.len()), c.out));
    let mut taken: BTreeSet<NodeId> = BTreeSet::new();
    let mut kept: Vec<Composite> = Vec::new();
    for composite in found {
        if composite.nodes.is_disjoint(&taken) {
            taken.extend(&composite.nodes);
            kept.push(composite);
        }
    }
    kept.sort_by_key(|c| c.out);
    kept
}

fn left_over(
    graph: &Graph,
    covered: &BTreeSet<NodeId>,
    nearest: &BTreeMap<NodeId, Near>,
) -> Vec<Unrecognised> {
    let telltale = |id: &NodeId| {
        let op = graph.op(*id).filter(|op| op.domain().is_empty());
        op.is_some_and(|op| TELLTALE.contains(&op.op_type())) && !covered.contains(id)
    };
    let ends = |id: NodeId| {
        let outputs = graph.outputs().iter();
        outputs.map(|o| o.value.node).any(|node| node == id)
    };
    let ops = graph
        .ops()
        .into_iter()
        .filter(telltale)
        .filter(|id| !ends(*id));
    let unread = ops.map(|node| Unrecognised {
        node,
        nearest: closest(graph, node, nearest),
    });
    unread.collect()
}

/// The best partial match of the formulas tried at consumers near the
/// node.
fn closest(
    graph: &Graph,
    node: NodeId,
    nearest: &BTreeMap<NodeId, Near>,
) -> Option<(Kind, NodeId)> {
    let mut open = vec![graph.output(node, 0)];
    let mut best: Option<Near> = None;
    for _ in 0..4 {
        let mut next = Vec::new();
        for value in open {
            for consumer in crate::analysis::layers::data_consumers(graph, value) {
                if matches!(Layer::of(graph, consumer), Some(Ok(_))) {
                    continue;
                }
                if let Some(found) = nearest.get(&consumer)
                    && best.is_none_or(|best| found.0 > best.0)
                {
                    best = Some(*found);
                }
                next.push(graph.output(consumer, 0));
            }
        }
        open = next;
    }
    best.filter(|best| best.0 > 0)
        .map(|(_, kind, stopped)| (kind, stopped))
}

#[cfg(test)]
mod tests;
