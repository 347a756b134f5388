//! `Celu` and `Swish` with a factor, which tract leaves out, and `Softplus`, whose exponential overflows in tract.
//!
//! ```text
//! Celu <alpha = a> (x) = a Elu (x / a)      Swish <alpha = a> (x) = x Sigmoid (a x)
//! Softplus (x) = Relu (x) + Softplus (-|x|)
//! ```

use bcosc_ir::Tensor;
use bcosc_ir::onnx::proto::NodeProto;

use crate::tract::constants::Constants;
use crate::tract::node::{attribute, is, replaced};

/// Writes activations out; returns the constants that this takes.
pub(crate) fn write_out(nodes: &mut Vec<NodeProto>) -> Constants {
    let mut added = Constants::new();
    let mut more = Vec::new();
    for node in nodes.iter_mut() {
        let y = node.output.first().cloned().unwrap_or_default();
        let name = |part: &str| format!("{y}#{part}");
        let original = node.clone();
        let mut inner = |op: &str, operands: Vec<String>, part: &str| {
            let found = replaced(&original, op, operands, Vec::new());
            more.push(NodeProto {
                name: Some(name(part)),
                output: vec![name(part)],
                ..found
            });
            name(part)
        };
        if let Some((alpha, x)) = factor(node) {
            added.insert(name("alpha"), Tensor::f32s(&[], vec![alpha]));
            let alpha = name("alpha");
            let operands = if is(node, "Celu") {
                let scaled = inner("Div", vec![x, alpha.clone()], "scaled");
                vec![inner("Elu", vec![scaled], "inner"), alpha]
            } else {
                let scaled = inner("Mul", vec![x.clone(), alpha], "scaled");
                vec![x, inner("Sigmoid", vec![scaled], "gate")]
            };
            *node = replaced(node, "Mul", operands, Vec::new());
        } else if let Some(x) = node.input.first().filter(|_| is(node, "Softplus")) {
            let positive = inner("Relu", vec![x.clone()], "positive");
            let size = inner("Abs", vec![x.clone()], "size");
            let below = inner("Neg", vec![size], "below");
            let rest = inner("Softplus", vec![below], "rest");
            *node = replaced(node, "Add", vec![positive, rest], Vec::new());
        }
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
