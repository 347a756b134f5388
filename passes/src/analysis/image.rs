//! The image input of a graph.

use bcosc_ir::{Graph, Value};

/// The only floating-point input of rank 3 or more, or else the only input. `None` if there are several
/// candidates, or none.
pub fn image_input(graph: &Graph) -> Option<Value> {
    let inputs = graph.inputs();
    let images: Vec<Value> = inputs
        .iter()
        .copied()
        .filter(|v| is_image(graph, *v))
        .collect();
    match (&images[..], &inputs[..]) {
        ([image], _) => Some(*image),
        ([], [only]) => Some(*only),
        _ => None,
    }
}

/// Whether a value is floating point and of rank 3 or more.
pub fn is_image(graph: &Graph, value: Value) -> bool {
    let found = graph.value_type(value);
    found.is_some_and(|t| t.dtype.is_float() && t.rank().is_some_and(|rank| rank >= 3))
}
