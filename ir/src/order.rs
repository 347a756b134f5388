//! The order in which nodes are visited and leave.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use petgraph::Direction;
use petgraph::stable_graph::NodeIndex;

use crate::{Graph, NodeId};

/// Kahn's algorithm; among the nodes that are ready, the one with the lowest place goes first, so a
/// file that is in order stays as it is. Nodes on a cycle are left out.
pub(crate) fn topological(graph: &Graph) -> Vec<NodeId> {
    let net = &graph.net;
    let key = |index: NodeIndex| {
        let vertex = &net[index];
        Reverse((vertex.place, vertex.serial, index))
    };
    let mut waiting: BTreeMap<NodeIndex, usize> = BTreeMap::new();
    let mut ready = BinaryHeap::new();
    for index in net.node_indices() {
        match net.edges_directed(index, Direction::Incoming).count() {
            0 => ready.push(key(index)),
            count => {
                waiting.insert(index, count);
            }
        }
    }
    let mut order = Vec::with_capacity(net.node_count());
    while let Some(Reverse((_, _, index))) = ready.pop() {
        order.push(graph.id(index));
        for target in net.neighbors_directed(index, Direction::Outgoing) {
            if let Some(count) = waiting.get_mut(&target) {
                *count -= 1;
                if *count == 0 {
                    waiting.remove(&target);
                    ready.push(key(target));
                }
            }
        }
    }
    order
}
