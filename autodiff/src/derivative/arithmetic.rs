//! Products, quotients and powers of elements.

use crate::context::{Found, RuleContext};

/// `s_x = s_y * sign(x)`.
pub(crate) fn abs(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x) = (cx.dy()?, cx.operand(0)?);
    let sign = cx.op("Sign", &[x.into()]);
    Ok(vec![(0, cx.mul(dy, sign))])
}

/// `y = a / b`: `s_a = s_y / b`, `s_b = -s_a * y`, each summed over what it was repeated along.
pub(crate) fn div(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    let (a, b) = (cx.operand(0)?, cx.operand(1)?);
    let quotient = cx.div(dy, b.into());
    let mut found = Vec::new();
    if cx.wants(0) {
        found.push((0, cx.unbroadcast(quotient, a)?));
    }
    if cx.wants(1) {
        let product = cx.mul(quotient, cx.y().into());
        let negative = cx.op("Neg", &[product]);
        found.push((1, cx.unbroadcast(negative, b)?));
    }
    Ok(found)
}
