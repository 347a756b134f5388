//! Questions to nodes in ONNX's messages.

use bcosc_ir::onnx::proto::{AttributeProto, NodeProto};

/// Whether a domain is that of ONNX's own operators.
pub(crate) fn is_standard(domain: Option<&str>) -> bool {
    matches!(domain, None | Some("" | "ai.onnx"))
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
