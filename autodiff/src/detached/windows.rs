//! Convolutions, and what slides a window like one.
//!
//! ```text
//! y = Conv <w> (x)            s_x = ConvTranspose <w> (s_y), as large as x
//! y = ConvTranspose <w> (x)   s_x = Conv <w> (s_y)
//! ```
//!
//! A convolution whose stride does not divide leaves out the last cells of its input. Where sizes are
//! known, `output_padding` puts them back as zeros; else the result is made as long as it can be and cut
//! to the size that the input has.

use bcosc_ir::views::{AxesOp, Conv, Padding, Window};
use bcosc_ir::{Dim, Op, Operand, Value};

use super::step::{Found, Step};
use bcosc_passes::Reason;

pub(super) fn conv(step: &mut Step<'_>) -> Found {
    let dy = step.dy()?;
    let view = Conv::of(step.graph, step.node)
        .ok_or_else(|| Reason::UnknownShape("its weight".to_owned()))?;
    let mut found = Vec::new();
    if step.wants(0) {
        let slide = Slide::of(step, &view.window, view.x, step.y(), false)?;
        let back = slide.back(step, dy, view.w.into(), view.group)?;
        found.push((0, back));
    }
    bias(step, dy, &mut found)
}

pub(super) fn conv_transpose(step: &mut Step<'_>) -> Found {
    let (dy, w) = (step.dy()?, step.operand(1)?);
    let kernel = step.known_dims(w)?.get(2..).unwrap_or_default().to_vec();
    let window = Window::of(step.op, kernel).ok_or(Reason::Malformed)?;
    let explicit = matches!(window.padding, Padding::Explicit(_));
    if !explicit || step.op.ints("output_shape").is_some() {
        return Err(Reason::NoDerivative);
    }
    let mut found = Vec::new();
    if step.wants(0) {
        let op = grouped(window.write(Op::new("", "Conv")), step.op.int("group", 1));
        found.push((0, step.patch.op(op, &[dy, w.into()])));
    }
    bias(step, dy, &mut found)
}

/// The cotangent of a bias; that of a weight would be another product.
fn bias(step: &mut Step<'_>, dy: Operand, found: &mut Vec<(u32, Operand)>) -> Found {
    if step.wants(1) {
        return Err(Reason::NoDerivative);
    }
    if step.wants(2) {
        let rank = step.dims(step.y())?.len() as i64;
        let axes: Vec<i64> = (0..rank).filter(|&a| a != 1).collect();
        found.push((2, step.reduce_to(AxesOp::ReduceSum, dy, &axes)));
    }
    Ok(std::mem::take(found))
}

pub(super) fn grouped(op: Op, group: i64) -> Op {
    match group {
        1 => op,
        _ => op.with_int("group", group),
    }
}

/// A window on its way over a value, with the border in numbers.
pub(super) struct Slide {
    x: Value,
    pub window: Window,
    /// Cells at the beginning of each axis, then at the end of each axis, as many as the last window
    /// reaches.
    pub pads: Vec<i64>,
    /// What the input has beyond the last window, by axis; `None` where sizes are open.
    rest: Vec<Option<i64>>,
}

impl Slide {
    /// How a window goes from `x` to `y`; with `ceil` the last one may hang over the border.
    pub fn of(
        step: &Step<'_>,
        window: &Window,
        x: Value,
        y: Value,
        ceil: bool,
    ) -> Result<Self, Reason> {
        let rank = window.rank();
        let sizes = |step: &Step<'_>, v| -> Result<Vec<Option<i64>>, Reason> {
            let dims = step.dims(v)?;
            let spatial = dims.get(2..).filter(|s| s.len() == rank);
            let known = |d: &Dim| d.known().map(|d| d as i64);
            Ok(spatial
                .ok_or(Reason::Malformed)?
                .iter()
                .map(known)
                .collect())
        };
        let (from, to) = (sizes(step, x)?, sizes(step, y)?);
        let open = || Reason::UnknownShape(step.graph.value_name(x).to_owned());
        let (mut pads, mut rest) = (vec![0; 2 * rank], vec![None; rank]);
        for axis in 0..rank {
            let (stride, extent) = (window.strides[axis], extent(window, axis));
            let (begin, end) = border(window, axis, from[axis]).ok_or_else(open)?;
            (pads[axis], pads[rank + axis]) = (begin, end);
            if let (Some(from), Some(to)) = (from[axis], to[axis]) {
                let left = from + begin + end - (stride * (to - 1) + extent);
                // A window that hangs over sees that much more border.
                pads[rank + axis] -= left.min(0);
                rest[axis] = Some(left.max(0));
            } else if ceil && stride > 1 {
                return Err(open());
            } else if stride == 1 {
                rest[axis] = Some(0);
            }
        }
        let mut window = window.clone();
        window.padding = Padding::Explicit(pads.clone());
        Ok(Slide {
            x,
            window,
            pads,
            rest,
        })
    }

    /// The transposed convolution with a weight, as large as the input.
    pub fn back(
        &self,
        step: &mut Step<'_>,
        dy: Operand,
        w: Operand,
        group: u64,
    ) -> Result<Operand, Reason> {
        let rank = self.window.rank();
        let strides = &self.window.strides;
        let added: Vec<i64> = (0..rank)
            .map(|axis| self.rest[axis].unwrap_or(strides[axis] - 1))
            .collect();
        let mut op = self.window.write(Op::new("", "ConvTranspose"));
        if added.iter().any(|&n| n != 0) {
            op = op.with_ints("output_padding", &added);
        }
        let full = step.patch.op(grouped(op, group as i64), &[dy, w]);
        if self.rest.iter().all(Option::is_some) {
            return Ok(full);
        }
        let shape = step.op("Shape", &[self.x.into()]);
        let ends = step.slice(shape, &[0], &[2], &[i64::MAX]);
        let axes: Vec<i64> = (2..2 + rank as i64).collect();
        let [starts, axes] = [vec![0; rank], axes].map(|values| step.ints(&values));
        Ok(step.op("Slice", &[full, starts, ends, axes]))
    }
}

/// Cells from the first to the last of a window.
fn extent(window: &Window, axis: usize) -> i64 {
    (window.kernel[axis] - 1) * window.dilations[axis] + 1
}

/// The border of an axis; `None` where it depends on a size that is open.
fn border(window: &Window, axis: usize, size: Option<i64>) -> Option<(i64, i64)> {
    let (stride, extent) = (window.strides[axis], extent(window, axis));
    let total = || {
        let size = match (stride, size) {
            (1, _) => return Some(extent - 1),
            (_, size) => size?,
        };
        let steps = (size + stride - 1) / stride;
        Some(((steps - 1) * stride + extent - size).max(0))
    };
    match &window.padding {
        Padding::Explicit(pads) => Some((pads[axis], pads[window.rank() + axis])),
        Padding::SameUpper => total().map(|total| (total / 2, total - total / 2)),
        Padding::SameLower => total().map(|total| (total - total / 2, total / 2)),
    }
}
