//! Short ways to write ONNX messages.

#![allow(dead_code)] // each test file uses its own part

use bcosc_ir::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto,
    ValueInfoProto,
};
use bcosc_ir::{
    DataType, Model, ModelBuilder, NodeId, Op, Operand, Patch, Tensor, TensorType, TextOptions,
    Value,
};

pub const GRAPH: i32 = 5;
pub const GRAPHS: i32 = 10;

pub fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|&n| n.to_owned()).collect()
}

pub fn node(op_type: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: Some(op_type.to_owned()),
        input: strings(inputs),
        output: strings(outputs),
        ..NodeProto::default()
    }
}

pub fn named(name: &str, node: NodeProto) -> NodeProto {
    NodeProto {
        name: Some(name.to_owned()),
        ..node
    }
}

pub fn info(name: &str) -> ValueInfoProto {
    let shape = Some(vec![]);
    TensorType {
        dtype: DataType::Float,
        shape,
    }
    .to_value_info(name)
}

pub fn tensor(name: &str, elements: &[f32]) -> TensorProto {
    let tensor = Tensor::f32s(&[elements.len() as u64], elements.to_vec());
    TensorProto {
        name: Some(name.to_owned()),
        ..tensor.into_proto()
    }
}

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

pub fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value.to_owned()),
    }
}

pub fn model(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: Some(10),
        graph: Some(Box::new(graph)),
        ..ModelProto::default()
    }
}

pub fn value(model: &Model, name: &str) -> Value {
    let found = model.graph.value_named(name);
    found.unwrap_or_else(|| panic!("no value {name} in\n{model}"))
}

/// The operator that outputs a value.
pub fn op(model: &Model, output: &str) -> NodeId {
    value(model, output).node
}

/// The nodes alone, one per line.
pub fn body(model: &Model) -> Vec<String> {
    let text = model.to_text(TextOptions::default());
    let lines = text.lines().skip_while(|l| !l.ends_with('{')).skip(1);
    let lines = lines.take_while(|l| *l != "}");
    lines.map(|l| l.trim().to_owned()).collect()
}

/// `a = Relu(x); b = Neg(a); y = Exp(b)`.
pub fn chain() -> Model {
    let builder = ModelBuilder::new(20)
        .input("x", DataType::Float, "n,3")
        .op("Relu", &["x"], "a", [])
        .op("Neg", &["a"], "b", [])
        .op("Exp", &["b"], "y", []);
    builder
        .output_as("y", DataType::Float, "n,3")
        .finish()
        .unwrap()
}

pub fn apply(model: &mut Model, patch: Patch) -> Vec<String> {
    model.graph.apply(patch).unwrap();
    let again = Model::from_proto(model.to_proto()).expect("a patched model is valid");
    assert_eq!(again.to_proto(), model.to_proto());
    body(model)
}

/// A patch at the producer of `old` that replaces it by `op` of `operands`.
pub fn replacing(model: &Model, old: &str, op: &str, operands: &[&str]) -> Patch {
    let old = value(model, old);
    let mut patch = Patch::at(old.node);
    let operands: Vec<Operand> = operands.iter().map(|o| value(model, o).into()).collect();
    let new = patch.op(Op::new("", op), &operands);
    patch.replace(old, new);
    patch
}
