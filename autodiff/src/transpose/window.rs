//! Sliding windows: borders, and the transposed convolution.
//!
//! A convolution whose stride does not divide leaves out the last cells of its input. Where sizes are
//! known, `output_padding` puts them back as zeros; else the result is made as long as it can be and cut
//! to the size that the input has.

use bcosc_ir::views::{Padding, Window};
use bcosc_ir::{Dim, Op, Operand, Value};

use crate::context::RuleContext;
use bcosc_passes::Reason;

pub(crate) fn grouped(op: Op, group: i64) -> Op {
    match group {
        1 => op,
        _ => op.with_int("group", group),
    }
}

/// The value that a window slides over.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    /// Itself.
    Value(Value),
    /// Its shape at run time; `None` where its known sizes are enough.
    Shape(Option<Value>),
}

impl Source {
    /// Its spatial sizes, at run time.
    pub fn spatial(self, cx: &mut RuleContext<'_>) -> Result<Operand, Reason> {
        let shape = match self {
            Source::Value(value) => cx.op("Shape", &[value.into()]),
            Source::Shape(shape) => shape.ok_or(Reason::Malformed)?.into(),
        };
        Ok(cx.slice(shape, &[0], &[2], &[i64::MAX]))
    }
}

/// Where a window starts and what it makes of it, with spatial sizes as far as they are known.
pub(crate) struct Ends {
    pub x: Source,
    pub from: Vec<Option<i64>>,
    pub to: Vec<Option<i64>>,
}

impl Ends {
    pub fn of(cx: &RuleContext<'_>, x: Value, y: Value, rank: usize) -> Result<Self, Reason> {
        Ok(Ends {
            x: Source::Value(x),
            from: spatial(cx, x, rank)?,
            to: spatial(cx, y, rank)?,
        })
    }
}

/// The spatial sizes of a value, as far as they are known.
pub(crate) fn spatial(
    cx: &RuleContext<'_>,
    of: Value,
    rank: usize,
) -> Result<Vec<Option<i64>>, Reason> {
    let dims = cx.dims(of)?;
    let spatial = dims.get(2..).filter(|s| s.len() == rank);
    let known = |d: &Dim| d.known().map(|d| d as i64);
    Ok(spatial
        .ok_or(Reason::Malformed)?
        .iter()
        .map(known)
        .collect())
}

/// A window on its way over a value, with the border in numbers.
pub(crate) struct Slide {
    x: Source,
    pub window: Window,
    /// Cells at the beginning of each axis, then at the end of each axis, as many as the last window
    /// reaches.
    pub pads: Vec<i64>,
    /// What the input has beyond the last window, by axis; `None` if sizes are dynamic.
    rest: Vec<Option<i64>>,
}

impl Slide {
    /// The window from `x` to `y`; with `ceil` the last one may extend beyond the border.
    pub fn of(
        cx: &RuleContext<'_>,
        window: &Window,
        x: Value,
        y: Value,
        ceil: bool,
    ) -> Result<Self, Reason> {
        let ends = Ends::of(cx, x, y, window.rank())?;
        let open = || Reason::UnknownShape(cx.graph.value_name(x).to_owned());
        Self::between(window, &ends, ceil).ok_or_else(open)
    }

    /// As [`Slide::of`]; `None` where too few sizes are known.
    pub fn between(window: &Window, ends: &Ends, ceil: bool) -> Option<Self> {
        let rank = window.rank();
        let Ends { x, from, to } = ends;
        let (mut pads, mut rest) = (vec![0; 2 * rank], vec![None; rank]);
        for axis in 0..rank {
            let (stride, extent) = (window.strides[axis], extent(window, axis));
            let (begin, end) = border(window, axis, from[axis])?;
            (pads[axis], pads[rank + axis]) = (begin, end);
            if let (Some(from), Some(to)) = (from[axis], to[axis]) {
                let left = from + begin + end - (stride * (to - 1) + extent);
                // A window beyond the border needs that much more border.
                pads[rank + axis] -= left.min(0);
                rest[axis] = Some(left.max(0));
            } else if ceil && stride > 1 {
                return None;
            } else if stride == 1 {
                rest[axis] = Some(0);
            }
        }
        let mut window = window.clone();
        window.padding = Padding::Explicit(pads.clone());
        Some(Slide {
            x: *x,
            window,
            pads,
            rest,
        })
    }

    /// The transposed convolution with a weight, as large as the input.
    pub fn back(
        &self,
        cx: &mut RuleContext<'_>,
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
        let full = cx.patch.op(grouped(op, group as i64), &[dy, w]);
        if self.rest.iter().all(Option::is_some) {
            return Ok(full);
        }
        cut_to(cx, full, self.x, rank)
    }
}

/// The beginning of a value, as long along each spatial axis as another.
pub(crate) fn cut_to(
    cx: &mut RuleContext<'_>,
    value: Operand,
    like: Source,
    rank: usize,
) -> Result<Operand, Reason> {
    let ends = like.spatial(cx)?;
    let axes: Vec<i64> = (2..2 + rank as i64).collect();
    let [starts, axes] = [vec![0; rank], axes].map(|values| cx.ints(&values));
    Ok(cx.op("Slice", &[value, starts, ends, axes]))
}

/// The spatial sizes of what a window makes of given sizes, as far as they are known: from the type of the
/// value, where it has one.
pub(crate) fn result_sizes(
    cx: &RuleContext<'_>,
    window: &Window,
    from: &[Option<i64>],
    value: Value,
) -> Vec<Option<i64>> {
    let typed = spatial(cx, value, window.rank()).unwrap_or_default();
    let positions = |axis: usize| {
        let (size, stride) = (from[axis]?, window.strides[axis]);
        let border = border(window, axis, Some(size))?;
        let rest = size + border.0 + border.1 - extent(window, axis);
        Some(rest.div_euclid(stride) + 1)
    };
    (0..window.rank())
        .map(|axis| {
            typed
                .get(axis)
                .copied()
                .flatten()
                .or_else(|| positions(axis))
        })
        .collect()
}

/// Cells from the first to the last of a window.
pub(crate) fn extent(window: &Window, axis: usize) -> i64 {
    (window.kernel[axis] - 1) * window.dilations[axis] + 1
}

/// The border of an axis; `None` if it depends on a dynamic size.
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
