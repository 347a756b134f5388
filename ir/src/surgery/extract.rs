//! A part of a graph as a model of its own.

use std::collections::BTreeSet;

use bcosc_onnx::proto::{ModelProto, ValueInfoProto};

use super::copy::Moved;
use super::{SurgeryError, annotations, check_values};
use crate::graph::{Frame, GraphOutput};
use crate::node::Output;
use crate::{Graph, Model, Node, NodeId, Value};

impl Model {
    /// The part of the graph that computes `outputs` from `inputs`, as a model of its own.
    ///
    /// Inputs and outputs are named as the values are, in the order given; an input that no output needs
    /// stays an input. Whatever else the outputs need comes along: constants (which share their data with
    /// this model), values that subgraphs capture, parameters that are inputs with a default, and the
    /// quantisation annotations of all of these. Imports, local functions, metadata and
    /// [provenance](Graph::stands_for) are those of this model; training graphs stay behind.
    ///
    /// An operator of which one output is cut off and another one is needed comes along, and puts the
    /// first one out under another name.
    ///
    /// ```
    /// # use bcosc_ir::{DataType, ModelBuilder};
    /// # let model = ModelBuilder::new(20)
    /// #     .input("x", DataType::Float, "n")
    /// #     .op("Relu", &["x"], "a", [])
    /// #     .value("a", DataType::Float, "n")
    /// #     .op("Neg", &["a"], "b", [])
    /// #     .output("b")
    /// #     .finish()?;
    /// let value = |name| model.graph.value_named(name).unwrap();
    /// let half = model.extract(&[value("a")], &[value("b")])?;
    /// assert_eq!(half.graph.value_name(half.graph.inputs()[0]), "a");
    /// assert_eq!(half.graph.op_count(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If an output depends on an input of this model that is not among `inputs`, the type of one of
    /// the `inputs` is not known, or a value is not there or given twice.
    pub fn extract(&self, inputs: &[Value], outputs: &[Value]) -> Result<Model, SurgeryError> {
        let from = &self.graph;
        check_values(from, inputs, "input")?;
        check_values(from, outputs, "output")?;
        let cut: BTreeSet<Value> = inputs.iter().copied().collect();
        let mut nodes = needed(from, &cut, outputs)?;
        let annotations = annotations::kept(from, &cut, &mut nodes);

        let mut graph = Graph::default();
        let mut moved = Moved::default();
        for &input in inputs {
            let node = add_input(&mut graph, from, input)?;
            moved.values.insert(input, Value { node, slot: 0 });
        }
        // Serial numbers tell what came with the model.
        let (original, made) = nodes.into_iter().partition(|&id| from.is_original(id));
        moved.copy(&original, from, &mut graph, |_| ());
        graph.imported = graph.next_serial;
        moved.copy(&made, from, &mut graph, |_| ());
        moved.join(from, &mut graph);

        let defaults = from.inputs.iter().filter(|id| is_default(from, **id));
        let defaults = defaults.filter_map(|id| moved.nodes.get(id));
        graph.inputs.extend(defaults);
        graph.outputs = outputs
            .iter()
            .map(|&value| GraphOutput {
                value: moved.values[&value],
                info: output_info(from, value),
            })
            .collect();
        reserve_names(&mut graph);
        for value in &cut {
            if let Some(&node) = moved.nodes.get(&value.node) {
                make_anew(&mut graph, node, value.slot);
            }
        }
        graph.pinned = annotations
            .iter()
            .flat_map(annotations::constants)
            .collect();
        graph.frame = Frame {
            quantization_annotation: annotations,
            stray_value_info: Vec::new(),
            ..from.frame.clone()
        };
        #[cfg(debug_assertions)]
        crate::check::assert_consistent(&graph);
        let header = ModelProto {
            training_info: Vec::new(),
            ..self.header.clone()
        };
        Ok(Model { graph, header })
    }
}

/// What outputs are computed from, up to where it is cut.
fn needed(
    graph: &Graph,
    cut: &BTreeSet<Value>,
    outputs: &[Value],
) -> Result<BTreeSet<NodeId>, SurgeryError> {
    let cone = |of: &[Value]| graph.cone(of, |value| cut.contains(&value)).nodes;
    let nodes = cone(outputs);
    let is_input = |id: &&NodeId| matches!(graph.node(**id), Node::Input(_));
    let Some(input) = nodes.iter().find(is_input) else {
        return Ok(nodes);
    };
    let output = outputs
        .iter()
        .find(|&&output| cone(&[output]).contains(input));
    Err(SurgeryError::NotCutOff {
        output: output
            .map_or("", |&output| graph.value_name(output))
            .to_owned(),
        input: graph.label(*input),
    })
}

fn is_default(graph: &Graph, id: NodeId) -> bool {
    graph.node(id).as_parameter().is_some()
}

/// Adds an input to a part that replaces a value of the whole.
fn add_input(graph: &mut Graph, from: &Graph, value: Value) -> Result<NodeId, SurgeryError> {
    let mut output = from.vertex(value.node).outputs[value.slot as usize].clone();
    let info = match from.node(value.node) {
        Node::Input(info) => info.clone(),
        _ => {
            let info = typed_info(from, value);
            output = Output {
                declared: None,
                ..output
            };
            info.ok_or_else(|| SurgeryError::UnknownType {
                value: output.name.clone(),
            })?
        }
    };
    let place = match from.node(value.node) {
        Node::Op(_) | Node::Capture(_) => 0,
        Node::Input(_) | Node::Parameter(_) => from.vertex(value.node).place,
    };
    let node = graph.add_vertex(place, Node::Input(info), vec![output]);
    graph.inputs.push(node);
    Ok(node)
}

/// How a value is declared: as a tensor of the type it has, or else in the model's own words.
fn typed_info(graph: &Graph, value: Value) -> Option<ValueInfoProto> {
    let name = graph.value_name(value);
    if let Some(found) = graph.value_type(value) {
        return Some(found.to_value_info(name));
    }
    let outputs = graph.outputs.iter().filter(|o| o.value == value);
    let declared = &graph.vertex(value.node).outputs[value.slot as usize].declared;
    let mut declared = declared
        .iter()
        .map(|(_, info)| info)
        .chain(outputs.map(|o| &o.info));
    let info = declared.find(|info| info.r#type.is_some())?;
    Some(ValueInfoProto {
        name: Some(name.to_owned()),
        ..info.clone()
    })
}

fn output_info(graph: &Graph, value: Value) -> ValueInfoProto {
    let name = graph.value_name(value);
    let mut own = graph
        .outputs
        .iter()
        .filter(|o| o.value == value)
        .map(|o| &o.info);
    let own = own.find(|info| info.name() == name).cloned();
    own.or_else(|| typed_info(graph, value))
        .unwrap_or_else(|| ValueInfoProto {
            name: Some(name.to_owned()),
            ..ValueInfoProto::default()
        })
}

fn reserve_names(graph: &mut Graph) {
    let mut names = BTreeSet::new();
    for vertex in graph.net.node_weights() {
        names.extend(vertex.outputs.iter().map(|output| output.name.clone()));
        names.extend(vertex.node.as_op().map(|op| op.name().to_owned()));
    }
    names.remove("");
    graph.names = names;
    crate::import::reserve_nested_names(graph);
}

/// An output that is an input too, since it was cut off, gets another name where it is made anew.
fn make_anew(graph: &mut Graph, node: NodeId, slot: u32) {
    let name = graph.value_name(Value { node, slot }).to_owned();
    let name = graph.fresh_name(&format!("{name}.anew"));
    graph.vertex_mut(node).outputs[slot as usize] = Output {
        name,
        inferred: graph.vertex(node).outputs[slot as usize].inferred.clone(),
        ..Output::default()
    };
}
