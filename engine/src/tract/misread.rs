//! Nodes that tract would compute otherwise than ONNX has it.

use tract_onnx::pb::NodeProto;

/// Why a node's result would be another one.
pub(crate) fn misread(node: &NodeProto) -> Option<&'static str> {
    let attribute = |name: &str| node.attribute.iter().find(|a| a.name == name);
    let int = |name: &str, default: i64| attribute(name).map_or(default, |a| a.i);
    let is = |name: &str, text: &[u8]| attribute(name).is_some_and(|a| a.s == text);
    let has = |slot: usize| node.input.get(slot).is_some_and(|name| !name.is_empty());
    match node.op_type.as_str() {
        "Attention" if int("left_window_size", -1) >= 0 || int("right_window_size", -1) >= 0 => {
            Some("it ignores the window of attention")
        }
        "Attention" if int("is_causal", 0) != 0 && has(PAST_KEY) => {
            Some("it counts a causal mask from the start of the cache")
        }
        "SpaceToDepth" if is("mode", b"CRD") => Some("it knows mode DCR only"),
        "RNN" | "GRU" | "LSTM" if is("direction", b"reverse") => {
            Some("it takes the last state of a reversed sequence for the first")
        }
        _ => None,
    }
}

/// Operand of `Attention`.
const PAST_KEY: usize = 4;
