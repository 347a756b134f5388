//! Pieces of a tensor that exporters take by way of a sequence.
//!
//! tract has no sequences. What unoptimised exports do with them is to split a tensor and to take
//! pieces at constant places, which is slicing:
//!
//! ```text
//! s = SplitToSequence <axis = 1> (x, 4)        y = Slice (x, [8], [12], [1])
//! y = SequenceAt (s, 2)
//! ```
//!
//! A pass resolves this for good; here it makes originals run, so that passes can be held against
//! them.

use std::collections::BTreeMap;

use bcosc_ir::Tensor;
use bcosc_ir::onnx::proto::{AttributeProto, NodeProto};

use crate::tract::constants::Constants;
use crate::tract::node::{attribute, is, replaced};

/// Replaces pieces of split tensors; returns the constants that this takes.
pub(crate) fn slice_instead(nodes: &mut [NodeProto], known: &Constants) -> Constants {
    let mut added = Constants::new();
    let splits: BTreeMap<String, Split> = nodes.iter().filter_map(|n| split(n, known)).collect();
    for node in nodes.iter_mut().filter(|node| is(node, "SequenceAt")) {
        let piece = node
            .input
            .first()
            .and_then(|sequence| splits.get(sequence)?.piece(node, known));
        if let Some((replacement, constants)) = piece {
            *node = replacement;
            added.extend(constants);
        }
    }
    added
}

/// How a tensor is split.
struct Split {
    tensor: String,
    axis: i64,
    /// Whether pieces of size one keep their axis.
    keeps_axis: bool,
    sizes: Sizes,
}

enum Sizes {
    Each(i64),
    Listed(Vec<i64>),
}

fn split(node: &NodeProto, known: &Constants) -> Option<(String, Split)> {
    if !is(node, "SplitToSequence") {
        return None;
    }
    let int = |name: &str| attribute(node, name)?.i;
    let given = node.input.get(1).filter(|name| !name.is_empty());
    let sizes = match given {
        Some(name) => {
            let tensor = known.get(name)?;
            let numbers = tensor.to_i64s().ok()?;
            if tensor.dims().is_empty() {
                Sizes::Each(*numbers.first()?)
            } else {
                Sizes::Listed(numbers)
            }
        }
        None => Sizes::Each(1),
    };
    let split = Split {
        tensor: node.input.first()?.clone(),
        axis: int("axis").unwrap_or(0),
        keeps_axis: given.is_some() || int("keepdims").unwrap_or(1) == 1,
        sizes,
    };
    Some((node.output.first()?.clone(), split))
}

impl Split {
    /// The node that computes what `at` takes; `None` if its place is not known from the front.
    fn piece(&self, at: &NodeProto, known: &Constants) -> Option<(NodeProto, Constants)> {
        let place = *known.get(at.input.get(1)?)?.to_i64s().ok()?.first()?;
        let index = usize::try_from(place).ok()?;
        let name = |part: &str| format!("{}#{part}", at.output.first().map_or("", String::as_str));
        let mut constants = Constants::new();
        if !self.keeps_axis {
            let axis = AttributeProto {
                name: Some("axis".to_owned()),
                i: Some(self.axis),
                r#type: Some(2),
                ..AttributeProto::default()
            };
            constants.insert(name("place"), Tensor::i64s(&[], vec![place]));
            return Some((
                replaced(
                    at,
                    "Gather",
                    vec![self.tensor.clone(), name("place")],
                    vec![axis],
                ),
                constants,
            ));
        }
        let (start, end) = match &self.sizes {
            Sizes::Each(size) => (
                place.checked_mul(*size)?,
                place.checked_add(1)?.checked_mul(*size)?,
            ),
            Sizes::Listed(sizes) => {
                let start: i64 = sizes.get(..index)?.iter().sum();
                (start, start + sizes.get(index)?)
            }
        };
        let mut operands = vec![self.tensor.clone()];
        for (part, number) in [("start", start), ("end", end), ("axis", self.axis)] {
            constants.insert(name(part), Tensor::i64_vec(&[number]));
            operands.push(name(part));
        }
        Some((replaced(at, "Slice", operands, Vec::new()), constants))
    }
}
