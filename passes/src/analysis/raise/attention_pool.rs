//! Attention pooling, as in CLIP's convolutional image encoders: the mean of all positions is the query.
//!
//! ```text
//! tokens = Concat (mean (features), features) + position embedding
//! y      = projection (attention (query (tokens[0]), key (tokens), value (tokens)))
//! ```

use bcosc_ir::ops::Trait;
use bcosc_ir::views::Pool;
use bcosc_ir::{Graph, NodeId, Value};

use super::attention::{self, Attention};
use crate::analysis::layers::{Layer, data_consumers, is_structural};

/// One attention pool.
#[derive(Clone, Debug)]
pub struct AttentionPool {
    /// Its attention.
    pub attention: Attention,
    /// The pooled features: [positions, images, channels] or [images, positions, channels].
    pub features: Value,
    /// The sum with the position embedding, and its data operand.
    pub positions: Option<(NodeId, Value)>,
    /// The layer that computes values.
    pub value_layer: Layer,
    /// The output projection.
    pub projection: Layer,
}

/// All attention pools of a graph, in order.
pub fn all(graph: &Graph) -> Vec<AttentionPool> {
    among(graph, attention::all(graph))
}

/// The attention pools among the attentions of a graph.
pub fn among(graph: &Graph, attentions: Vec<Attention>) -> Vec<AttentionPool> {
    let attentions = attentions.into_iter();
    attentions
        .filter_map(|attention| of(graph, attention))
        .collect()
}

fn of(graph: &Graph, attention: Attention) -> Option<AttentionPool> {
    let mut value_layers = attention.value_layers.iter();
    let (Some(value_node), None) = (value_layers.next(), value_layers.next()) else {
        return None;
    };
    let value_layer = Layer::of(graph, *value_node)?.ok()?;
    let tokens = without_moves(graph, value_layer.x);
    let positions = constant_sum(graph, tokens);
    let joined = without_moves(graph, positions.map_or(tokens, |(_, data)| data));
    let (concat, op) = graph.producer(joined)?;
    let &[Some(mean), Some(features)] = &graph.inputs_of(concat)[..] else {
        return None;
    };
    let (averaging, _) = graph.producer(without_moves(graph, mean))?;
    let averages =
        graph.op(averaging)?.is("ReduceMean") || Pool::is_global_average(graph, averaging);
    if !op.is("Concat") || !averages {
        return None;
    }
    let projection = next_layer(graph, graph.output(attention.node, 0))?;
    Some(AttentionPool {
        attention,
        features,
        positions,
        value_layer,
        projection,
    })
}

fn is_structural_or_cast(graph: &Graph, node: NodeId) -> bool {
    let op = graph.op(node);
    op.is_some_and(|op| is_structural(op) || op.has(Trait::Cast))
}

fn without_moves(graph: &Graph, mut value: Value) -> Value {
    while is_structural_or_cast(graph, value.node) {
        match graph.input(value.node, 0) {
            Some(input) => value = input,
            None => break,
        }
    }
    value
}

/// The data operand of a sum with a constant.
fn constant_sum(graph: &Graph, sum: Value) -> Option<(NodeId, Value)> {
    let (node, op) = graph.producer(sum)?;
    let &[Some(a), Some(b)] = &graph.inputs_of(node)[..] else {
        return None;
    };
    let constant = |v| graph.constant(v).is_some();
    let data = match (constant(a), constant(b)) {
        (false, true) => a,
        (true, false) => b,
        _ => return None,
    };
    op.is("Add").then_some((node, data))
}

/// The only layer that consumes a value, after structural operators.
fn next_layer(graph: &Graph, mut value: Value) -> Option<Layer> {
    loop {
        let &[node] = &data_consumers(graph, value)[..] else {
            return None;
        };
        if let Some(layer) = Layer::of(graph, node) {
            return layer.ok();
        }
        if !is_structural_or_cast(graph, node) {
            return None;
        }
        value = graph.output(node, 0);
    }
}
