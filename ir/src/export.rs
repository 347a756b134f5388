//! A graph back to ONNX messages: edges become names.

use std::collections::BTreeMap;

use bcosc_onnx::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, ValueInfoProto};

use crate::{Attribute, Graph, Model, Node, NodeId, Op, ParameterData, Value};

impl Model {
    /// Writes the model as ONNX messages. Payloads are shared with the model, not copied.
    pub fn to_proto(&self) -> ModelProto {
        let mut proto = self.header.clone();
        proto.graph = Some(Box::new(export_graph(&self.graph, &Labels::new())));
        proto
    }
}

/// What captured labels are called in the enclosing graph.
pub(crate) type Labels<'a> = BTreeMap<&'a str, &'a str>;

fn export_graph(graph: &Graph, labels: &Labels) -> GraphProto {
    let frame = &graph.frame;
    let mut proto = GraphProto {
        name: frame.name.clone(),
        doc_string: frame.doc_string.clone(),
        metadata_props: frame.metadata_props.clone(),
        quantization_annotation: frame.quantization_annotation.clone(),
        input: graph
            .inputs
            .iter()
            .filter_map(|&id| input_info(graph, id))
            .collect(),
        output: graph.outputs.iter().map(|o| o.info.clone()).collect(),
        value_info: value_info(graph),
        ..GraphProto::default()
    };
    for (id, parameter) in graph.parameters() {
        let name = Some(graph.vertex(id).outputs[0].name.clone());
        match &parameter.data {
            ParameterData::Dense(tensor) => {
                let mut tensor = tensor.proto().clone();
                tensor.name = name;
                proto.initializer.push(tensor);
            }
            ParameterData::Sparse(sparse) => {
                let mut sparse = (**sparse).clone();
                if let Some(values) = &mut sparse.values {
                    values.name = name;
                }
                proto.sparse_initializer.push(sparse);
            }
        }
    }
    for (i, output) in graph.outputs.iter().enumerate() {
        if matches!(graph.node(output.value.node), Node::Capture(_)) {
            proto.output[i].name = Some(name_of(graph, output.value, labels).to_owned());
        }
    }
    proto.node = graph
        .ops()
        .into_iter()
        .filter_map(|id| export_op(graph, id, labels))
        .collect();
    proto
}

fn input_info(graph: &Graph, id: NodeId) -> Option<ValueInfoProto> {
    let info = match graph.node(id) {
        Node::Input(info) => info.clone(),
        Node::Parameter(parameter) => parameter.as_input.clone()?,
        Node::Op(_) | Node::Capture(_) => return None,
    };
    let name = Some(graph.vertex(id).outputs[0].name.clone());
    Some(ValueInfoProto { name, ..info })
}

fn value_info(graph: &Graph) -> Vec<ValueInfoProto> {
    let declared = graph.unordered().flat_map(|id| &graph.vertex(id).outputs);
    let declared = declared.filter_map(|output| {
        let (place, info) = output.declared.as_ref()?;
        let name = Some(output.name.clone());
        Some((
            *place,
            ValueInfoProto {
                name,
                ..info.clone()
            },
        ))
    });
    let mut entries: Vec<(u32, ValueInfoProto)> = declared
        .chain(graph.frame.stray_value_info.iter().cloned())
        .collect();
    entries.sort_by(|a, b| (a.0, &a.1.name).cmp(&(b.0, &b.1.name)));
    entries.into_iter().map(|(_, info)| info).collect()
}

fn name_of<'a>(graph: &'a Graph, value: Value, labels: &Labels<'a>) -> &'a str {
    match graph.node(value.node) {
        Node::Capture(label) => labels.get(label.as_str()).copied().unwrap_or(label),
        _ => graph.value_name(value),
    }
}

fn export_op(graph: &Graph, id: NodeId, labels: &Labels) -> Option<NodeProto> {
    let op = graph.op(id)?;
    let inner = inner_labels(graph, id, op, labels);
    let inputs = graph.inputs_of(id).into_iter();
    Some(NodeProto {
        input: inputs
            .map(|v| v.map_or_else(String::new, |v| name_of(graph, v, labels).to_owned()))
            .collect(),
        output: graph
            .vertex(id)
            .outputs
            .iter()
            .map(|o| o.name.clone())
            .collect(),
        attribute: op
            .attributes
            .iter()
            .map(|a| export_attribute(a, &inner))
            .collect(),
        ..op.header.clone()
    })
}

fn inner_labels<'a>(graph: &'a Graph, id: NodeId, op: &'a Op, labels: &Labels<'a>) -> Labels<'a> {
    let names = graph
        .captured_by(id)
        .into_iter()
        .map(|value| name_of(graph, value, labels));
    op.captures.iter().map(String::as_str).zip(names).collect()
}

pub(crate) fn export_attribute(attribute: &Attribute, labels: &Labels) -> AttributeProto {
    let mut proto = attribute.proto.clone();
    let (single, many) = attribute
        .graphs
        .split_at(usize::from(attribute.single_graph));
    proto.g = single
        .first()
        .map(|graph| Box::new(export_graph(graph, labels)));
    proto.graphs = many
        .iter()
        .map(|graph| export_graph(graph, labels))
        .collect();
    proto
}
