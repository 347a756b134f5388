//! `BatchNormalization`.

use crate::{Graph, NodeId, Value};

/// `scale * (x - mean) / sqrt(var + epsilon) + bias`, per channel (axis 1).
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNorm {
    /// The node.
    pub node: NodeId,
    /// Input `[N, C, ...]`.
    pub x: Value,
    /// Factor `[C]`.
    pub scale: Value,
    /// Addend `[C]`.
    pub bias: Value,
    /// Running mean `[C]`.
    pub mean: Value,
    /// Running variance `[C]`.
    pub var: Value,
    /// Added to the variance.
    pub epsilon: f32,
}

impl BatchNorm {
    /// Views a `BatchNormalization` in inference mode with one output.
    pub fn of(graph: &Graph, node: NodeId) -> Option<Self> {
        let op = graph.op(node).filter(|op| op.is("BatchNormalization"))?;
        // Before opset 9 `spatial = 0` kept statistics per activation.
        let inference = !op.get::<bool>("training_mode")? && op.get("spatial")?;
        let alone =
            (1..graph.output_count(node)).all(|slot| graph.uses(Value { node, slot }).is_empty());
        if !inference || !alone {
            return None;
        }
        Some(BatchNorm {
            node,
            x: graph.input(node, 0)?,
            scale: graph.input(node, 1)?,
            bias: graph.input(node, 2)?,
            mean: graph.input(node, 3)?,
            var: graph.input(node, 4)?,
            epsilon: op.get("epsilon")?,
        })
    }

    /// The output.
    pub fn y(&self) -> Value {
        Value {
            node: self.node,
            slot: 0,
        }
    }
}
