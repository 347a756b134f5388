//! Changes that patches are made of, and declarations of inputs and outputs.

use bcosc_onnx::proto::ValueInfoProto;
use petgraph::Direction;
use petgraph::visit::EdgeRef;

use super::{Edge, Graph, GraphOutput, NodeId, Port, Value, Vertex};
use crate::node::Output;
use crate::{Node, Op, TensorType};

impl Graph {
    /// Records what inference found about a value.
    pub fn set_value_type(&mut self, value: Value, inferred: TensorType) {
        self.vertex_mut(value.node).outputs[value.slot as usize].inferred = Some(inferred);
    }

    /// Redeclares an input of the graph; it then no longer stands for a value of the original (see
    /// [`Graph::stands_for`]). Without effect on values that are not inputs.
    pub fn retype_input(&mut self, input: Value, tensor_type: TensorType) {
        let vertex = self.vertex_mut(input.node);
        let output = &mut vertex.outputs[0];
        if let Node::Input(info) = &mut vertex.node {
            info.r#type = Some(Box::new(tensor_type.to_proto()));
            output.declared = None;
            output.inferred = Some(tensor_type);
            output.stands_for.clear();
        }
    }

    /// Declares the type of an output. Without effect if there is no such output.
    pub fn redeclare_output(&mut self, index: usize, tensor_type: &TensorType) {
        if let Some(output) = self.outputs.get_mut(index) {
            output.info.r#type = Some(Box::new(tensor_type.to_proto()));
        }
    }

    /// Adds an input after those that are there, under a name close to the wanted one.
    pub fn add_input(&mut self, name: &str, tensor_type: TensorType) -> Value {
        let name = self.fresh_name(name);
        let info = tensor_type.to_value_info(&name);
        let output = Output {
            name,
            inferred: Some(tensor_type),
            ..Output::default()
        };
        let node = self.add_vertex(0, Node::Input(info), vec![output]);
        self.inputs.push(node);
        Value { node, slot: 0 }
    }

    /// Removes an input of the graph that nothing reads. Does nothing if it is read, or is no input.
    pub fn remove_unused_input(&mut self, input: Value) {
        let is_output = self.outputs.iter().any(|output| output.value == input);
        let is_read = is_output || !self.uses(input).is_empty();
        if matches!(self.node(input.node), Node::Input(_)) && !is_read {
            self.inputs.retain(|&id| id != input.node);
            self.remove_vertex(input.node);
        }
    }

    /// Declares other outputs, each with the name it has as an output; the names must differ. What
    /// only the former outputs needed stays until [`Graph::remove_dead`].
    pub fn set_outputs(&mut self, outputs: &[(Value, String)]) {
        self.outputs.clear();
        for (value, name) in outputs {
            let value = self.called(*value, name);
            let info = match self.value_type(value) {
                Some(found) => found.to_value_info(name),
                None => ValueInfoProto {
                    name: Some(name.clone()),
                    ..ValueInfoProto::default()
                },
            };
            self.outputs.push(GraphOutput { value, info });
        }
    }

    /// The value under a name: itself where it has that name, else a copy that takes the name from
    /// whatever has it.
    fn called(&mut self, value: Value, name: &str) -> Value {
        if self.value_name(value) == name {
            return value;
        }
        if self.names.contains(name)
            && let Some(holder) = self.value_named(name)
        {
            let free = self.fresh_name(&format!("{name}.before"));
            self.vertex_mut(holder.node).outputs[holder.slot as usize].name = free;
        }
        self.names.insert(name.to_owned());
        self.add_identity(value, name.to_owned())
    }

    /// A copy of a value, next to its producer.
    pub(crate) fn add_identity(&mut self, of: Value, name: String) -> Value {
        let place = self.vertex(of.node).place;
        let mut op = Op::new("", "Identity").named(&name);
        op.arity = 1;
        let output = Output {
            name,
            inferred: self.value_type(of),
            ..Output::default()
        };
        let node = self.add_vertex(place, Node::Op(Box::new(op)), vec![output]);
        self.connect(of, node, Port::Input(0));
        Value { node, slot: 0 }
    }

    pub(crate) fn add_vertex(&mut self, place: u32, node: Node, outputs: Vec<Output>) -> NodeId {
        let serial = self.next_serial;
        self.next_serial += 1;
        let index = self.net.add_node(Vertex {
            serial,
            place,
            node,
            outputs,
        });
        NodeId { serial, index }
    }

    /// Joins a value to a port that is known to be empty.
    pub(crate) fn join(&mut self, value: Value, to: NodeId, port: Port) {
        let from = value.slot;
        self.net
            .add_edge(value.node.index, to.index, Edge { from, to: port });
    }

    /// Joins a value to a port of a node, dropping what was joined there.
    pub(crate) fn connect(&mut self, value: Value, to: NodeId, port: Port) {
        self.disconnect(to, port);
        self.join(value, to, port);
    }

    /// Leaves a port of a node empty.
    pub(crate) fn disconnect(&mut self, to: NodeId, port: Port) {
        let mut edges = self.net.edges_directed(to.index, Direction::Incoming);
        if let Some(edge) = edges.find(|e| e.weight().to == port).map(|e| e.id()) {
            self.net.remove_edge(edge);
        }
    }

    /// Removes a node that is not an input of the graph.
    pub(crate) fn remove_vertex(&mut self, id: NodeId) {
        self.net.remove_node(id.index);
    }

    /// A name that is not in use yet, close to the wanted one; it counts as used from now on.
    pub(crate) fn fresh_name(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        while name.is_empty() || self.names.contains(&name) {
            let last = self.suffixes.entry(wanted.to_owned()).or_insert(1);
            *last += 1;
            name = format!("{wanted}_{last}");
        }
        self.names.insert(name.clone());
        name
    }
}
