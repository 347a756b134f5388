//! The vertices of the graph: operators, inputs, parameters and captured values.

use std::sync::Arc;

use bcosc_onnx::proto::{AttributeProto, NodeProto, SparseTensorProto, ValueInfoProto};

use crate::{Graph, Tensor, TensorType};

/// A vertex of the graph.
#[derive(Clone, Debug)]
pub enum Node {
    /// An operator application.
    Op(Box<Op>),
    /// A graph input.
    Input(ValueInfoProto),
    /// A constant of the graph (an ONNX initializer).
    Parameter(Box<Parameter>),
    /// In a subgraph: a value of the enclosing graph, known by this label to the operator that holds the subgraph.
    Capture(String),
}

impl Node {
    /// The operator, if this is one.
    pub fn as_op(&self) -> Option<&Op> {
        match self {
            Node::Op(op) => Some(op),
            _ => None,
        }
    }

    /// The parameter, if this is one.
    pub fn as_parameter(&self) -> Option<&Parameter> {
        match self {
            Node::Parameter(parameter) => Some(parameter),
            _ => None,
        }
    }
}

/// A constant of the graph.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its value.
    pub data: ParameterData,
    /// The declaration, where the model lists the parameter as an input with a default value too.
    pub as_input: Option<ValueInfoProto>,
}

/// The value of a parameter.
#[derive(Clone, Debug)]
pub enum ParameterData {
    /// An ordinary tensor.
    Dense(Tensor),
    /// A sparse tensor; no pass reads it.
    Sparse(Box<SparseTensorProto>),
}

/// An operator application: everything but its operands, which are edges of the graph.
#[derive(Clone, Debug)]
pub struct Op {
    /// The ONNX message without inputs, outputs and attributes.
    pub(crate) header: NodeProto,
    pub(crate) attributes: Vec<Attribute>,
    /// Number of input slots, left-out optional inputs included.
    pub(crate) arity: u32,
    /// Labels of the values that the subgraphs capture, sorted; the slot of a capture edge indexes it.
    pub(crate) captures: Vec<String>,
}

impl Op {
    /// An operator without attributes. `domain` is empty for standard ONNX.
    pub fn new(domain: &str, op_type: &str) -> Self {
        let header = NodeProto {
            op_type: Some(op_type.to_owned()),
            domain: (!domain.is_empty()).then(|| domain.to_owned()),
            ..NodeProto::default()
        };
        Op {
            header,
            attributes: Vec::new(),
            arity: 0,
            captures: Vec::new(),
        }
    }

    /// The node's name; empty where it has none.
    pub fn name(&self) -> &str {
        self.header.name.as_deref().unwrap_or_default()
    }

    /// The operator's name, such as `Conv`.
    pub fn op_type(&self) -> &str {
        self.header.op_type.as_deref().unwrap_or_default()
    }

    /// The operator's domain; empty for standard ONNX, however it was spelled.
    pub fn domain(&self) -> &str {
        match self.header.domain.as_deref() {
            None | Some("ai.onnx") => "",
            Some(domain) => domain,
        }
    }

    /// Which of several local functions of the same name is meant; usually empty.
    pub fn overload(&self) -> &str {
        self.header.overload.as_deref().unwrap_or_default()
    }

    /// Whether this is the standard ONNX operator `op_type`.
    pub fn is(&self, op_type: &str) -> bool {
        self.op_type() == op_type && self.domain().is_empty()
    }

    /// The operator as error messages name it: `Conv`, or `com.acme::Conv`.
    pub fn kind(&self) -> String {
        match self.domain() {
            "" => self.op_type().to_owned(),
            domain => format!("{domain}::{}", self.op_type()),
        }
    }

    /// All attributes in order.
    pub fn attributes(&self) -> &[Attribute] {
        &self.attributes
    }

    /// The attribute of a name.
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|a| a.name() == name)
    }

    /// A tensor attribute.
    pub fn tensor(&self, name: &str) -> Option<Tensor> {
        let tensor = self.attribute(name)?.proto.t.as_deref()?;
        Tensor::from_proto(tensor.clone()).ok()
    }

    /// Adds an attribute or replaces the one of the same name.
    pub fn set(&mut self, attribute: Attribute) {
        match self
            .attributes
            .iter_mut()
            .find(|a| a.name() == attribute.name())
        {
            Some(slot) => *slot = attribute,
            None => self.attributes.push(attribute),
        }
    }

    /// Removes an attribute, if present.
    pub fn unset(&mut self, name: &str) {
        self.attributes.retain(|a| a.name() != name);
    }

    /// The same with a name; on a patch's operator it is the end of the name that the node gets.
    pub fn named(mut self, name: &str) -> Self {
        self.header.name = Some(name.to_owned());
        self
    }

    /// The same with an attribute; for building operators in one expression.
    pub fn with(mut self, attribute: Attribute) -> Self {
        self.set(attribute);
        self
    }

    /// The same with an integer attribute.
    pub fn with_int(self, name: &str, value: i64) -> Self {
        self.with(Attribute::int(name, value))
    }

    /// The same with an integer list attribute.
    pub fn with_ints(self, name: &str, values: &[i64]) -> Self {
        self.with(Attribute::ints(name, values))
    }

    /// The same with a float attribute.
    pub fn with_float(self, name: &str, value: f32) -> Self {
        self.with(Attribute::float(name, value))
    }

    /// A metadata property of the node.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        crate::metadata::get(&self.header.metadata_props, key)
    }

    /// Sets a metadata property of the node.
    pub fn set_metadata(&mut self, key: &str, value: &str) {
        crate::metadata::set(&mut self.header.metadata_props, key, value);
    }

    /// The graphs that the attributes hold (branches of `If`, bodies of `Loop` and `Scan`).
    pub fn subgraphs(&self) -> impl Iterator<Item = &Graph> {
        self.attributes.iter().flat_map(|a| &a.graphs)
    }

    /// Whether a subgraph has a value of its own by this name.
    pub(crate) fn defines(&self, name: &str) -> bool {
        let inside = |graph: &Graph| {
            graph.unordered().any(|id| {
                let vertex = graph.vertex(id);
                let own = !matches!(vertex.node, Node::Capture(_));
                own && vertex.outputs.iter().any(|o| o.name == name)
                    || vertex.node.as_op().is_some_and(|op| op.defines(name))
            })
        };
        self.subgraphs().any(inside)
    }

    /// Labels by which the subgraphs know values of the enclosing graph.
    pub fn captures(&self) -> &[String] {
        &self.captures
    }
}

/// A named constant of an operator, or its subgraphs.
#[derive(Clone, Debug)]
pub struct Attribute {
    /// The ONNX message; its graphs are moved to `graphs`.
    pub(crate) proto: AttributeProto,
    pub(crate) graphs: Vec<Graph>,
    /// Whether the first of the graphs is the message's `g`; the others are its `graphs`.
    pub(crate) single_graph: bool,
}

/// Numbers of `AttributeProto.AttributeType`.
pub(crate) mod attribute_type {
    pub const FLOAT: i32 = 1;
    pub const INT: i32 = 2;
    pub const STRING: i32 = 3;
    pub const TENSOR: i32 = 4;
    pub const FLOATS: i32 = 6;
    pub const INTS: i32 = 7;
    pub const STRINGS: i32 = 8;
    pub const TENSORS: i32 = 9;
    pub const GRAPHS: i32 = 10;
    pub const SPARSE_TENSORS: i32 = 12;
    pub const TYPE_PROTOS: i32 = 14;
}

impl Attribute {
    fn new(name: &str, kind: i32, fill: impl FnOnce(&mut AttributeProto)) -> Self {
        let mut proto = AttributeProto {
            name: Some(name.to_owned()),
            r#type: Some(kind),
            ..AttributeProto::default()
        };
        fill(&mut proto);
        Attribute {
            proto,
            graphs: Vec::new(),
            single_graph: false,
        }
    }

    /// An integer.
    pub fn int(name: &str, value: i64) -> Self {
        Self::new(name, attribute_type::INT, |p| p.i = Some(value))
    }

    /// A list of integers.
    pub fn ints(name: &str, values: &[i64]) -> Self {
        Self::new(name, attribute_type::INTS, |p| p.ints = values.to_vec())
    }

    /// A float.
    pub fn float(name: &str, value: f32) -> Self {
        Self::new(name, attribute_type::FLOAT, |p| p.f = Some(value))
    }

    /// A string.
    pub fn string(name: &str, value: &str) -> Self {
        let bytes = value.as_bytes().to_vec().into();
        Self::new(name, attribute_type::STRING, |p| p.s = Some(bytes))
    }

    /// A tensor.
    pub fn tensor(name: &str, value: Tensor) -> Self {
        Self::new(name, attribute_type::TENSOR, |p| {
            p.t = Some(Box::new(value.into_proto()))
        })
    }

    /// The attribute's name.
    pub fn name(&self) -> &str {
        self.proto.name.as_deref().unwrap_or_default()
    }

    /// The ONNX message, without subgraphs.
    pub fn proto(&self) -> &AttributeProto {
        &self.proto
    }
}

/// One output slot of a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Output {
    /// Name in the model; empty where the optional output is left out.
    pub name: String,
    /// The model's own `value_info` entry and its place in the list.
    pub declared: Option<(u32, ValueInfoProto)>,
    /// What inference found.
    pub inferred: Option<TensorType>,
    /// Names of the values of the original model that this one stands for.
    pub stands_for: Vec<Arc<str>>,
}
