//! Where values lie while a network runs.
//!
//! Runtimes keep what flows between convolutions in blocks of channels. Convolutions, pools, concatenation,
//! sums, rectifiers and products of equal shapes work on blocks; everything else makes the runtime
//! rearrange the value first and back afterwards. The questions here tell which form costs less.

use bcosc_ir::{Dim, Graph, NodeId, Op, Use, Value};

/// A shape that brings [N, 1, H * W] back to [N, 1, H, W].
pub(crate) fn grid(graph: &Graph, x: Value) -> Option<[i64; 4]> {
    let shape = graph.value_type(x)?.shape?;
    let [_, _, height, width] = &shape[..] else {
        return None;
    };
    match (height, width) {
        (Dim::Known(h), Dim::Known(w)) => Some([0, 1, *h as i64, *w as i64]),
        (Dim::Known(h), _) => Some([0, 1, *h as i64, -1]),
        (_, Dim::Known(w)) => Some([0, 1, -1, *w as i64]),
        _ => None,
    }
}

/// Whether a value is in blocks of channels, so that a convolution sums its channels best.
pub(crate) fn is_blocked(graph: &Graph, x: Value) -> bool {
    between_convolutions(graph, x)
        || is_rectified_norm(graph, x)
        || is_rectified_sum(graph, x)
        || is_pool_between_convolutions(graph, x)
}

/// Whether a value comes from a pool and goes to convolutions only.
pub(crate) fn is_pool_between_convolutions(graph: &Graph, x: Value) -> bool {
    let pool = |op: &Op| op.is("AveragePool") || op.is("MaxPool");
    graph.producer(x).is_some_and(|(_, op)| pool(op)) && feeds_convolutions(graph, x.node)
}

/// Whether a value is a rectified sum that a convolution takes into itself.
fn is_rectified_sum(graph: &Graph, x: Value) -> bool {
    let relu = graph.producer(x).filter(|(_, op)| op.is("Relu"));
    let sum = relu.and_then(|(relu, _)| graph.producer(graph.input(relu, 0)?));
    let conv = |v: Value| graph.producer(v).is_some_and(|(_, op)| op.is("Conv"));
    sum.filter(|(_, op)| op.is("Add"))
        .is_some_and(|(sum, _)| (0..2).any(|slot| graph.input(sum, slot).is_some_and(conv)))
}

/// Whether a value comes from a convolution and goes to convolutions only, with nothing between that would
/// leave their layout.
fn between_convolutions(graph: &Graph, x: Value) -> bool {
    let product = graph.producer(x).filter(|(_, op)| op.is("Mul"));
    let from = product.is_some_and(|(node, _)| {
        is_square(graph, x) || graph.input(node, 0).is_some_and(|v| is_square(graph, v))
    });
    from && feeds_convolutions(graph, x.node)
}

/// Whether a value is a rectified norm, which runtimes turn into a depthwise convolution.
fn is_rectified_norm(graph: &Graph, x: Value) -> bool {
    let relu = graph.producer(x).filter(|(_, op)| op.is("Relu"));
    let norm = relu.and_then(|(relu, _)| graph.producer(graph.input(relu, 0)?));
    norm.is_some_and(|(_, op)| op.is("BatchNormalization"))
}

/// Whether a value is the square of a rectified convolution.
pub(crate) fn is_square(graph: &Graph, x: Value) -> bool {
    let Some((node, op)) = graph.producer(x) else {
        return false;
    };
    let (a, b) = (graph.input(node, 0), graph.input(node, 1));
    let Some(root) = a.filter(|_| op.is("Mul") && a == b) else {
        return false;
    };
    let Some((relu, op)) = graph.producer(root) else {
        return false;
    };
    let before = graph.input(relu, 0).and_then(|y| graph.producer(y));
    op.is("Relu") && before.is_some_and(|(_, op)| op.is("Conv"))
}

/// Whether a value is `y |y|` with y from a convolution.
pub(crate) fn is_signed_square(graph: &Graph, x: Value) -> bool {
    let Some((node, op)) = graph.producer(x) else {
        return false;
    };
    let (y, size) = (graph.input(node, 0), graph.input(node, 1));
    let abs = size.and_then(|s| graph.producer(s));
    let of_y = abs.is_some_and(|(abs, op)| op.is("Abs") && graph.input(abs, 0) == y);
    let conv = y.and_then(|y| graph.producer(y));
    op.is("Mul") && of_y && conv.is_some_and(|(_, op)| op.is("Conv"))
}

/// Whether what a node puts out is pooled or concatenated, and nothing else but squared.
pub(crate) fn feeds_pools(graph: &Graph, node: NodeId) -> bool {
    let readers = graph.uses(Value { node, slot: 0 });
    let known = ["AveragePool", "Concat", "Relu", "Mul", "BatchNormalization"];
    let pool = |op: &Op| op.is("AveragePool") || op.is("Concat");
    let ops: Vec<&Op> = readers
        .iter()
        .filter_map(|usage| match usage {
            Use::Input { node, .. } => graph.op(*node),
            _ => None,
        })
        .collect();
    ops.len() == readers.len()
        && ops.iter().any(|op| pool(op))
        && ops.iter().all(|op| known.contains(&op.op_type()))
}

/// Whether only convolutions, pools and energies read what a node puts out.
pub(crate) fn feeds_convolutions(graph: &Graph, node: NodeId) -> bool {
    let readers = graph.uses(Value { node, slot: 0 });
    readers.into_iter().all(|usage| {
        let Use::Input { node, .. } = usage else {
            return false;
        };
        let own = |v: Value| graph.input(node, 0) == Some(v) && graph.input(node, 1) == Some(v);
        graph.op(node).is_some_and(|op| {
            let known = ["Conv", "AveragePool", "MaxPool", "Energy", "Weigh"];
            known.contains(&op.op_type()) || (op.is("Mul") && graph.input(node, 0).is_some_and(own))
        })
    })
}
