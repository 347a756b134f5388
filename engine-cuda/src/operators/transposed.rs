//! Transposed convolutions: the input gradient of the convolution with the same window.

use bcosc_ir::views::{Padding, Window};

use super::context::malformed;
use super::convolutions::{Sizes, to_input};
use super::windows::pads;
use super::{Outputs, Reason, RuleContext, Table};
use crate::program::vars;

pub(super) const RULES: Table = &[("ConvTranspose", transposed)];

fn transposed(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let (x, w) = (cx.operand(0)?, cx.operand(1)?);
    let (from, weight) = (cx.dims(x), cx.dims(w));
    let kernel = weight.iter().skip(2).map(|&k| k as i64).collect();
    let Some(mut window) = Window::of(cx.op, kernel) else {
        return malformed("attributes of the window");
    };
    let rank = window.rank();
    if from.len() != rank + 2 {
        return malformed("the operands have other ranks than the window");
    }
    // With a shape or automatic padding, the border is what is left over.
    let open = cx
        .given::<&[i64]>("output_shape")
        .is_some_and(|shape| !shape.is_empty());
    let Padding::Explicit(border) = window.padding.clone() else {
        return Err(Reason::Form("ConvTranspose with automatic padding"));
    };
    if open {
        return Err(Reason::Form("ConvTranspose with an output shape"));
    }
    let groups: u64 = cx.attribute("group")?;
    let beyond = cx.given::<&[i64]>("output_padding").unwrap_or_default();
    let sizes = (0..rank).map(|axis| {
        let extent = (window.kernel[axis] - 1) * window.dilations[axis] + 1;
        let reach = (from[axis + 2] as i64 - 1) * window.strides[axis] + extent;
        let beyond = beyond.get(axis).copied().unwrap_or(0);
        reach + beyond - border[axis] - border[axis + rank]
    });
    let sizes = sizes.map(|size| u64::try_from(size).ok());
    let Some(sizes) = sizes.collect::<Option<Vec<u64>>>() else {
        return malformed("the output has a negative size");
    };
    let to = [&[from[0], weight[1] * groups], &sizes[..]].concat();
    let pads = pads(&window, &to[2..], &from[2..]);
    // Output padding beyond the last window is where no window reaches.
    let mut ends = Vec::new();
    for (axis, &(before, _)) in pads.iter().enumerate() {
        let extent = (window.kernel[axis] - 1) * window.dilations[axis] + 1;
        let reach = (from[axis + 2] as i64 - 1) * window.strides[axis] + extent;
        let after = reach - before - to[axis + 2] as i64;
        ends.push(if after > 0 {
            after
        } else {
            pads[axis].1.min(0).max(after)
        });
    }
    let starts = pads.iter().map(|(before, _)| *before);
    let exact: Vec<i64> = starts.chain(ends).collect();
    let dims =
        |window: Window| Sizes::new(window, groups, [to.clone(), weight.clone(), from.clone()]);
    let sizes = dims(window.clone()).or_else(|_| {
        window.padding = Padding::Explicit(exact);
        dims(window)
    })?;
    let y = to_input(cx, x, w, &sizes);
    let Some(bias) = cx.optional(2) else {
        return Ok(vec![Some(y)]);
    };
    let channel = vec![vars(&sizes.x)[1].clone()];
    let sum = cx.element(y) + cx.load(bias, channel);
    cx.output(&sizes.x, sum)
}
