//! `Celu` and `Swish` with a factor, which tract leaves out.
//!
//! ```text
//! Celu <alpha = a> (x) = a Elu (x / a)      Swish <alpha = a> (x) = x Sigmoid (a x)
//! ```

use bcosc_ir::Tensor;
use bcosc_ir::onnx::proto::NodeProto;

use crate::tract::constants::Constants;
use crate::tract::node::{attribute, is, replaced};

/// Writes factors out; returns the constants that this takes.
pub(crate) fn scale_instead(nodes: &mut Vec<NodeProto>) -> Constants {
    let mut added = Constants::new();
    let mut more = Vec::new();
    for node in nodes.iter_mut() {
        let Some((alpha, x)) = factor(node) else {
            continue;
        };
        let y = node.output.first().cloned().unwrap_or_default();
        let name = |part: &str| format!("{y}#{part}");
        added.insert(name("alpha"), Tensor::f32s(&[], vec![alpha]));
        let mut inner = |op: &str, operands: Vec<String>, part: &str| {
            let found = replaced(node, op, operands, Vec::new());
            let (name, output) = (Some(name(part)), vec![name(part)]);
            more.push(NodeProto {
                name,
                output,
                ..found
            });
        };
        let operands = if is(node, "Celu") {
            inner("Div", vec![x, name("alpha")], "scaled");
            inner("Elu", vec![name("scaled")], "inner");
            vec![name("inner"), name("alpha")]
        } else {
            inner("Mul", vec![x.clone(), name("alpha")], "scaled");
            inner("Sigmoid", vec![name("scaled")], "gate");
            vec![x, name("gate")]
        };
        *node = replaced(node, "Mul", operands, Vec::new());
    }
    nodes.append(&mut more);
    added
}

/// The factor of an activation, where it is not 1, and what it is computed of.
fn factor(node: &NodeProto) -> Option<(f32, String)> {
    let known = is(node, "Celu") || is(node, "Swish");
    let alpha = attribute(node, "alpha").filter(|_| known)?.f?;
    (alpha != 1.0).then_some((alpha, node.input.first()?.clone()))
}
