//! `ConvTranspose` with `output_shape`, of which tract can only add to the end of the full result.
//!
//! ```text
//! full = ConvTranspose (x, w)         no padding
//! more = Shape (full)[2:] - output_shape
//! y    = full[more / 2 : more / 2 + output_shape]     with SAME_UPPER, else the larger half first
//! ```
//!
//! A full result that is smaller cannot take the shape, which fails at run time.

use bcosc_ir::onnx::proto::{AttributeProto, NodeProto};
use bcosc_ir::{Attribute, Tensor};

use crate::tract::constants::Constants;
use crate::tract::node::{attribute, is, replaced};

/// The first opset whose `Slice` can take positions that are computed.
const SLICES: i64 = 10;

/// Writes the cutting out; returns the constants that this takes.
pub(crate) fn cut_instead(nodes: &mut Vec<NodeProto>, opset: i64) -> Constants {
    let mut added = Constants::new();
    if opset < SLICES {
        return added;
    }
    let mut more = Vec::new();
    for node in nodes.iter_mut().filter(|node| is(node, "ConvTranspose")) {
        let sizes = attribute(node, "output_shape").map(|a| a.ints.clone());
        let Some(sizes) = sizes.filter(|sizes| !sizes.is_empty()) else {
            continue;
        };
        let y = node.output.first().cloned().unwrap_or_default();
        let name = |part: &str| format!("{y}#{part}");
        let upper = attribute(node, "auto_pad")
            .is_some_and(|a| a.s.as_deref() == Some(b"SAME_UPPER".as_slice()));
        let axes: Vec<i64> = (2..2 + sizes.len() as i64).collect();
        let shape = [&[0, 0][..], &sizes].concat();
        for (part, values) in [
            ("sizes", &sizes),
            ("axes", &axes),
            ("shape", &shape),
            ("two", &vec![2]),
        ] {
            added.insert(name(part), Tensor::i64_vec(values));
        }
        let mut inner = |op: &str, operands: [&str; 2], attributes, part: &str| {
            let operands = operands.iter().filter(|o| !o.is_empty());
            let found = replaced(node, op, operands.map(|o| name(o)).collect(), attributes);
            let (name, output) = (Some(name(part)), vec![name(part)]);
            more.push(NodeProto {
                name,
                output,
                ..found
            });
        };
        let start = Attribute::int("start", 2).proto().clone();
        inner("Shape", ["full", ""], vec![start], "long");
        inner("Sub", ["long", "sizes"], Vec::new(), "more");
        inner("Div", ["more", "two"], Vec::new(), "small");
        inner("Sub", ["more", "small"], Vec::new(), "large");
        let begin = if upper { "small" } else { "large" };
        inner("Add", [begin, "sizes"], Vec::new(), "end");
        let slice = ["full", begin, "end", "axes"].map(name).to_vec();
        let slice = replaced(node, "Slice", slice, Vec::new());
        more.push(NodeProto {
            name: Some(name("cut")),
            output: vec![name("cut")],
            ..slice
        });
        let kept = |a: &&AttributeProto| {
            let left_out = ["output_shape", "auto_pad", "pads"];
            !a.name
                .as_deref()
                .is_some_and(|name| left_out.contains(&name))
        };
        let attributes = node.attribute.iter().filter(kept).cloned().collect();
        let full = replaced(node, "ConvTranspose", node.input.clone(), attributes);
        more.push(NodeProto {
            name: Some(name("full")),
            output: vec![name("full")],
            ..full
        });
        let operands = ["cut", "shape"].map(name).to_vec();
        *node = replaced(node, "Reshape", operands, Vec::new());
    }
    nodes.append(&mut more);
    added
}
