//! Activity analysis: which values reverse mode has to differentiate.
//!
//! A value is *active* if it depends on any of the values to differentiate with respect to, and any of the outputs
//! depends on it. Dependencies follow the operands that the caller selects; a value that a subgraph captures
//! counts as an operand of its node.

use std::collections::BTreeSet;

use bcosc_ir::{Graph, NodeId, Value};

/// Whether the operand of a node at a slot is followed.
pub type Follows<'a> = dyn Fn(NodeId, u32, Value) -> bool + 'a;

/// The active values of a graph.
#[derive(Clone, Debug, Default)]
pub struct Activity {
    active: BTreeSet<Value>,
}

impl Activity {
    /// The values that depend on any of `from` and are needed for any of `to`.
    pub fn of(graph: &Graph, from: &[Value], to: &[Value], follows: &Follows<'_>) -> Self {
        let dependent = dependents(graph, from, follows);
        let needed = needed(graph, to, follows);
        let active = dependent.intersection(&needed).copied().collect();
        Activity { active }
    }

    /// Whether a value is differentiated.
    pub fn is_active(&self, value: Value) -> bool {
        self.active.contains(&value)
    }
}

/// The values that depend on any of some: forwards.
pub(crate) fn dependents(graph: &Graph, from: &[Value], follows: &Follows<'_>) -> BTreeSet<Value> {
    let mut found: BTreeSet<Value> = from.iter().copied().collect();
    for node in graph.ops() {
        if read(graph, node, follows).any(|value| found.contains(&value)) {
            found.extend(outputs(graph, node));
        }
    }
    found
}

/// The values that are needed for any of some: backwards.
pub(crate) fn needed(graph: &Graph, to: &[Value], follows: &Follows<'_>) -> BTreeSet<Value> {
    let mut found: BTreeSet<Value> = to.iter().copied().collect();
    for node in graph.ops().into_iter().rev() {
        if outputs(graph, node).any(|value| found.contains(&value)) {
            found.extend(read(graph, node, follows));
        }
    }
    found
}

/// What a node reads, as far as it is followed.
fn read<'g>(
    graph: &'g Graph,
    node: NodeId,
    follows: &'g Follows<'_>,
) -> impl Iterator<Item = Value> + 'g {
    let operands = graph.inputs_of(node).into_iter().enumerate();
    let followed = operands.filter_map(move |(slot, value)| {
        let value = value?;
        follows(node, slot as u32, value).then_some(value)
    });
    followed.chain(graph.captured_by(node))
}

fn outputs(graph: &Graph, node: NodeId) -> impl Iterator<Item = Value> + '_ {
    (0..graph.output_count(node)).map(move |slot| graph.output(node, slot))
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{DataType, Value};

    use super::Activity;
    use bcosc_testing::{input, model};

    #[test]
    fn active_values_lie_on_a_way_that_is_followed() {
        let builder = input(18, "2")
            .input("p", DataType::Float, "2")
            .op("Sigmoid", &["x"], "gate", [])
            .op("Mul", &["p", "gate"], "m", [])
            .op("Add", &["m", "x"], "y", [])
            .op("Neg", &["p"], "unused", []);
        let graph = model(builder.output("y")).graph;
        let value = |name: &str| graph.value_named(name).unwrap();
        let active = |from: &[&str], follows: &dyn Fn(Value) -> bool| {
            let from: Vec<Value> = from.iter().map(|name| value(name)).collect();
            let to = [value("y")];
            let found = Activity::of(&graph, &from, &to, &|_, _, v| follows(v));
            let names = ["x", "p", "gate", "m", "y", "unused"].into_iter();
            names
                .filter(|name| found.is_active(value(name)))
                .collect::<Vec<_>>()
        };
        assert_eq!(active(&["p"], &|_| true), ["p", "m", "y"]);
        assert_eq!(active(&["x"], &|_| true), ["x", "gate", "m", "y"]);
        let gate = value("gate");
        assert_eq!(active(&["x"], &|v| v != gate), ["x", "y"]);
        assert_eq!(active(&["x", "p"], &|v| v != gate), ["x", "p", "m", "y"]);
    }
}
