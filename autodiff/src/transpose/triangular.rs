//! Operators whose transpose is themselves, or themselves backwards.
//!
//! ```text
//! y = CumSum (x)     s_x = CumSum (s_y) from the other end
//! y = Trilu (x)      s_x = Trilu (s_y)
//! ```

use bcosc_ir::Attribute;

use crate::context::{Found, RuleContext};

pub(crate) fn running_sum(cx: &mut RuleContext<'_>) -> Found {
    let (dy, axis) = (cx.dy()?, cx.operand(1)?);
    let backwards = 1 - i64::from(cx.attribute::<bool>("reverse")?);
    let attributes = [
        Attribute::int("exclusive", cx.attribute("exclusive")?),
        Attribute::int("reverse", backwards),
    ];
    Ok(vec![(
        0,
        cx.op_with("CumSum", &[dy, axis.into()], attributes),
    )])
}

pub(crate) fn triangle(cx: &mut RuleContext<'_>) -> Found {
    let mut operands = vec![cx.dy()?];
    operands.extend(cx.graph.input(cx.node, 1).map(bcosc_ir::Operand::Old));
    let upper = Attribute::int("upper", cx.attribute("upper")?);
    Ok(vec![(0, cx.op_with("Trilu", &operands, [upper]))])
}
