//! Biases that the input carries.
//!
//! x and 1-x add up to 1, so the mean of a model's doubled channels, times 2, is 1 for every image, and still linear in the
//! input. Brought to another size, it stays 1. Such a value is a *constant channel*; a bias can be a weight on it:
//!
//! ```text
//! u = Mul (ReduceMean <axes = [1]> (Concat (x, 1 - x)), 2)     1, of shape [N, 1, H, W]
//! v = AveragePool (u), ReduceMean (u), ...                      1, of another size
//! y = Add (Conv (x, w), Conv (v, b))                            b of shape [C, 1, 1, 1]
//! ```
//!
//! They are found by their form, so also in models that were written and read.

use bcosc_ir::ops::Trait;
use bcosc_ir::views::axes_of;
use bcosc_ir::{Graph, Node, NodeId, Value};

use crate::analysis::scalars::scalar;
use crate::analysis::weights;

/// The operands that are biases on a constant channel, in graph order.
pub fn weights(graph: &Graph) -> Vec<(NodeId, u32)> {
    let ops = graph.ops().into_iter();
    ops.filter_map(|node| Some((node, weight(graph, node)?)))
        .collect()
}

/// The slot of the bias of a product with a constant channel.
pub fn weight(graph: &Graph, node: NodeId) -> Option<u32> {
    let op = graph.op(node)?;
    let slot = match op.op_type() {
        "Conv" if op.is("Conv") => 1,
        "MatMul" | "Mul" if op.domain().is_empty() => {
            let first = graph.input(node, 0)?;
            u32::from(graph.constant(first).is_none())
        }
        _ => return None,
    };
    let found = weights::constant_type(graph, graph.input(node, slot)?)?;
    let constant = graph.input(node, 1 - slot)?;
    // The 2 in the root itself is no bias, and neither is the mean of a normalisation.
    let other = root(graph, node).is_some() || is_mean(graph, node, constant);
    (found.dtype.is_float() && !other && is_constant_channel(graph, constant)).then_some(slot)
}

/// Whether a product is subtracted from the doubled channels that its constant channel is made of.
fn is_mean(graph: &Graph, product: NodeId, constant: Value) -> bool {
    let of = root(graph, constant.node);
    let y = graph.output(product, 0);
    graph.sole_consumer(y).is_some_and(|(node, slot)| {
        let subtracts = graph.op(node).is_some_and(|op| op.is("Sub"));
        subtracts && slot == 1 && of.is_some() && graph.input(node, 0) == of
    })
}

/// Whether a value is a constant channel.
pub fn is_constant_channel(graph: &Graph, mut value: Value) -> bool {
    while let Some((node, op)) = graph.producer(value) {
        if root(graph, node).is_some() {
            return true;
        }
        let resized = op.is("AveragePool") && op.get("count_include_pad") != Some(1_i64)
            || op.is("ReduceMean")
            || op.is("Cast")
            || op.has(Trait::Structural) && !op.is("Concat") && !op.is("Pad");
        let Some(x) = graph.input(node, 0).filter(|_| resized) else {
            return false;
        };
        value = x;
    }
    false
}

/// The node of `Concat (x, 1 - x)` with an image x.
pub fn pair(graph: &Graph, image: Value) -> Option<NodeId> {
    let is_pair = |node: &NodeId| {
        let concat = graph.op(*node).is_some_and(|op| op.is("Concat"));
        match graph.inputs_of(*node)[..] {
            [Some(x), Some(other)] => concat && x == image && is_inverse(graph, other, image),
            _ => false,
        }
    };
    graph.ops().into_iter().find(is_pair)
}

/// Whether a value is 1 minus another.
pub fn is_inverse(graph: &Graph, value: Value, x: Value) -> bool {
    let Some((node, op)) = graph.producer(value) else {
        return false;
    };
    let one = graph.input(node, 0).and_then(|one| scalar(graph, one));
    op.is("Sub") && one == Some(1.0) && graph.input(node, 1) == Some(x)
}

/// The doubled channels whose mean, times 2, a node computes.
pub fn root(graph: &Graph, node: NodeId) -> Option<Value> {
    graph.op(node).filter(|op| op.is("Mul"))?;
    let (a, b) = (graph.input(node, 0)?, graph.input(node, 1)?);
    let (mean, factor) = match graph.constant(b) {
        Some(_) => (a, b),
        None => (b, a),
    };
    let (reduce, _) = graph.producer(mean).filter(|(_, op)| op.is("ReduceMean"))?;
    let x = graph.input(reduce, 0)?;
    let of_input = match graph.node(x.node) {
        Node::Input(_) => true,
        Node::Op(op) => op.is("Concat"),
        _ => false,
    };
    let channels = axes_of(graph, reduce)? == [1];
    (of_input && channels && scalar(graph, factor) == Some(2.0)).then_some(x)
}
