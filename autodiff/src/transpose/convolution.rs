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

use super::window::{Ends, Slide, Source, cut_to, extent, grouped};
use crate::context::{Found, RuleContext};
use bcosc_passes::Reason;

pub(crate) fn conv(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    let view = view(cx)?;
    let mut found = Vec::new();
    if cx.wants(0) {
        let ends = Ends::of(cx, view.x, cx.y(), view.window.rank())?;
        let back = input_gradient(cx, [dy, view.w.into()], &view.window, view.group, &ends)?;
        found.push((0, back));
    }
    not_of_weight(cx)?;
    bias(cx, dy, &mut found)?;
    Ok(found)
}

/// The convolution of a rule.
pub(crate) fn view(cx: &RuleContext<'_>) -> Result<Conv, Reason> {
    Conv::of(cx.graph, cx.node).ok_or_else(|| Reason::UnknownShape("its weight".to_owned()))
}

/// The cotangent of the input of a convolution, given that of the output and the weight.
pub(crate) fn input_gradient(
    cx: &mut RuleContext<'_>,
    [dy, w]: [Operand; 2],
    window: &Window,
    group: u64,
    ends: &Ends,
) -> Result<Operand, Reason> {
    if has_open_border(window, &ends.from) {
        return back_in_open(cx, [dy, w], window, group, ends.x);
    }
    let open = || Reason::UnknownShape("its input".to_owned());
    let slide = Slide::between(window, ends, false).ok_or_else(open)?;
    slide.back(cx, dy, w, group)
}

pub(crate) fn conv_transpose(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    let mut found = Vec::new();
    if cx.wants(0) {
        found.push((0, convolved(cx, dy)?));
    }
    not_of_weight(cx)?;
    bias(cx, dy, &mut found)?;
    Ok(found)
}

/// The cotangent of the input of a transposed convolution.
pub(crate) fn convolved(cx: &mut RuleContext<'_>, dy: Operand) -> Result<Operand, Reason> {
    let (x, w, transposed) = (cx.operand(0)?, cx.operand(1)?, Transposed::of(cx)?);
    let window = &transposed.window;
    let op = grouped(window.write(Op::new("", "Conv")), transposed.group);
    let back = cx.patch.op(op, &[dy, w.into()]);
    match transposed.excess() {
        true => cut_to(cx, back, Source::Value(x), window.rank()),
        false => Ok(back),
    }
}

/// Whether the border of a window depends on sizes that are open.
pub(crate) fn has_open_border(window: &Window, sizes: &[Option<i64>]) -> bool {
    let mut spatial = sizes.iter().zip(&window.strides);
    let explicit = matches!(window.padding, Padding::Explicit(_));
    !explicit && spatial.any(|(size, &stride)| stride > 1 && size.is_none())
}

/// The full result of the transposed convolution, cut at run time where the convolution had its border.
fn back_in_open(
    cx: &mut RuleContext<'_>,
    [dy, w]: [Operand; 2],
    window: &Window,
    group: u64,
    x: Source,
) -> Result<Operand, Reason> {
    let rank = window.rank();
    let mut unpadded = window.clone();
    unpadded.padding = Padding::Explicit(vec![0; 2 * rank]);
    // As long as the input can be.
    let added: Vec<i64> = window.strides.iter().map(|&s| s - 1).collect();
    let op = unpadded.write(Op::new("", "ConvTranspose").with_ints("output_padding", &added));
    let full = cx.patch.op(grouped(op, group as i64), &[dy, w]);
    let long = cx.op("Shape", &[full]);
    let long = cx.slice(long, &[0], &[2], &[i64::MAX]);
    let size = x.spatial(cx)?;
    let [added, zero, two] = [added, vec![0], vec![2]].map(|values| cx.ints(&values));
    let total = cx.op("Sub", &[long, size]);
    let total = cx.op("Sub", &[total, added]);
    let total = cx.op("Max", &[total, zero]);
    let small = cx.div(total, two);
    let begin = match window.padding {
        Padding::SameUpper => small,
        _ => cx.op("Sub", &[total, small]),
    };
    let end = cx.op("Add", &[begin, size]);
    let axes: Vec<i64> = (2..2 + rank as i64).collect();
    let axes = cx.ints(&axes);
    Ok(cx.op("Slice", &[full, begin, end, axes]))
}

/// A transposed convolution as the transpose of a convolution.
pub(crate) struct Transposed {
    /// The window of the convolution, with its border in numbers.
    pub window: Window,
    pub group: i64,
    /// Zeros at the end of the full result, by axis.
    added: Vec<i64>,
}

impl Transposed {
    pub fn of(cx: &RuleContext<'_>) -> Result<Self, Reason> {
        let kernel = cx.known_dims(cx.operand(1)?)?;
        let kernel = kernel.get(2..).unwrap_or_default().to_vec();
        let mut window = Window::of(cx.op, kernel).ok_or(Reason::Malformed)?;
        let cuts = (0..window.rank()).map(|axis| cut_off(cx, &window, axis));
        let cuts = cuts.collect::<Result<Vec<Cut>, Reason>>()?;
        let begins = cuts.iter().map(|cut| cut.begin);
        let pads = begins.chain(cuts.iter().map(|cut| cut.end)).collect();
        window.padding = Padding::Explicit(pads);
        Ok(Transposed {
            window,
            group: cx.attribute("group")?,
            added: cuts.iter().map(|cut| cut.added).collect(),
        })
    }

    /// Whether the zeros at the end are a step of the window or more.
    fn excess(&self) -> bool {
        let mut axes = self.added.iter().zip(&self.window.strides);
        axes.any(|(added, stride)| added >= stride)
    }

    /// The window without the steps into the zeros at the end, which cross the border instead.
    pub fn fitting(&self) -> Window {
        let mut window = self.window.clone();
        if let Padding::Explicit(pads) = &mut window.padding {
            let ends = pads.iter_mut().skip(self.added.len());
            for ((end, added), stride) in ends.zip(&self.added).zip(&window.strides) {
                *end -= added / stride * stride;
            }
        }
        window
    }
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

fn not_of_weight(cx: &RuleContext<'_>) -> Result<(), Reason> {
    match cx.wants(1) {
        true => Err(Reason::NoBackwardRuleFor("the weight of a convolution")),
        false => Ok(()),
    }
}

/// The cotangent of a bias, where it is wanted.
pub(crate) fn bias(
    cx: &mut RuleContext<'_>,
    dy: Operand,
    found: &mut Vec<(u32, Operand)>,
) -> Result<(), Reason> {
    if cx.wants(2) {
        let rank = cx.dims(cx.y())?.len() as i64;
        let axes: Vec<i64> = (0..rank).filter(|&a| a != 1).collect();
        found.push((2, cx.reduce_to(AxesOp::ReduceSum, dy, &axes)));
    }
    Ok(())
}
