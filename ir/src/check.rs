//! Invariants of a graph, checked after every patch in debug builds.

use std::collections::BTreeSet;

use petgraph::visit::{EdgeRef, IntoEdgeReferences};

use crate::Graph;
use crate::graph::Port;

/// Panics when the graph is not one: only ever because of a defect in this crate.
pub(crate) fn assert_consistent(graph: &Graph) {
    let mut ports = BTreeSet::new();
    for edge in graph.net.edge_references() {
        let (source, target) = (&graph.net[edge.source()], &graph.net[edge.target()]);
        let op = target.node.as_op();
        let limit = |port| match port {
            Port::Input(slot) => op.is_some_and(|op| slot < op.arity),
            Port::Capture(label) => op.is_some_and(|op| (label as usize) < op.captures.len()),
        };
        assert!(
            (edge.weight().from as usize) < source.outputs.len(),
            "edge from a slot that is not there"
        );
        assert!(limit(edge.weight().to), "edge to a slot that is not there");
        assert!(
            ports.insert((edge.target(), edge.weight().to)),
            "two operands in one slot"
        );
    }
    let mut names = BTreeSet::new();
    for id in graph.unordered() {
        for output in graph
            .vertex(id)
            .outputs
            .iter()
            .filter(|o| !o.name.is_empty())
        {
            assert!(
                names.insert(&output.name),
                "two values named {}",
                output.name
            );
            assert!(
                graph.names.contains(&output.name),
                "{} is not reserved",
                output.name
            );
        }
    }
    for output in &graph.outputs {
        assert!(
            graph.contains(output.value.node),
            "an output of the graph was removed"
        );
    }
}
