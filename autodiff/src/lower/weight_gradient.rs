//! The gradient of a convolution with respect to its weight.
//!
//! ```text
//! dw[o, c, k] = sum over n, p of dy[n, o, p] x[n, c, p * stride + k * dilation - pad]
//! ```
//!
//! For each cell k of the window, the elements of x that it sees are a strided slice, and dw a product of two
//! matrices:
//!
//! | form | where | product |
//! |---|---|---|
//! | [`Form::Images`] | `P >= 500` positions | `[N, O, P] x [N, P, C]` for each cell, and a sum over the images |
//! | [`Form::Rows`] | fewer, or not known | `[O, N P] x [N P, C]` for each cell |
//! | [`Form::Elements`] | one channel per group | elements for each cell, and a sum |
//! | [`Form::Patches`] | windows side by side, of 4 cells or more along the last axis | `[O, N P] x [N P, C cells]` |
//! | [`Form::Swapped`] | up to 8 channels, steps of 2 or more, 25 cells or more | one convolution of x with dy: batch and channels swapped, strides and dilations swapped |
//!
//! The channels of x are moved to the end once, so that slices copy whole vectors. `benches/weight_gradient.py` has
//! the measurements behind the limits.

mod cells;
mod products;

#[cfg(test)]
mod tests;

use bcosc_ir::Operand;
use bcosc_ir::views::Window;
use bcosc_passes::Reason;
use bcosc_passes::dialect::ConvWeightGradient;

use crate::context::RuleContext;
use crate::transpose::window::{Ends, Slide, Source, result_sizes, spatial};

/// From so many positions on, a product for each image is faster than one of all images.
const POSITIONS: i64 = 500;
/// Up to so many channels, and from so many cells on, a convolution is faster than a product for each cell.
const CHANNELS: i64 = 8;
const CELLS: i64 = 25;
/// From so many cells on along the last axis, elements of patches are worth moving.
const RUN: i64 = 4;

/// How a gradient is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Images,
    Rows,
    Elements,
    Patches,
    Swapped,
}

/// A gradient with its sizes.
struct Gradient<'a> {
    x: Operand,
    dy: Operand,
    window: &'a Window,
    group: i64,
    /// Sizes of the weight.
    dims: Vec<i64>,
    /// The border in numbers, at the beginning of each axis, then at the end; `None` if it depends on open sizes.
    pads: Option<Vec<i64>>,
    /// Spatial sizes of x and dy.
    from: Vec<Option<i64>>,
    to: Vec<Option<i64>>,
}

pub(super) fn lower(
    cx: &mut RuleContext<'_>,
    gradient: &ConvWeightGradient,
) -> Result<Operand, Reason> {
    let window = &gradient.window;
    let rank = window.rank();
    let from = spatial(cx, gradient.x, rank).unwrap_or_else(|_| vec![None; rank]);
    let ends = Ends {
        x: Source::Value(gradient.x),
        to: result_sizes(cx, window, &from, gradient.dy),
        from,
    };
    let gradient = Gradient {
        x: gradient.x.into(),
        dy: gradient.dy.into(),
        window,
        group: gradient.group as i64,
        dims: cx.known_dims(cx.y())?,
        pads: Slide::between(window, &ends, false).map(|slide| slide.pads),
        from: ends.from,
        to: ends.to,
    };
    if gradient.dims.len() != rank + 2 || gradient.group == 0 {
        return Err(Reason::Malformed);
    }
    Ok(match gradient.form() {
        Form::Images if window.cells() == 1 => gradient.single_cell(cx),
        Form::Images => gradient.products(cx, true),
        Form::Rows => gradient.products(cx, false),
        Form::Elements => gradient.elements(cx),
        Form::Patches => gradient.patches(cx),
        Form::Swapped => gradient.swapped(cx),
    })
}

impl Gradient<'_> {
    fn form(&self) -> Form {
        let window = self.window;
        if self.group > 1 && self.per_group() == 1 {
            return Form::Elements;
        }
        let steps = window.strides.iter().all(|&s| s > 1);
        let run = window.kernel.last().copied().unwrap_or(1);
        if self.group == 1 && self.sized() {
            if run >= RUN && self.side_by_side() {
                return Form::Patches;
            }
            if steps && self.per_group() <= CHANNELS && window.cells() >= CELLS {
                return Form::Swapped;
            }
        }
        let mut to = self.to.iter().copied();
        let positions = to.try_fold(1, |n: i64, size| Some(n.saturating_mul(size?)));
        match positions.is_some_and(|n| n >= POSITIONS) {
            true => Form::Images,
            false => Form::Rows,
        }
    }

    /// Whether all sizes are known, and nothing of x is cut off by its border.
    fn sized(&self) -> bool {
        let known = self.from.iter().chain(&self.to).all(Option::is_some);
        let pads = self.pads.as_ref();
        known && pads.is_some_and(|pads| pads.iter().all(|&pad| pad >= 0))
    }

    /// Whether windows neither overlap nor leave gaps, nor reach beyond the border.
    fn side_by_side(&self) -> bool {
        let window = self.window;
        let single = |axis: usize| self.to[axis] == Some(1);
        let meets = |axis: usize| window.kernel[axis] == window.strides[axis];
        (0..self.rank()).all(|axis| window.dilations[axis] == 1 && (meets(axis) || single(axis)))
            && self.pads.iter().flatten().all(|&pad| pad == 0)
    }

    /// Output channels.
    fn out(&self) -> i64 {
        self.dims[0]
    }

    /// Input channels of a group.
    fn per_group(&self) -> i64 {
        self.dims[1]
    }

    fn rank(&self) -> usize {
        self.window.rank()
    }

    /// Sizes with an axis for groups after `lead`, where there are several.
    fn grouped(&self, lead: &[i64], rest: &[i64]) -> Vec<i64> {
        let group = (self.group > 1).then_some(self.group);
        lead.iter()
            .copied()
            .chain(group)
            .chain(rest.iter().copied())
            .collect()
    }
}
