//! Nodes that are rejected because tract does not compute them as ONNX defines.

use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto};

/// Operand of `Attention`.
const PAST_KEY: usize = 4;

/// Why a node's result would be another one, be it for a node of its branches.
pub(crate) fn refused(node: &NodeProto, opset: i64) -> Option<&'static str> {
    let graphs = node.attribute.iter().flat_map(graphs);
    let mut inner = graphs.flat_map(|graph| &graph.node);
    itself(node, opset).or_else(|| inner.find_map(|node| refused(node, opset)))
}

fn graphs(attribute: &AttributeProto) -> impl Iterator<Item = &GraphProto> {
    attribute.g.iter().chain(&attribute.graphs)
}

fn itself(node: &NodeProto, opset: i64) -> Option<&'static str> {
    let attribute = |name: &str| node.attribute.iter().find(|a| a.name == name);
    let int = |name: &str, default: i64| attribute(name).map_or(default, |a| a.i);
    let is = |name: &str, text: &[u8]| attribute(name).is_some_and(|a| a.s == text);
    let has = |slot: usize| node.input.get(slot).is_some_and(|name| !name.is_empty());
    let any = |name: &str| attribute(name).is_some_and(|a| a.ints.iter().any(|&i| i != 0));
    let same = is("auto_pad", b"SAME_UPPER") || is("auto_pad", b"SAME_LOWER");
    match node.op_type.as_str() {
        "Attention" if int("left_window_size", -1) >= 0 || int("right_window_size", -1) >= 0 => {
            Some("it ignores the window of attention")
        }
        "Attention" if int("is_causal", 0) != 0 && has(PAST_KEY) => {
            Some("it counts a causal mask from the start of the cache")
        }
        "SpaceToDepth" if is("mode", b"CRD") => Some("it supports mode DCR only"),
        "GridSample"
            if (is("mode", b"cubic") || is("mode", b"bicubic"))
                && is("padding_mode", b"border") =>
        {
            Some("it moves samples to the border before it interpolates")
        }
        "Pad" if attribute("mode").is_some_and(|a| a.s != b"constant") && has(2) => {
            Some("it pads with a constant whatever the mode")
        }
        "ConvTranspose" if same && any("output_padding") => {
            Some("it ignores the padding of the output")
        }
        "RNN" | "GRU" | "LSTM" if is("direction", b"reverse") => {
            Some("it takes the last state of a reversed sequence for the first")
        }
        // Where they are not in a branch, these are rewritten.
        "Celu" | "Swish" if attribute("alpha").is_some_and(|a| a.f != 1.0) => {
            Some("it ignores the factor of an activation")
        }
        "Resize" if opset == 10 && attribute("coordinate_transformation_mode").is_none() => {
            Some("it rounds where the Resize of opset 10 rounds down")
        }
        _ => None,
    }
}
