//! The graph: nodes on petgraph, operands as edges between slots.
//!
//! petgraph stays inside this crate. Outside it, a [`NodeId`] names one node for good: the id of a
//! removed node never comes to mean another one.

mod edit;
mod provenance;

use std::collections::{BTreeMap, BTreeSet};

use bcosc_onnx::proto::{StringStringEntryProto, TensorAnnotation, ValueInfoProto};
use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;

use crate::node::Output;
use crate::{Node, Op, Parameter, ParameterData, Tensor, TensorType};

/// One node of a [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    serial: u32,
    index: NodeIndex,
}

impl NodeId {
    pub(crate) fn index(self) -> NodeIndex {
        self.index
    }
}

/// One output of a node: what edges carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    /// The producer.
    pub node: NodeId,
    /// Which of its outputs.
    pub slot: u32,
}

/// A use of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// An input slot of an operator.
    Input {
        /// The operator.
        node: NodeId,
        /// Its input slot.
        slot: u32,
    },
    /// A subgraph of an operator reads the value.
    Capture {
        /// The operator that holds the subgraph.
        node: NodeId,
        /// Index into [`Op::captures`].
        label: u32,
    },
    /// An output of the graph.
    Output(usize),
}

#[derive(Clone, Debug)]
pub(crate) struct Vertex {
    pub serial: u32,
    /// Order of nodes in the written file, where dependencies allow: position in the original file first.
    pub place: u32,
    pub node: Node,
    pub outputs: Vec<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    pub from: u32,
    pub to: Port,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Port {
    Input(u32),
    Capture(u32),
}

/// An output of the graph: a value and its declaration.
#[derive(Clone, Debug)]
pub struct GraphOutput {
    /// What is output.
    pub value: Value,
    /// Name, type and documentation as declared.
    pub info: ValueInfoProto,
}

/// A dataflow graph.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub(crate) net: StableDiGraph<Vertex, Edge>,
    pub(crate) next_serial: u32,
    /// `Input` nodes, and parameters that are inputs with a default value, in declared order.
    pub(crate) inputs: Vec<NodeId>,
    pub(crate) outputs: Vec<GraphOutput>,
    /// All names ever used in this graph and in nested graphs.
    pub(crate) names: BTreeSet<String>,
    /// The last number appended to a name to make it unique.
    pub(crate) suffixes: BTreeMap<String, u32>,
    pub(crate) frame: Frame,
    /// Nodes below this serial number came with the model.
    pub(crate) imported: u32,
    /// Initializers that something besides nodes refers to by name.
    pub(crate) pinned: BTreeSet<String>,
}

/// Parts of an ONNX graph that no pass looks at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frame {
    pub name: Option<String>,
    pub doc_string: Option<String>,
    pub metadata_props: Vec<StringStringEntryProto>,
    pub quantization_annotation: Vec<TensorAnnotation>,
    /// `value_info` entries for names that no node outputs, with their places in the list.
    pub stray_value_info: Vec<(u32, ValueInfoProto)>,
}

impl Graph {
    /// The graph's name.
    pub fn name(&self) -> &str {
        self.frame.name.as_deref().unwrap_or_default()
    }

    /// Every node, in an order that puts producers before consumers and otherwise keeps the file's order.
    pub fn nodes(&self) -> Vec<NodeId> {
        crate::order::topological(self)
    }

    /// Whether the graph is acyclic.
    pub fn is_acyclic(&self) -> bool {
        self.nodes().len() == self.net.node_count()
    }

    /// Every operator, in topological order.
    pub fn ops(&self) -> Vec<NodeId> {
        let mut nodes = self.nodes();
        nodes.retain(|&id| matches!(self.node(id), Node::Op(_)));
        nodes
    }

    /// Number of operators.
    pub fn op_count(&self) -> usize {
        self.net
            .node_weights()
            .filter(|v| matches!(v.node, Node::Op(_)))
            .count()
    }

    /// Every node in order of creation; cheaper than [`Graph::nodes`] if order does not matter.
    pub fn unordered(&self) -> impl Iterator<Item = NodeId> {
        self.net.node_indices().map(|index| self.id(index))
    }

    /// Whether the node is still in the graph.
    pub fn contains(&self, id: NodeId) -> bool {
        self.net
            .node_weight(id.index)
            .is_some_and(|v| v.serial == id.serial)
    }

    /// A node. The id must belong to this graph and not be removed: see [`Graph::contains`].
    pub fn node(&self, id: NodeId) -> &Node {
        &self.vertex(id).node
    }

    /// The operator at a node, if it is one.
    pub fn op(&self, id: NodeId) -> Option<&Op> {
        self.node(id).as_op()
    }

    /// The operator that outputs a value, if one does.
    pub fn producer(&self, value: Value) -> Option<(NodeId, &Op)> {
        self.op(value.node).map(|op| (value.node, op))
    }

    /// Operands of a node by slot; `None` if an optional input is left out.
    pub fn inputs_of(&self, id: NodeId) -> Vec<Option<Value>> {
        let arity = self.op(id).map_or(0, |op| op.arity);
        let mut slots = vec![None; arity as usize];
        for edge in self.net.edges_directed(id.index, Direction::Incoming) {
            if let Port::Input(slot) = edge.weight().to {
                slots[slot as usize] = Some(self.value_of(edge.source(), edge.weight().from));
            }
        }
        slots
    }

    /// One operand of a node; `None` if it is left out.
    pub fn input(&self, id: NodeId, slot: u32) -> Option<Value> {
        let mut edges = self.net.edges_directed(id.index, Direction::Incoming);
        let edge = edges.find(|e| e.weight().to == Port::Input(slot))?;
        Some(self.value_of(edge.source(), edge.weight().from))
    }

    /// Values that a node's subgraphs capture, in the order of [`Op::captures`].
    pub fn captured_by(&self, id: NodeId) -> Vec<Value> {
        let edges = self.net.edges_directed(id.index, Direction::Incoming);
        let mut found: Vec<(Port, Value)> = edges
            .filter(|e| matches!(e.weight().to, Port::Capture(_)))
            .map(|e| (e.weight().to, self.value_of(e.source(), e.weight().from)))
            .collect();
        found.sort();
        found.into_iter().map(|(_, value)| value).collect()
    }

    /// Number of output slots of a node, left-out ones included.
    pub fn output_count(&self, id: NodeId) -> u32 {
        self.vertex(id).outputs.len() as u32
    }

    /// Output of a node that has it, by slot.
    pub fn output(&self, id: NodeId, slot: u32) -> Value {
        Value { node: id, slot }
    }

    /// Every use of a value, in a fixed order.
    pub fn uses(&self, value: Value) -> Vec<Use> {
        let mut uses: Vec<Use> = self
            .net
            .edges_directed(value.node.index, Direction::Outgoing)
            .filter(|e| e.weight().from == value.slot)
            .map(|e| match e.weight().to {
                Port::Input(slot) => Use::Input {
                    node: self.id(e.target()),
                    slot,
                },
                Port::Capture(label) => Use::Capture {
                    node: self.id(e.target()),
                    label,
                },
            })
            .collect();
        uses.sort();
        let outputs = self.outputs.iter().enumerate();
        uses.extend(
            outputs
                .filter(|(_, o)| o.value == value)
                .map(|(i, _)| Use::Output(i)),
        );
        uses
    }

    /// The only use of a value, when it is an operator's input.
    pub fn sole_consumer(&self, value: Value) -> Option<(NodeId, u32)> {
        match self.uses(value)[..] {
            [Use::Input { node, slot }] => Some((node, slot)),
            _ => None,
        }
    }

    /// Name of a value in the model; empty where an optional output is left out, or the node has none.
    pub fn value_name(&self, value: Value) -> &str {
        let output = self.vertex(value.node).outputs.get(value.slot as usize);
        output.map_or("", |output| &output.name)
    }

    /// Type of a value: inferred, or else as declared by the model; `None` also where the node has no such output.
    pub fn value_type(&self, value: Value) -> Option<TensorType> {
        let vertex = self.vertex(value.node);
        let output = vertex.outputs.get(value.slot as usize)?;
        if let Some(inferred) = &output.inferred {
            return Some(inferred.clone());
        }
        let declared = match &vertex.node {
            Node::Parameter(p) => match &p.data {
                ParameterData::Dense(tensor) => return Some(tensor.tensor_type()),
                ParameterData::Sparse(_) => None,
            },
            Node::Input(info) => info.r#type.as_deref(),
            Node::Op(_) | Node::Capture(_) => {
                let output_info = self
                    .outputs
                    .iter()
                    .find(|o| o.value == value)
                    .map(|o| &o.info);
                let info = output
                    .declared
                    .as_ref()
                    .map(|(_, info)| info)
                    .or(output_info);
                info.and_then(|info| info.r#type.as_deref())
            }
        };
        declared.and_then(TensorType::from_proto)
    }

    /// The tensor of a value: a parameter's, or a `Constant` node's.
    pub fn constant(&self, value: Value) -> Option<Tensor> {
        match self.node(value.node) {
            Node::Parameter(parameter) => match &parameter.data {
                ParameterData::Dense(tensor) => Some(tensor.clone()),
                ParameterData::Sparse(_) => None,
            },
            Node::Op(op) if op.is("Constant") => op.tensor("value"),
            _ => None,
        }
    }

    /// The graph's true inputs: those without a default value, in declared order.
    pub fn inputs(&self) -> Vec<Value> {
        let ids = self
            .inputs
            .iter()
            .filter(|&&id| matches!(self.node(id), Node::Input(_)));
        ids.map(|&node| Value { node, slot: 0 }).collect()
    }

    /// The graph's outputs.
    pub fn outputs(&self) -> &[GraphOutput] {
        &self.outputs
    }

    /// Parameters in file order.
    pub fn parameters(&self) -> Vec<(NodeId, &Parameter)> {
        let mut found: Vec<(u32, NodeId, &Parameter)> = self
            .net
            .node_indices()
            .filter_map(|i| {
                let vertex = &self.net[i];
                let parameter = vertex.node.as_parameter()?;
                Some((vertex.place, self.id(i), parameter))
            })
            .collect();
        found.sort_by_key(|&(place, id, _)| (place, id));
        found
            .into_iter()
            .map(|(_, id, parameter)| (id, parameter))
            .collect()
    }

    /// The value of a name.
    pub fn value_named(&self, name: &str) -> Option<Value> {
        self.unordered().find_map(|id| {
            let outputs = &self.vertex(id).outputs;
            let slot = outputs.iter().position(|o| o.name == name)? as u32;
            Some(Value { node: id, slot })
        })
    }

    /// The label of a node in messages: its name, or else the name of its first output.
    pub fn label(&self, id: NodeId) -> String {
        let vertex = self.vertex(id);
        let own = vertex.node.as_op().map_or("", Op::name);
        match (own, vertex.outputs.first()) {
            ("", Some(output)) => output.name.clone(),
            (name, _) => name.to_owned(),
        }
    }

    pub(crate) fn vertex(&self, id: NodeId) -> &Vertex {
        let vertex = &self.net[id.index];
        debug_assert_eq!(vertex.serial, id.serial, "the node was removed");
        vertex
    }

    pub(crate) fn vertex_mut(&mut self, id: NodeId) -> &mut Vertex {
        let vertex = &mut self.net[id.index];
        debug_assert_eq!(vertex.serial, id.serial, "the node was removed");
        vertex
    }

    pub(crate) fn id(&self, index: NodeIndex) -> NodeId {
        NodeId {
            serial: self.net[index].serial,
            index,
        }
    }

    /// Whether the node came with the model.
    pub(crate) fn is_original(&self, id: NodeId) -> bool {
        id.serial < self.imported
    }

    fn value_of(&self, index: NodeIndex, slot: u32) -> Value {
        Value {
            node: self.id(index),
            slot,
        }
    }
}
