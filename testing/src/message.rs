//! ONNX messages, for what `ModelBuilder` does not cover: names of nodes, subgraphs, invalid graphs.

use bcosc_ir::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto,
    ValueInfoProto,
};
use bcosc_ir::{DataType, Tensor, TensorType};

/// The type of an attribute that holds a graph.
pub const GRAPH: i32 = 5;
/// The type of an attribute that holds a list of graphs.
pub const GRAPHS: i32 = 10;

/// Names, each on its own.
pub fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|&n| n.to_owned()).collect()
}

/// A node without a name.
pub fn node(op_type: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: Some(op_type.to_owned()),
        input: strings(inputs),
        output: strings(outputs),
        ..NodeProto::default()
    }
}

/// The node with a name.
pub fn named(name: &str, node: NodeProto) -> NodeProto {
    NodeProto {
        name: Some(name.to_owned()),
        ..node
    }
}

/// A float scalar.
pub fn info(name: &str) -> ValueInfoProto {
    let shape = Some(vec![]);
    TensorType {
        dtype: DataType::Float,
        shape,
    }
    .to_value_info(name)
}

/// A float vector.
pub fn tensor(name: &str, elements: &[f32]) -> TensorProto {
    let tensor = Tensor::f32s(&[elements.len() as u64], elements.to_vec());
    TensorProto {
        name: Some(name.to_owned()),
        ..tensor.into_proto()
    }
}

/// An attribute that holds a graph.
pub fn graph_attribute(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(GRAPH),
        g: Some(Box::new(graph)),
        ..AttributeProto::default()
    }
}

/// A graph of nodes and outputs, as a branch of `If` is.
pub fn branch(nodes: Vec<NodeProto>, outputs: &[&str]) -> GraphProto {
    GraphProto {
        name: Some("branch".to_owned()),
        node: nodes,
        output: outputs.iter().map(|o| info(o)).collect(),
        ..GraphProto::default()
    }
}

/// The graph with outputs of any type.
pub fn untyped(mut graph: GraphProto) -> GraphProto {
    for output in &mut graph.output {
        output.r#type = None;
    }
    graph
}

/// An `If` over `condition` with two branches.
pub fn if_node(condition: &str, then: GraphProto, or: GraphProto, output: &str) -> NodeProto {
    NodeProto {
        attribute: vec![
            graph_attribute("then_branch", then),
            graph_attribute("else_branch", or),
        ],
        ..node("If", &[condition], &[output])
    }
}

/// A key with its value.
pub fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value.to_owned()),
    }
}

/// A model of a graph that imports no operators.
pub fn model(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: Some(10),
        graph: Some(Box::new(graph)),
        ..ModelProto::default()
    }
}
