//! Scalar constants and the bounds of `Clip`.

use bcosc_ir::{Graph, NodeId, Value};

/// The one element of a constant.
pub fn scalar(graph: &Graph, value: Value) -> Option<f64> {
    let tensor = graph.constant(value)?;
    if tensor.len() != 1 {
        return None;
    }
    match tensor.to_f64s() {
        Ok(elements) => elements.first().copied(),
        Err(_) => tensor.to_i64s().ok()?.first().map(|&i| i as f64),
    }
}

/// The bounds of a `Clip`, where they are known.
pub fn bounds(graph: &Graph, node: NodeId) -> Option<(f64, f64)> {
    let op = graph.op(node)?;
    let bound = |slot: u32, name: &str, open: f64| match graph.input(node, slot) {
        Some(value) => scalar(graph, value),
        None if op.attribute(name).is_none() => Some(open),
        None => op.get::<f32>(name).map(f64::from),
    };
    let low = bound(1, "min", f64::NEG_INFINITY)?;
    let high = bound(2, "max", f64::INFINITY)?;
    Some((low, high))
}
