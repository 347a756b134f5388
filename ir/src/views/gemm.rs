//! Matrix products: `Gemm` and `MatMul`.

use crate::{Graph, NodeId, Value};

/// `alpha * A' * B' + beta * C`.
#[derive(Clone, Debug, PartialEq)]
pub struct Gemm {
    /// The node.
    pub node: NodeId,
    /// First factor.
    pub a: Value,
    /// Second factor.
    pub b: Value,
    /// Addend, broadcast to the product.
    pub c: Option<Value>,
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of the addend.
    pub beta: f32,
    /// Whether A is transposed.
    pub trans_a: bool,
    /// Whether B is transposed.
    pub trans_b: bool,
}

impl Gemm {
    /// Views a `Gemm`.
    pub fn of(graph: &Graph, node: NodeId) -> Option<Self> {
        let op = graph.op(node).filter(|op| op.is("Gemm"))?;
        Some(Gemm {
            node,
            a: graph.input(node, 0)?,
            b: graph.input(node, 1)?,
            c: graph.input(node, 2),
            alpha: op.get("alpha")?,
            beta: op.get("beta")?,
            trans_a: op.get("transA")?,
            trans_b: op.get("transB")?,
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

/// A matrix product over the last two axes.
#[derive(Clone, Debug, PartialEq)]
pub struct MatMul {
    /// The node.
    pub node: NodeId,
    /// Left factor.
    pub a: Value,
    /// Right factor.
    pub b: Value,
}

impl MatMul {
    /// Views a `MatMul`.
    pub fn of(graph: &Graph, node: NodeId) -> Option<Self> {
        graph.op(node).filter(|op| op.is("MatMul"))?;
        Some(MatMul {
            node,
            a: graph.input(node, 0)?,
            b: graph.input(node, 1)?,
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
