//! Operators whose transpose is themselves, or themselves backwards.
//!
//! ```text
//! y = CumSum (x)     s_x = CumSum (s_y) from the other end
//! y = Trilu (x)      s_x = Trilu (s_y)
//! ```

use bcosc_ir::Attribute;

use super::step::{Found, Step};

pub(super) fn running_sum(step: &mut Step<'_>) -> Found {
    let (dy, axis) = (step.dy()?, step.operand(1)?);
    let backwards = 1 - step.op.int("reverse", 0).clamp(0, 1);
    let attributes = [
        Attribute::int("exclusive", step.op.int("exclusive", 0)),
        Attribute::int("reverse", backwards),
    ];
    Ok(vec![(
        0,
        step.op_with("CumSum", &[dy, axis.into()], attributes),
    )])
}

pub(super) fn triangle(step: &mut Step<'_>) -> Found {
    let mut operands = vec![step.dy()?];
    operands.extend(step.graph.input(step.node, 1).map(bcosc_ir::Operand::Old));
    let upper = Attribute::int("upper", step.op.int("upper", 1));
    Ok(vec![(0, step.op_with("Trilu", &operands, [upper]))])
}
