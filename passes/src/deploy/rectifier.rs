//! Rectifiers after B = 2 layers.
//!
//! The factor r = 1/n of a layer is positive, so a rectifier may act before the signed square:
//! `relu(y|y|r) = relu(y) relu(y) r`. There it is fused into the convolution, and no absolute value is
//! taken. An upper bound, such as that of `Relu6`, stays after the square.

use bcosc_ir::{Graph, NodeId, Op, Operand, Patch, Value};

use crate::analysis::scalars::bounds;

/// A `Relu`, or a `Clip` from 0 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rectifier {
    node: NodeId,
    bounded: bool,
}

impl Rectifier {
    /// Views a node.
    pub fn of(graph: &Graph, node: NodeId) -> Option<Self> {
        let op = graph.op(node)?;
        let bounded = op.is("Clip") && bounds(graph, node).is_some_and(|(low, _)| low == 0.0);
        (op.is("Relu") || bounded).then_some(Rectifier { node, bounded })
    }

    /// The rectifier that is the only consumer of a value.
    pub fn behind(graph: &Graph, value: Value) -> Option<Self> {
        let (node, slot) = graph.sole_consumer(value)?;
        Self::of(graph, node).filter(|_| slot == 0)
    }

    /// Replaces the rectifier of `x` by a rectified square. An upper bound then reads the
    /// rectified value.
    pub fn replace(&self, patch: &mut Patch, x: Value, square: Operand) {
        let rectified = Value {
            node: self.node,
            slot: 0,
        };
        if self.bounded {
            patch.forget(x);
            patch.replace(x, square);
        } else {
            patch.replace(rectified, square);
        }
    }
}

/// Adds `relu(y) relu(y)` to a patch.
pub(crate) fn rectified_square(patch: &mut Patch, y: Operand) -> Operand {
    let rectified = patch.op(Op::new("", "Relu"), &[y]);
    patch.op(Op::new("", "Mul").named("square"), &[rectified, rectified])
}
