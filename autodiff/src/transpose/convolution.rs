//! Convolutions.
//!
//! ```text
//! y = Conv <w> (x)            s_x = ConvTranspose <w> (s_y), as large as x
//! y = ConvTranspose <w> (x)   s_x = Conv <w> (s_y)
//! ```
//!
//! What a transposed convolution cuts off its full result on either side is the border of the convolution:
//!
//! ```text
//! full  = stride * (n - 1) + output_padding + extent
//! total = full - output_shape       where that is given
//!       = full - stride * n         with auto_pad SAME
//! ```
//!
//! the larger half of it at the end with SAME_UPPER, else at the beginning.

use bcosc_ir::views::{AxesOp, Conv, Padding, Window};
use bcosc_ir::{Dim, Op, Operand};

use super::window::{Slide, cut_to, extent, grouped};
use crate::context::{Found, RuleContext};
use bcosc_passes::Reason;

pub(crate) fn conv(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    let view =
        Conv::of(cx.graph, cx.node).ok_or_else(|| Reason::UnknownShape("its weight".to_owned()))?;
    let mut found = Vec::new();
    if cx.wants(0) {
        let w = view.w.into();
        let back = match open_border(cx, &view)? {
            true => back_in_open(cx, dy, &view),
            false => {
                let slide = Slide::of(cx, &view.window, view.x, cx.y(), false)?;
                slide.back(cx, dy, w, view.group)?
            }
        };
        found.push((0, back));
    }
    bias(cx, dy, &mut found)
}

pub(crate) fn conv_transpose(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x, w) = (cx.dy()?, cx.operand(0)?, cx.operand(1)?);
    let kernel = cx.known_dims(w)?.get(2..).unwrap_or_default().to_vec();
    let mut window = Window::of(cx.op, kernel).ok_or(Reason::Malformed)?;
    let mut found = Vec::new();
    if cx.wants(0) {
        let rank = window.rank();
        let cuts = (0..rank).map(|axis| cut_off(cx, &window, axis));
        let cuts = cuts.collect::<Result<Vec<Cut>, Reason>>()?;
        let begins = cuts.iter().map(|cut| cut.begin);
        let pads = begins.chain(cuts.iter().map(|cut| cut.end)).collect();
        window.padding = Padding::Explicit(pads);
        let op = grouped(window.write(Op::new("", "Conv")), cx.attribute("group")?);
        let mut back = cx.patch.op(op, &[dy, w.into()]);
        let strides = window.strides.iter();
        if cuts.iter().zip(strides).any(|(cut, &s)| cut.added >= s) {
            // Zeros at the end that are a step of the window or more.
            back = cut_to(cx, back, x, rank);
        }
        found.push((0, back));
    }
    bias(cx, dy, &mut found)
}

/// Whether the border depends on sizes that are open.
fn open_border(cx: &RuleContext<'_>, view: &Conv) -> Result<bool, Reason> {
    let sizes = cx.dims(view.x)?;
    let mut spatial = sizes.iter().skip(2).zip(&view.window.strides);
    let explicit = matches!(view.window.padding, Padding::Explicit(_));
    Ok(!explicit && spatial.any(|(size, &stride)| stride > 1 && size.known().is_none()))
}

/// The full result of the transposed convolution, cut at run time where the convolution had its border.
fn back_in_open(cx: &mut RuleContext<'_>, dy: Operand, view: &Conv) -> Operand {
    let rank = view.window.rank();
    let mut window = view.window.clone();
    window.padding = Padding::Explicit(vec![0; 2 * rank]);
    // As long as the input can be.
    let added: Vec<i64> = window.strides.iter().map(|&s| s - 1).collect();
    let op = window.write(Op::new("", "ConvTranspose").with_ints("output_padding", &added));
    let full = cx
        .patch
        .op(grouped(op, view.group as i64), &[dy, view.w.into()]);
    let spatial = |cx: &mut RuleContext<'_>, of: Operand| {
        let shape = cx.op("Shape", &[of]);
        cx.slice(shape, &[0], &[2], &[i64::MAX])
    };
    let (long, size) = (spatial(cx, full), spatial(cx, view.x.into()));
    let [added, zero, two] = [added, vec![0], vec![2]].map(|values| cx.ints(&values));
    let total = cx.op("Sub", &[long, size]);
    let total = cx.op("Sub", &[total, added]);
    let total = cx.op("Max", &[total, zero]);
    let small = cx.div(total, two);
    let begin = match view.window.padding {
        Padding::SameUpper => small,
        _ => cx.op("Sub", &[total, small]),
    };
    let end = cx.op("Add", &[begin, size]);
    let axes: Vec<i64> = (2..2 + rank as i64).collect();
    let axes = cx.ints(&axes);
    cx.op("Slice", &[full, begin, end, axes])
}

/// How an axis of a full result becomes that of a transposed convolution.
struct Cut {
    begin: i64,
    end: i64,
    /// Zeros at the end of the full result.
    added: i64,
}

fn cut_off(cx: &RuleContext<'_>, window: &Window, axis: usize) -> Result<Cut, Reason> {
    let rank = window.rank();
    let per_axis = |name: &str| match cx.op.get::<&[i64]>(name) {
        Some(values) if values.len() == rank => Ok(Some(values[axis])),
        Some([]) | None => Ok(None),
        Some(_) => Err(Reason::Malformed),
    };
    let added = per_axis("output_padding")?.unwrap_or(0);
    let (stride, extent) = (window.strides[axis], extent(window, axis));
    let total = match (per_axis("output_shape")?, &window.padding) {
        (Some(size), _) => {
            let x = cx.operand(0)?;
            let from = cx.dims(x)?.get(2 + axis).and_then(Dim::known);
            let open = || Reason::UnknownShape(cx.graph.value_name(x).to_owned());
            stride * (from.ok_or_else(open)? as i64 - 1) + added + extent - size
        }
        (None, Padding::Explicit(pads)) => {
            let (begin, end) = (pads[axis], pads[rank + axis]);
            return Ok(Cut { begin, end, added });
        }
        // Runtimes do not agree whether gaps are left where windows do not meet.
        (None, _) if added + extent < stride => {
            return Err(Reason::NoBackwardRuleFor(
                "a ConvTranspose with auto_pad whose stride is larger than its window",
            ));
        }
        (None, _) => added + extent - stride,
    };
    let (small, large) = (total.max(0) / 2, total.max(0) - total.max(0) / 2);
    let (begin, end) = match window.padding {
        Padding::SameUpper => (small, large),
        _ => (large, small),
    };
    let added = added + (-total).max(0);
    Ok(Cut { begin, end, added })
}

/// The cotangent of a bias; that of a weight would be another product.
fn bias(cx: &mut RuleContext<'_>, dy: Operand, found: &mut Vec<(u32, Operand)>) -> Found {
    if cx.wants(1) {
        return Err(Reason::NoBackwardRuleFor("the weight of a convolution"));
    }
    if cx.wants(2) {
        let rank = cx.dims(cx.y())?.len() as i64;
        let axes: Vec<i64> = (0..rank).filter(|&a| a != 1).collect();
        found.push((2, cx.reduce_to(AxesOp::ReduceSum, dy, &axes)));
    }
    Ok(std::mem::take(found))
}
