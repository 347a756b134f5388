//! What values are computed from.

use std::collections::BTreeSet;

use crate::{Graph, NodeId, Value};

/// The part of a graph that some values are computed from.
#[derive(Clone, Debug, Default)]
pub struct Cone {
    /// Operators, parameters and inputs.
    pub nodes: BTreeSet<NodeId>,
    /// Values after which it was not followed.
    pub frontier: BTreeSet<Value>,
}

impl Graph {
    /// What values are computed from, values that subgraphs capture included. Values for which `stop` holds
    /// are not followed further.
    pub fn cone(&self, of: &[Value], stop: impl Fn(Value) -> bool) -> Cone {
        let mut cone = Cone::default();
        let mut queue = of.to_vec();
        while let Some(value) = queue.pop() {
            if stop(value) {
                cone.frontier.insert(value);
            } else if cone.nodes.insert(value.node) {
                queue.extend(self.inputs_of(value.node).into_iter().flatten());
                queue.extend(self.captured_by(value.node));
            }
        }
        cone
    }
}
