//! Operators whose places are told by a tensor of indices.
//!
//! ```text
//! y = GatherND (x, i)            s_x = ScatterND <add> (0, i, s_y)
//! y = GatherElements (x, i)      s_x = ScatterElements <add> (0, i, s_y)
//! y, i = TopK (x)                s_x = ScatterElements (0, i, s_y)
//! y = ScatterND (x, i, u)        s_x = s_y with zeros at i, or with <add> s_y     s_u = GatherND (s_y, i)
//! y = ScatterElements (x, i, u)  likewise
//! ```

use bcosc_ir::{Attribute, Operand, Value};

use super::step::{Found, Step};
use bcosc_passes::Reason;

/// Places that may be met twice are added up from here.
const ADDING: i64 = 16;

pub(super) fn gather_nd(step: &mut Step<'_>) -> Found {
    // Batches would need indices that count them.
    if step.op.int("batch_dims", 0) != 0 {
        return Err(Reason::NoDerivative);
    }
    picked(step, "ScatterND", None)
}

pub(super) fn gather_elements(step: &mut Step<'_>) -> Found {
    let axis = Attribute::int("axis", step.op.int("axis", 0));
    picked(step, "ScatterElements", Some(axis))
}

fn picked(step: &mut Step<'_>, scatter: &str, axis: Option<Attribute>) -> Found {
    let (dy, x, indices) = (step.dy()?, step.operand(0)?, step.operand(1)?);
    let zeros = zeros(step, x);
    let found = added(step, scatter, [zeros, indices.into(), dy], axis)?;
    Ok(vec![(0, found)])
}

/// Adds numbers up at indices of a tensor: `[tensor, indices, numbers]`.
pub(super) fn added(
    step: &mut Step<'_>,
    scatter: &str,
    operands: [Operand; 3],
    axis: Option<Attribute>,
) -> Result<Operand, Reason> {
    if step.opset < ADDING {
        return Err(Reason::NeedsOpset {
            opset: ADDING,
            what: "going back through an operator that picks by computed indices",
        });
    }
    let add = Attribute::string("reduction", "add");
    Ok(step.op_with(scatter, &operands, axis.into_iter().chain([add])))
}

pub(super) fn zeros(step: &mut Step<'_>, like: Value) -> Operand {
    let (zero, shape) = (step.number(like, 0.0), step.shape(like));
    step.op("Expand", &[zero, shape])
}

/// No place is taken twice.
pub(super) fn top(step: &mut Step<'_>) -> Found {
    let (dy, x) = (step.dy()?, step.operand(0)?);
    let indices = step.graph.output(step.node, 1);
    let axis = Attribute::int("axis", step.op.int("axis", -1));
    let zeros = zeros(step, x);
    let found = step.op_with("ScatterElements", &[zeros, indices.into(), dy], [axis]);
    Ok(vec![(0, found)])
}

pub(super) fn scatter_nd(step: &mut Step<'_>) -> Found {
    written(step, "GatherND", None)
}

pub(super) fn scatter_elements(step: &mut Step<'_>) -> Found {
    let axis = Attribute::int("axis", step.op.int("axis", 0));
    written(step, "GatherElements", Some(axis))
}

fn written(step: &mut Step<'_>, gather: &str, axis: Option<Attribute>) -> Found {
    let (dy, indices, updates) = (step.dy()?, step.operand(1)?, step.operand(2)?);
    let indices = Operand::Old(indices);
    let mut found = Vec::new();
    if step.wants(0) {
        let kept = match step.op.string("reduction") {
            Some("add") => dy,
            Some(other) if other != "none" => return Err(Reason::NoDerivative),
            _ => {
                let (name, zeros) = (step.op.op_type(), zeros(step, updates));
                step.op_with(name, &[dy, indices, zeros], axis.clone())
            }
        };
        found.push((0, kept));
    }
    if step.wants(2) {
        found.push((2, step.op_with(gather, &[dy, indices], axis)));
    }
    Ok(found)
}
