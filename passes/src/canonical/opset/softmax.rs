//! `Softmax`, `LogSoftmax` and `Hardmax` before opset 13: over all axes starting at `axis`, not over one axis.
//!
//! ```text
//! y = Softmax <axis = 1> (x)                            opset 11, x of rank 4
//! y = Reshape (Softmax <axis = -1> (Flatten <axis = 1> (x)), Shape (x))
//! ```

use bcosc_ir::{Attribute, Graph, NodeId, Op, Patch, Value};

use crate::Reason;

/// The last opset of the old form.
const BEFORE: i64 = 12;

/// Writes the operator along a single axis.
pub(super) fn along_axis(graph: &Graph, node: NodeId) -> Result<Option<Patch>, Reason> {
    let op = graph.op(node).ok_or(Reason::Malformed)?;
    let x = graph.input(node, 0).ok_or(Reason::Malformed)?;
    let rank = graph.value_type(x).and_then(|t| t.rank());
    let rank = rank.ok_or_else(|| Reason::UnknownShape(graph.value_name(x).to_owned()))? as i64;
    let axis: i64 = op.get_at("axis", BEFORE).ok_or(Reason::Malformed)?;
    let first = if axis < 0 { axis + rank } else { axis };
    let mut patch = Patch::at(node);
    if first == rank - 1 {
        patch.set_attribute(node, Attribute::int("axis", -1));
        return Ok(Some(patch));
    }
    let shape = patch.op(Op::new("", "Shape"), &[x.into()]);
    let flat = patch.op(Op::new("", "Flatten").with_int("axis", first), &[x.into()]);
    let normed = patch.op(Op::new("", op.op_type()).with_int("axis", -1), &[flat]);
    let result = patch.op(Op::new("", "Reshape"), &[normed, shape]);
    patch.replace(Value { node, slot: 0 }, result);
    Ok(Some(patch))
}
