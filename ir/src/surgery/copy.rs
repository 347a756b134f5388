//! Nodes of one graph in another.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::{Port, Vertex};
use crate::{Graph, NodeId, Value};

/// Where nodes and values of a graph are in the graph that they are copied into.
#[derive(Default)]
pub(super) struct Moved {
    pub nodes: BTreeMap<NodeId, NodeId>,
    pub values: BTreeMap<Value, Value>,
}

impl Moved {
    /// Copies nodes, without their operands; `change` sees each before it is added. Values that have
    /// a place already keep it.
    pub fn copy(
        &mut self,
        nodes: &BTreeSet<NodeId>,
        from: &Graph,
        into: &mut Graph,
        mut change: impl FnMut(&mut Vertex),
    ) {
        for &id in nodes {
            let mut vertex = from.vertex(id).clone();
            if vertex.node.as_op().is_some() {
                keep_types(id, from, &mut vertex);
            }
            change(&mut vertex);
            let count = vertex.outputs.len() as u32;
            let node = into.add_vertex(vertex.place, vertex.node, vertex.outputs);
            self.nodes.insert(id, node);
            for slot in 0..count {
                let old = Value { node: id, slot };
                self.values.entry(old).or_insert(Value { node, slot });
            }
        }
    }

    /// Joins the copies to copies of their operands, all of which must have a place.
    pub fn join(&self, from: &Graph, into: &mut Graph) {
        for (&old, &new) in &self.nodes {
            let inputs = from.inputs_of(old).into_iter().enumerate();
            let inputs = inputs.filter_map(|(slot, v)| Some((v?, Port::Input(slot as u32))));
            let captured = from.captured_by(old).into_iter().enumerate();
            let captured = captured.map(|(label, v)| (v, Port::Capture(label as u32)));
            for (value, port) in inputs.chain(captured) {
                into.join(self.values[&value], new, port);
            }
        }
    }
}

/// Outputs of a graph have their type from where they are declared as such.
fn keep_types(id: NodeId, from: &Graph, vertex: &mut Vertex) {
    for (slot, output) in vertex.outputs.iter_mut().enumerate() {
        if output.inferred.is_none() && output.declared.is_none() {
            let slot = slot as u32;
            output.inferred = from.value_type(Value { node: id, slot });
        }
    }
}
