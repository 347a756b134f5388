//! The energy (sum of squares) that a layer is scaled by.

use bcosc_ir::{DataType, Graph, Op, Operand, Patch};

use crate::Reason;
use crate::dialect::{Energy, Scale, Weigh};

/// The energy of the scale of a layer that rules for B = 2 may rewrite.
pub(crate) fn energy_of(graph: &Graph, scale: &Scale) -> Result<Energy, Reason> {
    if scale.b != 2.0 {
        return Err(Reason::OnlyForB2);
    }
    let dtype = graph.value_type(scale.y).map(|t| t.dtype);
    if dtype.is_some_and(|dtype| dtype != DataType::Float) {
        return Err(Reason::NotSingle);
    }
    Energy::of(graph, scale.norm.node).ok_or(Reason::NoConvolution)
}

/// Adds `squared / sqrt(energy)` to a patch, in place of a scale. It multiplies by the reciprocal of the norm, which
/// has one channel; the norm of a depthwise layer has as many as its output, which is divided by it.
pub(crate) fn over_norm(
    patch: &mut Patch,
    scale: &Scale,
    squared: Operand,
    energy: Energy,
) -> Operand {
    if scale.group > 1 && scale.group == scale.channels {
        let norm = energy.to_the(0.5).add(patch);
        return patch.op(Op::new("", "Div").named("quotient"), &[squared, norm]);
    }
    let weight = energy.to_the(-0.5).add(patch);
    let op = Weigh::op(scale.group, scale.channels, scale.spatial);
    patch.op(op, &[squared, weight])
}
