//! Nodes as tract's operators.

use bcosc_ir::InterpreterError;
use bcosc_ir::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
};
use tract_onnx::Onnx;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb;
use tract_onnx::prelude::Framework;
use tract_onnx::tract_hir::internal::{InferenceOp, bail};

use super::constants::{complete, is_standard, retype, stand_in};
use super::guard::guarded;
use super::tensor::Halves;

/// The nodes alone, in tract's messages.
pub(crate) fn skeleton(
    opset_import: Vec<OperatorSetIdProto>,
    mut nodes: Vec<NodeProto>,
    halves: Halves,
) -> Result<pb::ModelProto, InterpreterError> {
    nodes.iter_mut().for_each(complete);
    if let Some(stand_in) = stand_in(halves) {
        nodes
            .iter_mut()
            .for_each(|node| retype(node, halves, stand_in));
    }
    let graph = GraphProto {
        node: nodes,
        ..GraphProto::default()
    };
    let graph = Some(Box::new(graph));
    let skeleton = ModelProto {
        opset_import,
        graph,
        ..ModelProto::default()
    };
    let bytes = bcosc_ir::onnx::encode(&skeleton).map_err(|e| InterpreterError(e.to_string()))?;
    guarded(
        || "the nodes do not decode".into(),
        || tract_onnx::onnx().proto_model_for_read(&mut bytes.as_ref()),
    )
}

/// Whether a node is an operator of ONNX's own.
pub(crate) fn is(node: &NodeProto, op: &str) -> bool {
    node.op_type.as_deref() == Some(op) && is_standard(node.domain.as_deref())
}

/// An attribute of a node.
pub(crate) fn attribute<'n>(node: &'n NodeProto, name: &str) -> Option<&'n AttributeProto> {
    let mut found = node.attribute.iter();
    found.find(|a| a.name.as_deref() == Some(name))
}

/// The node with another operator.
pub(crate) fn replaced(
    node: &NodeProto,
    op: &str,
    input: Vec<String>,
    attribute: Vec<AttributeProto>,
) -> NodeProto {
    NodeProto {
        op_type: Some(op.to_owned()),
        input,
        attribute,
        ..node.clone()
    }
}

/// An operator, and the names that its inner graphs take from outside.
pub(crate) type Built = (Box<dyn InferenceOp>, Vec<String>);

/// Makes a node's operator.
pub(crate) fn build(
    framework: &Onnx,
    context: &ParsingContext,
    node: &pb::NodeProto,
) -> Result<Built, InterpreterError> {
    let known = is_standard(Some(&node.domain)) || node.domain == "ai.onnx.ml";
    let builder = framework.op_register.0.get(&node.op_type).filter(|_| known);
    guarded(
        || "tract cannot take this node".into(),
        || match builder {
            Some(builder) => builder(context, node),
            None => bail!("the operator is unknown to it"),
        },
    )
}

/// A node's name, or that of its first output.
pub(crate) fn label(node: &pb::NodeProto) -> &str {
    let names = std::iter::once(&node.name).chain(&node.output);
    names
        .map(String::as_str)
        .find(|name| !name.is_empty())
        .unwrap_or("unnamed")
}

/// A node for messages: its name, or that of its first output, and its operator.
pub(crate) fn describe(node: &pb::NodeProto) -> String {
    match node.domain.as_str() {
        "" => format!("node `{}` ({})", label(node), node.op_type),
        domain => format!("node `{}` ({domain}.{})", label(node), node.op_type),
    }
}
