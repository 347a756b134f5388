//! Rectifiers: linear on either side of 0.
//!
//! ```text
//! y = Relu (x)       s_x = s_y where x > 0, else 0
//! y = PRelu (x, a)   s_x = s_y where x > 0, else s_y * a      s_a = s_y * x where x <= 0
//! ```

use bcosc_ir::Operand;

use crate::context::{Found, RuleContext};

pub(crate) fn relu(cx: &mut RuleContext<'_>) -> Found {
    let (dy, zero) = (cx.dy()?, cx.number(cx.y(), 0.0));
    let open = cx.op("Greater", &[cx.y().into(), zero]);
    Ok(vec![(0, cx.op("Where", &[open, dy, zero]))])
}

pub(crate) fn leaky_relu(cx: &mut RuleContext<'_>) -> Found {
    let alpha = f64::from(cx.attribute::<f32>("alpha")?);
    let slope = cx.number(cx.y(), alpha);
    sloped(cx, slope)
}

pub(crate) fn prelu(cx: &mut RuleContext<'_>) -> Found {
    let slope = cx.operand(1)?;
    let mut found = match cx.wants(0) {
        true => sloped(cx, slope.into())?,
        false => Vec::new(),
    };
    if cx.wants(1) {
        let (dy, x) = (cx.dy()?, cx.operand(0)?);
        let zero = cx.number(x, 0.0);
        let negative = cx.op("Min", &[x.into(), zero]);
        let part = cx.mul(dy, negative);
        found.push((1, cx.unbroadcast(part, slope)?));
    }
    Ok(found)
}

/// x where it is positive, else the slope times x.
fn sloped(cx: &mut RuleContext<'_>, slope: Operand) -> Found {
    let (dy, x) = (cx.dy()?, cx.operand(0)?);
    let zero = cx.number(x, 0.0);
    let positive = cx.op("Greater", &[x.into(), zero]);
    let scaled = cx.mul(dy, slope);
    Ok(vec![(0, cx.op("Where", &[positive, dy, scaled]))])
}
