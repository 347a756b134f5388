//! The order in which nodes are visited and leave.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use petgraph::Direction;
use petgraph::stable_graph::NodeIndex;
use petgraph::visit::NodeIndexable;

use crate::{Graph, NodeId};

/// Kahn's algorithm; among the nodes that are ready, the one with the lowest place goes first, so a
/// file that is in order stays as it is. Nodes on a cycle are left out.
pub(crate) fn topological(graph: &Graph) -> Vec<NodeId> {
    let net = &graph.net;
    let key = |index: NodeIndex| {
        let vertex = &net[index];
        Reverse((vertex.place, vertex.serial, index))
    };
    let mut waiting = vec![0u32; net.node_bound()];
    let mut ready = BinaryHeap::new();
    for index in net.node_indices() {
        let operands = net.edges_directed(index, Direction::Incoming).count();
        waiting[index.index()] = operands as u32;
        if operands == 0 {
            ready.push(key(index));
        }
    }
    let mut order = Vec::with_capacity(net.node_count());
    while let Some(Reverse((_, _, index))) = ready.pop() {
        order.push(graph.id(index));
        for target in net.neighbors_directed(index, Direction::Outgoing) {
            let count = &mut waiting[target.index()];
            *count -= 1;
            if *count == 0 {
                ready.push(key(target));
            }
        }
    }
    order
}
