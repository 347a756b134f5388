//! `Upsample`, and `Resize` as it was in opset 10, as the `Resize` that tract knows.
//!
//! In all of them pixel i of y is what x has at i / scale, rounded down where the nearest is taken.

use bcosc_ir::onnx::proto::NodeProto;
use bcosc_ir::{Attribute, Tensor};

use crate::tract::constants::Constants;
use crate::tract::node::{attribute, is};

/// The opset whose `Resize` replaces older ones.
pub(crate) const MODERN: i64 = 13;

/// Rewrites what tract does not take; returns the constants that this takes.
pub(crate) fn resize_instead(nodes: &mut [NodeProto], opset: i64) -> Constants {
    let mut added = Constants::new();
    let old = match opset {
        10 => "Resize",
        ..10 => "Upsample",
        _ => return added,
    };
    for node in nodes.iter_mut().filter(|node| is(node, old)) {
        let attribute = attribute(node, "scales").filter(|_| opset < 9);
        let scales = match (node.input.get(1), attribute) {
            (Some(name), _) => name.clone(),
            (None, Some(attribute)) => {
                let output = node.output.first().map_or("", String::as_str);
                let name = format!("{output}#scales");
                let scales = attribute.floats.clone();
                let dims = [scales.len() as u64];
                added.insert(name.clone(), Tensor::f32s(&dims, scales));
                name
            }
            // Malformed, and for tract to refuse.
            (None, None) => continue,
        };
        node.op_type = Some("Resize".to_owned());
        node.input.truncate(1);
        node.input.extend([String::new(), scales]);
        let coordinates = Attribute::string("coordinate_transformation_mode", "asymmetric");
        let rounding = Attribute::string("nearest_mode", "floor");
        node.attribute.retain(|a| a.name.as_deref() == Some("mode"));
        node.attribute
            .extend([coordinates, rounding].map(|a| a.proto().clone()));
    }
    added
}
