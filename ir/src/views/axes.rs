//! Operators whose axes moved from an attribute to an input between opsets.

use crate::{Attribute, Graph, NodeId, Op, Operand, Patch, Tensor, ops};

/// Operators that take axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AxesOp {
    /// Sum.
    ReduceSum,
    /// Mean.
    ReduceMean,
    /// Sum of squares.
    ReduceSumSquare,
    /// Euclidean norm.
    ReduceL2,
    /// Product.
    ReduceProd,
    /// Dimensions of size 1 put in.
    Unsqueeze,
    /// Dimensions of size 1 taken away.
    Squeeze,
}

impl AxesOp {
    fn name(self) -> &'static str {
        match self {
            AxesOp::ReduceSum => "ReduceSum",
            AxesOp::ReduceMean => "ReduceMean",
            AxesOp::ReduceSumSquare => "ReduceSumSquare",
            AxesOp::ReduceL2 => "ReduceL2",
            AxesOp::ReduceProd => "ReduceProd",
            AxesOp::Unsqueeze => "Unsqueeze",
            AxesOp::Squeeze => "Squeeze",
        }
    }

    fn axes_are_an_input(self, opset: i64) -> bool {
        let schema = ops::find(self.name()).map(|operator| operator.schema(opset));
        schema.is_some_and(|schema| schema.input("axes").is_some())
    }

    fn emit(self, patch: &mut Patch, opset: i64, x: Operand, axes: &[i64], op: Op) -> Operand {
        if self.axes_are_an_input(opset) {
            let axes = patch.parameter("axes", Tensor::i64_vec(axes));
            patch.op(op, &[x, axes])
        } else {
            patch.op(op.with(Attribute::ints("axes", axes)), &[x])
        }
    }
}

/// Adds a reduction that keeps the reduced dimensions as size 1.
pub fn reduce(patch: &mut Patch, opset: i64, kind: AxesOp, x: Operand, axes: &[i64]) -> Operand {
    let op = Op::new("", kind.name()).with_int("keepdims", 1);
    kind.emit(patch, opset, x, axes, op)
}

/// Adds a reduction that takes the reduced dimensions away.
pub fn reduce_to(patch: &mut Patch, opset: i64, kind: AxesOp, x: Operand, axes: &[i64]) -> Operand {
    let op = Op::new("", kind.name()).with_int("keepdims", 0);
    kind.emit(patch, opset, x, axes, op)
}

/// Adds an `Unsqueeze`.
pub fn unsqueeze(patch: &mut Patch, opset: i64, x: Operand, axes: &[i64]) -> Operand {
    let kind = AxesOp::Unsqueeze;
    kind.emit(patch, opset, x, axes, Op::new("", kind.name()))
}

/// Adds a `Squeeze`.
pub fn squeeze(patch: &mut Patch, opset: i64, x: Operand, axes: &[i64]) -> Operand {
    let kind = AxesOp::Squeeze;
    kind.emit(patch, opset, x, axes, Op::new("", kind.name()))
}

/// The axes of a node, from its attribute or from a constant second input.
pub fn axes_of(graph: &Graph, node: NodeId) -> Option<Vec<i64>> {
    if let Some(axes) = graph.op(node)?.get::<&[i64]>("axes") {
        return Some(axes.to_vec());
    }
    graph.constant(graph.input(node, 1)?)?.to_i64s().ok()
}
