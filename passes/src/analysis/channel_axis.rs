//! The channel axis of an input: the one that the first layers sum over.
//!
//! In PyTorch, channels follow the batch; in TensorFlow, they come last; pictures with several views have an axis before
//! them. The axis that the first layer sums over is followed back to the input.

use std::collections::BTreeMap;

use bcosc_ir::ops::Trait;
use bcosc_ir::{Dim, Graph, NodeId, Shape, Value};

use super::layers::{Form, Layer, data_consumers};

/// Usual numbers of channels of images, with and without inverses.
const USUAL: [u64; 6] = [1, 2, 3, 4, 6, 8];

/// The channel axis of an input. `None` if neither the layers nor the sizes determine it. The types of values should be
/// known.
pub fn channel_axis(graph: &Graph, input: Value) -> Option<usize> {
    summed(graph, input).or_else(|| by_size(&graph.value_type(input)?.shape?))
}

/// The result of the `Transpose` that puts the channels of an image first, if it is the only consumer of the elements.
pub fn channels_first(graph: &Graph, image: Value) -> Option<Value> {
    let &[node] = &data_consumers(graph, image)[..] else {
        return None;
    };
    let op = graph.op(node).filter(|op| op.is("Transpose"))?;
    let perm: &[i64] = op.get("perm")?;
    let axis = channel_axis(graph, image)?;
    // All other axes stay in order.
    let others = (1..perm.len()).filter(|other| *other != axis);
    let expected = [0, axis].into_iter().chain(others);
    let moves = axis > 1 && perm.len() > axis && expected.eq(perm.iter().map(|a| *a as usize));
    moves.then(|| graph.output(node, 0))
}

/// The axis that the first layer sums over, if it can be followed back.
fn summed(graph: &Graph, input: Value) -> Option<usize> {
    let mut came_from: BTreeMap<Value, (NodeId, Value)> = BTreeMap::new();
    let mut open = vec![input];
    while let Some(value) = open.pop() {
        for node in data_consumers(graph, value) {
            match Layer::of(graph, node) {
                Some(Ok(layer)) if layer.x == value => {
                    let axis = of_layer(graph, &layer);
                    let found = axis.and_then(|axis| back(graph, input, value, axis, &came_from));
                    if found.is_some() {
                        return found;
                    }
                }
                // A product of two inputs sums over an axis of its own.
                Some(_) => {}
                None => {
                    let results =
                        (0..graph.output_count(node)).map(|slot| graph.output(node, slot));
                    for result in results {
                        if result != input && !came_from.contains_key(&result) {
                            came_from.insert(result, (node, value));
                            open.push(result);
                        }
                    }
                }
            }
        }
    }
    None
}

/// The axis of a layer's input that it sums over.
fn of_layer(graph: &Graph, layer: &Layer) -> Option<usize> {
    let rank = || graph.value_type(layer.x)?.rank();
    match &layer.form {
        Form::Conv(_) => Some(1),
        Form::Gemm(gemm) if gemm.trans_a => Some(0),
        Form::Gemm(_) => Some(1),
        Form::RightMatMul => rank()?.checked_sub(1),
        Form::LeftMatMul => rank()?.checked_sub(2),
    }
}

/// Follows an axis of a value back to the input.
fn back(
    graph: &Graph,
    input: Value,
    mut value: Value,
    mut axis: usize,
    came_from: &BTreeMap<Value, (NodeId, Value)>,
) -> Option<usize> {
    while value != input {
        let &(node, before) = came_from.get(&value)?;
        axis = before_node(graph, node, before, value, axis)?;
        value = before;
    }
    // The first axis is the batch.
    (axis > 0).then_some(axis)
}

/// The axis of an operand that an axis of the result comes from.
fn before_node(
    graph: &Graph,
    node: NodeId,
    before: Value,
    after: Value,
    axis: usize,
) -> Option<usize> {
    let op = graph.op(node).filter(|op| op.domain().is_empty())?;
    if op.is("Transpose") {
        return usize::try_from(*op.get::<&[i64]>("perm")?.get(axis)?).ok();
    }
    let shape = |value| graph.value_type(value)?.shape;
    let moves = op.has(Trait::View) || op.is("Gather") || op.is("Einsum");
    match (shape(before), shape(after)) {
        (Some(old), Some(new)) if old.len() != new.len() || moves => same_place(&old, &new, axis),
        (None, _) | (_, None) if moves => None,
        _ => Some(axis),
    }
}

/// The axis of the old shape with the same sizes after it, or else before it.
fn same_place(old: &Shape, new: &Shape, axis: usize) -> Option<usize> {
    let known = |dims: &[Dim]| dims.iter().all(|dim| *dim != Dim::Unknown);
    let (tail, head) = (new.get(axis..)?, new.get(..=axis)?);
    if old.ends_with(tail) && known(tail) {
        return Some(old.len() - tail.len());
    }
    (old.starts_with(head) && known(head)).then_some(axis)
}

/// The likely channel axis by the sizes of an image.
fn by_size(shape: &Shape) -> Option<usize> {
    let usual = |dim: &Dim| dim.known().is_some_and(|size| USUAL.contains(&size));
    match shape.len() {
        3 | 4 if !usual(&shape[1]) && usual(&shape[shape.len() - 1]) => Some(shape.len() - 1),
        3 | 4 => Some(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{Attribute, ModelBuilder, Tensor};

    use super::*;
    use crate::testing::{Layers, image, infer, model};

    fn axis(builder: ModelBuilder) -> Option<usize> {
        let mut model = model(builder);
        infer(&mut model);
        let input = model.graph.inputs()[0];
        channel_axis(&model.graph, input)
    }

    fn transpose(perm: &[i64]) -> [Attribute; 1] {
        [Attribute::ints("perm", perm)]
    }

    #[test]
    fn convolutions_tell_through_what_lies_before_them() {
        let first = image("batch,3,6,8").conv("x", "y", &[4, 3, 1, 1], vec![]);
        assert_eq!(axis(first.output("y")), Some(1));
        let last = image("batch,6,8,3")
            .op("Neg", &["x"], "a", [])
            .op("Transpose", &["a"], "b", transpose(&[0, 3, 1, 2]))
            .op("Concat", &["b", "b"], "c", [Attribute::int("axis", 1)])
            .conv("c", "y", &[4, 6, 1, 1], vec![]);
        assert_eq!(axis(last.output("y")), Some(3));
    }

    #[test]
    fn views_stay_before_channels() {
        let views = || image("batch,2,3,6,8");
        let merged = views()
            .param("shape", Tensor::i64_vec(&[-1, 3, 6, 8]))
            .op("Reshape", &["x", "shape"], "a", [])
            .conv("a", "y", &[4, 3, 1, 1], vec![]);
        assert_eq!(axis(merged.output("y")), Some(2));
        let one = views()
            .param("first", Tensor::i64s(&[], vec![0]))
            .op("Gather", &["x", "first"], "a", [Attribute::int("axis", 1)])
            .conv("a", "y", &[4, 3, 1, 1], vec![]);
        assert_eq!(axis(one.output("y")), Some(2));
        let film = image("batch,3,2,6,8").conv("x", "y", &[4, 3, 1, 1, 1], vec![]);
        assert_eq!(axis(film.output("y")), Some(1));
    }

    #[test]
    fn vectors_lie_along_the_last_axis() {
        let tokens = image("batch,5,4").matmul("x", "y", &[4, 3]).output("y");
        assert_eq!(axis(tokens), Some(2));
    }

    #[test]
    fn sizes_tell_where_layers_do_not() {
        let flat = |dims: &str, shape: &[i64], inputs: u64| {
            image(dims)
                .param("shape", Tensor::i64_vec(shape))
                .op("Reshape", &["x", "shape"], "a", [])
                .matmul("a", "y", &[inputs, 3])
                .output("y")
        };
        assert_eq!(axis(flat("batch,3,6,8", &[-1, 144], 144)), Some(1));
        assert_eq!(axis(flat("batch,6,9,3", &[-1, 162], 162)), Some(1));
        assert_eq!(axis(flat("batch,24,32,3", &[-1, 2304], 2304)), Some(3));
        assert_eq!(axis(flat("batch,2,3,6,8", &[-1, 288], 288)), None);
    }
}
