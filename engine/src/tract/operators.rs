//! Nodes as tract's operators.

use bcosc_ir::onnx::proto::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto};
use tract_onnx::Onnx;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb;
use tract_onnx::prelude::Framework;
use tract_onnx::tract_hir::internal::{InferenceOp, bail};

use super::constants::{complete, retype, stand_in};
use super::fault::{Fault, guarded};
use super::node::is_standard;
use super::tensor::Halves;
use crate::Unsupported;

/// The nodes alone, in tract's messages.
pub(crate) fn skeleton(
    opset_import: Vec<OperatorSetIdProto>,
    mut nodes: Vec<NodeProto>,
    halves: Halves,
) -> Result<pb::ModelProto, Fault> {
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
    let place = "the nodes do not encode";
    let bytes = bcosc_ir::onnx::encode(&skeleton).map_err(|e| Fault::new(place, e))?;
    guarded(
        || "the nodes do not decode".into(),
        || tract_onnx::onnx().proto_model_for_read(&mut bytes.as_ref()),
    )
}

/// An operator, and the names that its inner graphs take from outside.
pub(crate) type Built = (Box<dyn InferenceOp>, Vec<String>);

/// Makes a node's operator.
pub(crate) fn build(
    framework: &Onnx,
    context: &ParsingContext,
    node: &pb::NodeProto,
) -> Result<Built, Fault> {
    let known = is_standard(Some(&node.domain)) || node.domain == "ai.onnx.ml";
    let builder = framework.op_register.0.get(&node.op_type).filter(|_| known);
    guarded(
        || "tract does not support this node".into(),
        || match builder {
            Some(builder) => builder(context, node),
            None => bail!("unknown operator"),
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
    format!("node `{}` ({})", label(node), operator(node))
}

/// A node that cannot be computed.
pub(crate) fn unsupported(node: &pb::NodeProto, reason: String) -> Unsupported {
    Unsupported {
        name: label(node).to_owned(),
        op: Some(operator(node)),
        reason,
    }
}

/// A node's operator, with its domain where that is not standard.
fn operator(node: &pb::NodeProto) -> String {
    match node.domain.as_str() {
        "" => node.op_type.clone(),
        domain => format!("{domain}.{}", node.op_type),
    }
}
