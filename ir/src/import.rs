//! ONNX messages to a graph: names become edges.

mod error;

use std::collections::{BTreeMap, BTreeSet};

use bcosc_onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto,
    ValueInfoProto,
};

pub use error::ImportError;

use crate::graph::{GraphOutput, Port};
use crate::node::Output;
use crate::{Attribute, Graph, Model, Node, NodeId, Op, Parameter, ParameterData, Tensor, Value};

impl Model {
    /// Builds the graph of an ONNX model.
    pub fn from_proto(mut header: ModelProto) -> Result<Self, ImportError> {
        let proto = header.graph.take().ok_or(ImportError::NoGraph)?;
        let (mut graph, free) = import_graph(*proto)?;
        if let Some((value, by)) = free.into_iter().next() {
            return Err(ImportError::UndefinedValue { value, by });
        }
        reserve_nested_names(&mut graph);
        graph.pinned = pinned(&graph, &header);
        graph.mark_original();
        Ok(Model { graph, header })
    }

    /// Reads a changed message of this model. Values that keep their name keep what they stand for, and
    /// others stand for nothing; see [`Graph::stands_for`].
    pub fn read_anew(&self, proto: ModelProto) -> Result<Self, ImportError> {
        let mut model = Model::from_proto(proto)?;
        model.graph.take_provenance(&self.graph);
        Ok(model)
    }
}

/// Names that a graph reads and does not define, each with a reader.
type Free = BTreeMap<String, String>;

fn import_graph(proto: GraphProto) -> Result<(Graph, Free), ImportError> {
    let mut importer = Importer::default();
    importer.parameters(proto.initializer, proto.sparse_initializer)?;
    importer.inputs(proto.input)?;
    let bodies = importer.ops(proto.node)?;
    importer.value_info(proto.value_info);
    for body in bodies {
        importer.connect(body);
    }
    importer.outputs(proto.output)?;
    let Importer {
        mut graph, free, ..
    } = importer;
    graph.imported = graph.next_serial;
    graph.frame.name = proto.name;
    graph.frame.doc_string = proto.doc_string;
    graph.frame.metadata_props = proto.metadata_props;
    graph.frame.quantization_annotation = proto.quantization_annotation;
    if let Some(node) = first_on_cycle(&graph) {
        return Err(ImportError::Cycle {
            node: describe(&graph, node),
        });
    }
    Ok((graph, free))
}

/// The operands of a node, until every name has a producer.
struct Operands {
    node: NodeId,
    inputs: Vec<String>,
}

#[derive(Default)]
struct Importer {
    graph: Graph,
    defined: BTreeMap<String, Value>,
    free: Free,
    place: u32,
}

impl Importer {
    fn next_place(&mut self) -> u32 {
        self.place += 1;
        self.place
    }

    fn define(
        &mut self,
        name: &str,
        value: Value,
        by: impl FnOnce(&Graph) -> String,
    ) -> Result<(), ImportError> {
        if self.defined.insert(name.to_owned(), value).is_some() {
            return Err(ImportError::DuplicateValue {
                value: name.to_owned(),
                by: by(&self.graph),
            });
        }
        self.graph.names.insert(name.to_owned());
        Ok(())
    }

    fn source(&mut self, name: String, node: Node) -> NodeId {
        let place = self.next_place();
        self.graph.add_vertex(
            place,
            node,
            vec![Output {
                name,
                ..Output::default()
            }],
        )
    }

    fn parameters(
        &mut self,
        dense: Vec<TensorProto>,
        sparse: Vec<SparseTensorProto>,
    ) -> Result<(), ImportError> {
        let dense = dense.into_iter().map(|mut tensor| {
            let name = tensor.name.take().unwrap_or_default();
            match Tensor::from_proto(tensor) {
                Ok(tensor) => Ok((name, ParameterData::Dense(tensor))),
                Err(source) => Err(ImportError::Tensor { name, source }),
            }
        });
        let sparse = sparse.into_iter().map(|tensor| {
            let name = tensor
                .values
                .as_ref()
                .and_then(|v| v.name.clone())
                .unwrap_or_default();
            Ok((name, ParameterData::Sparse(Box::new(tensor))))
        });
        for (index, entry) in dense.chain(sparse).enumerate() {
            let (name, data) = entry?;
            if name.is_empty() {
                return Err(ImportError::Unnamed {
                    what: "initializer",
                    index,
                });
            }
            let parameter = Parameter {
                data,
                as_input: None,
            };
            let node = self.source(name.clone(), Node::Parameter(Box::new(parameter)));
            self.define(&name, Value { node, slot: 0 }, |_| "an initializer".into())?;
        }
        Ok(())
    }

    fn inputs(&mut self, inputs: Vec<ValueInfoProto>) -> Result<(), ImportError> {
        for (index, info) in inputs.into_iter().enumerate() {
            let name = info.name.clone().unwrap_or_default();
            if name.is_empty() {
                return Err(ImportError::Unnamed {
                    what: "graph input",
                    index,
                });
            }
            let default = self.defined.get(&name).map(|v| v.node);
            if let Some(node) = default.filter(|node| !self.graph.inputs.contains(node)) {
                if let Node::Parameter(parameter) = &mut self.graph.vertex_mut(node).node {
                    parameter.as_input = Some(info);
                }
                self.graph.inputs.push(node);
                continue;
            }
            let node = self.source(name.clone(), Node::Input(info));
            self.graph.inputs.push(node);
            self.define(&name, Value { node, slot: 0 }, |_| "a graph input".into())?;
        }
        Ok(())
    }

    fn ops(&mut self, nodes: Vec<NodeProto>) -> Result<Vec<Operands>, ImportError> {
        let mut operands = Vec::with_capacity(nodes.len());
        for mut header in nodes {
            let inputs = std::mem::take(&mut header.input);
            let names = std::mem::take(&mut header.output);
            let attributes = std::mem::take(&mut header.attribute);
            let mut captures = BTreeSet::new();
            let attributes = attributes
                .into_iter()
                .map(|a| import_attribute(a, &mut captures))
                .collect::<Result<_, _>>()?;
            let op = Op {
                header,
                attributes,
                arity: inputs.len() as u32,
                captures: captures.into_iter().collect(),
            };
            self.graph
                .names
                .extend(Some(op.name().to_owned()).filter(|n| !n.is_empty()));
            let outputs = names.iter().map(|name| Output {
                name: name.clone(),
                ..Output::default()
            });
            let outputs = outputs.collect();
            let place = self.next_place();
            let node = self
                .graph
                .add_vertex(place, Node::Op(Box::new(op)), outputs);
            if let Some(attribute) = repeated_attribute(&self.graph, node) {
                return Err(ImportError::DuplicateAttribute {
                    attribute,
                    node: describe(&self.graph, node),
                });
            }
            for (slot, name) in names
                .iter()
                .enumerate()
                .filter(|(_, name)| !name.is_empty())
            {
                let value = Value {
                    node,
                    slot: slot as u32,
                };
                self.define(name, value, |graph| describe(graph, node))?;
            }
            operands.push(Operands { node, inputs });
        }
        Ok(operands)
    }

    fn connect(&mut self, operands: Operands) {
        let Operands { node, inputs } = operands;
        for (slot, name) in inputs
            .into_iter()
            .enumerate()
            .filter(|(_, name)| !name.is_empty())
        {
            self.join(&name, node, Port::Input(slot as u32));
        }
        let captures = self
            .graph
            .op(node)
            .map(|op| op.captures.clone())
            .unwrap_or_default();
        for (label, name) in captures.into_iter().enumerate() {
            self.join(&name, node, Port::Capture(label as u32));
        }
    }

    fn join(&mut self, name: &str, node: NodeId, to: Port) {
        let value = match self.defined.get(name) {
            Some(value) => *value,
            None => {
                let by = describe(&self.graph, node);
                self.capture(name, by)
            }
        };
        self.graph.join(value, node, to);
    }

    /// A name that is not defined here belongs to an enclosing graph.
    fn capture(&mut self, name: &str, by: String) -> Value {
        self.free.entry(name.to_owned()).or_insert(by);
        let node = self.graph.add_vertex(
            0,
            Node::Capture(name.to_owned()),
            vec![Output {
                name: name.to_owned(),
                ..Output::default()
            }],
        );
        let value = Value { node, slot: 0 };
        self.defined.insert(name.to_owned(), value);
        value
    }

    fn value_info(&mut self, entries: Vec<ValueInfoProto>) {
        for (place, info) in entries.into_iter().enumerate() {
            let place = place as u32;
            let value = info
                .name
                .as_ref()
                .and_then(|name| self.defined.get(name))
                .copied();
            let slot =
                value.map(|v| &mut self.graph.vertex_mut(v.node).outputs[v.slot as usize].declared);
            match slot {
                Some(slot @ None) => *slot = Some((place, info)),
                _ => self.graph.frame.stray_value_info.push((place, info)),
            }
        }
    }

    fn outputs(&mut self, outputs: Vec<ValueInfoProto>) -> Result<(), ImportError> {
        for (index, info) in outputs.into_iter().enumerate() {
            let name = info.name.clone().unwrap_or_default();
            if name.is_empty() {
                return Err(ImportError::Unnamed {
                    what: "graph output",
                    index,
                });
            }
            let value = match self.defined.get(&name) {
                Some(value) => *value,
                None => self.capture(&name, "the graph's output list".to_owned()),
            };
            self.graph.outputs.push(GraphOutput { value, info });
        }
        Ok(())
    }
}

/// The name of an attribute that a node has more than once: readers would differ in which one counts.
fn repeated_attribute(graph: &Graph, node: NodeId) -> Option<String> {
    let mut seen = BTreeSet::new();
    let mut names = graph.op(node)?.attributes().iter().map(Attribute::name);
    names.find(|name| !seen.insert(*name)).map(str::to_owned)
}

fn import_attribute(
    mut proto: AttributeProto,
    captures: &mut BTreeSet<String>,
) -> Result<Attribute, ImportError> {
    let single = proto.g.take().map(|g| *g);
    let single_graph = single.is_some();
    let many = std::mem::take(&mut proto.graphs);
    let mut graphs = Vec::with_capacity(many.len() + usize::from(single_graph));
    for body in single.into_iter().chain(many) {
        let (graph, free) = import_graph(body)?;
        captures.extend(free.into_keys());
        graphs.push(graph);
    }
    Ok(Attribute {
        proto,
        graphs,
        single_graph,
    })
}

/// Keeps names of nested graphs from being given to new values of the graph around them.
pub(crate) fn reserve_nested_names(graph: &mut Graph) {
    let nested: Vec<String> = graph
        .unordered()
        .filter_map(|id| graph.op(id))
        .flat_map(|op| op.subgraphs())
        .flat_map(all_names)
        .collect();
    graph.names.extend(nested);
}

fn all_names(graph: &Graph) -> Vec<String> {
    let inner = graph
        .unordered()
        .filter_map(|id| graph.op(id))
        .flat_map(|op| op.subgraphs());
    graph
        .names
        .iter()
        .cloned()
        .chain(inner.flat_map(all_names))
        .collect()
}

/// Initializers that quantisation annotations and training graphs name.
fn pinned(graph: &Graph, header: &ModelProto) -> BTreeSet<String> {
    let annotations = graph.frame.quantization_annotation.iter();
    let parameters = annotations.flat_map(|a| &a.quant_parameter_tensor_names);
    let mut names: BTreeSet<String> = parameters.filter_map(|p| p.value.clone()).collect();
    for training in &header.training_info {
        let bindings = training.initialization_binding.iter();
        let bindings = bindings.chain(&training.update_binding);
        names.extend(bindings.filter_map(|b| b.key.clone()));
        let graphs = [&training.initialization, &training.algorithm];
        let nodes = graphs.into_iter().flatten().flat_map(|g| &g.node);
        names.extend(nodes.flat_map(|n| n.input.iter().cloned()));
    }
    names
}

fn first_on_cycle(graph: &Graph) -> Option<NodeId> {
    let order = crate::order::topological(graph);
    if order.len() == graph.net.node_count() {
        return None;
    }
    let reached: BTreeSet<NodeId> = order.into_iter().collect();
    graph.unordered().find(|id| !reached.contains(id))
}

fn describe(graph: &Graph, id: NodeId) -> String {
    let kind = graph.op(id).map_or_else(|| "value".to_owned(), Op::kind);
    format!("{kind} node \"{}\"", graph.label(id))
}
