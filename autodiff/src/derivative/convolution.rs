//! Convolutions: one operator for each product, see [`bcosc_passes::dialect`].
//!
//! ```text
//! y = Conv <w> (x)            s_x = ConvInputGradient <w> (s_y)   s_w = ConvWeightGradient (x, s_y)
//! y = ConvTranspose <w> (x)   s_x = Conv <w> (s_y)                s_w = ConvWeightGradient (s_y, x)
//! ```

use bcosc_ir::{Op, Operand, Value};
use bcosc_passes::Reason;
use bcosc_passes::dialect::{ConvInputGradient, ConvWeightGradient};

use crate::context::{Found, RuleContext};
use crate::transpose::convolution::{Transposed, bias, convolved, has_open_border, view};
use crate::transpose::window::spatial;

pub(crate) fn conv(cx: &mut RuleContext<'_>) -> Found {
    let (dy, view) = (cx.dy()?, view(cx)?);
    let mut found = Vec::new();
    if cx.wants(0) {
        let sizes = spatial(cx, view.x, view.window.rank())?;
        let mut axes = sizes.iter().zip(&view.window.strides);
        let is_open = axes.any(|(size, &stride)| stride > 1 && size.is_none());
        let mut operands = vec![dy, view.w.into()];
        if is_open || has_open_border(&view.window, &sizes) {
            operands.push(cx.op("Shape", &[view.x.into()]));
        }
        let op = ConvInputGradient::op(&view.window, view.group);
        found.push((0, typed(cx, op, &operands, view.x)?));
    }
    if cx.wants(1) {
        let op = ConvWeightGradient::op(&view.window, view.group);
        found.push((1, typed(cx, op, &[view.x.into(), dy], view.w)?));
    }
    bias(cx, dy, &mut found)?;
    Ok(found)
}

pub(crate) fn conv_transpose(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    let mut found = Vec::new();
    if cx.wants(0) {
        found.push((0, convolved(cx, dy)?));
    }
    if cx.wants(1) {
        let (x, w, transposed) = (cx.operand(0)?, cx.operand(1)?, Transposed::of(cx)?);
        let op = ConvWeightGradient::op(&transposed.fitting(), transposed.group as u64);
        found.push((1, typed(cx, op, &[dy, x.into()], w)?));
    }
    bias(cx, dy, &mut found)?;
    Ok(found)
}

/// An operator whose result has the type of a value.
fn typed(
    cx: &mut RuleContext<'_>,
    op: Op,
    operands: &[Operand],
    like: Value,
) -> Result<Operand, Reason> {
    let name = || cx.graph.value_name(like).to_owned();
    let found = cx.graph.value_type(like);
    let found = found.ok_or_else(|| Reason::UnknownShape(name()))?;
    let result = cx.patch.op(op, operands);
    cx.patch.typed(result, found);
    Ok(result)
}
