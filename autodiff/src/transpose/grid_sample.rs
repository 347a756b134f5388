//! `GridSample`: each sample is a sum of pixels, with weights that only the grid decides.
//!
//! ```text
//! y[j] = sum over taps of weight * x[index]
//! s_x  = ScatterElements <add> (0, index, weight * s_y)
//! ```
//!
//! The taps of an axis lie around a coordinate v of x:
//!
//! ```text
//! v = ((g + 1) size - 1) / 2, or with align_corners (g + 1) / 2 (size - 1)
//! nearest   round (v)
//! linear    floor (v) + 0, 1            weight 1 - |v - index|
//! cubic     floor (v) - 1, 0, 1, 2      weight from |v - index|, a = -3/4
//! ```
//!
//! Several axes have the product of their taps, each on a dimension of its own: `[batch, taps..., samples]`.
//! Outside of x, taps count nothing (`zeros`), or coordinates and taps are brought inside (`border`,
//! `reflection`).

use bcosc_ir::{Attribute, DataType, Operand, Tensor, Value};

use super::indexing;
use crate::context::{Found, RuleContext};
use bcosc_passes::Reason;
use bcosc_passes::analysis::weights;

/// The coefficient of cubic interpolation.
const CUBIC: f64 = -0.75;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outside {
    Zeros,
    Border,
    Reflection,
}

pub(crate) fn grid_sample(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x, grid) = (cx.dy()?, cx.operand(0)?, cx.operand(1)?);
    let rank = cx.dims(x)?.len().saturating_sub(2);
    let mode = match cx.op.get_at("mode", cx.opset).ok_or(Reason::Malformed)? {
        "nearest" => Mode::Nearest,
        "linear" | "bilinear" => Mode::Linear,
        "cubic" | "bicubic" if rank == 2 => Mode::Cubic,
        "cubic" | "bicubic" => {
            return Err(Reason::NoBackwardRuleFor(
                "a GridSample with mode cubic of other than two axes",
            ));
        }
        _ => return Err(Reason::NoBackwardRule),
    };
    let outside = match cx.attribute("padding_mode")? {
        "zeros" => Outside::Zeros,
        "border" => Outside::Border,
        "reflection" => Outside::Reflection,
        _ => return Err(Reason::NoBackwardRule),
    };
    if rank == 0 {
        return Err(Reason::Malformed);
    }
    let samples = cx.reshape(grid.into(), &[0, -1, rank as i64]);
    let mut index: Option<Operand> = None;
    let mut weight: Option<Operand> = None;
    for axis in 0..rank {
        // The last coordinate is that of the first axis.
        let place = Tensor::i64s(&[], vec![(rank - 1 - axis) as i64]);
        let place = cx.patch.parameter("place", place);
        let along = Attribute::int("axis", 2);
        let g = cx.op_with("Gather", &[samples, place], [along]);
        let taps: Vec<i64> = (1..=rank as i64).collect();
        let g = cx.unsqueeze(g, &taps);
        let size = cx.size(x, 2 + axis);
        let line = Line::of(cx, grid, size, [axis, rank]);
        let v = line.coordinate(cx, g);
        let (place, share) = line.taps(cx, v, mode, outside);
        index = Some(match index {
            None => place,
            Some(before) => {
                let rows = cx.mul(before, size);
                cx.op("Add", &[rows, place])
            }
        });
        weight = match (weight, share) {
            (Some(a), Some(b)) => Some(cx.mul(a, b)),
            (a, b) => a.or(b),
        };
    }
    let index = index.ok_or(Reason::Malformed)?;
    let mut parts = cx.reshape(dy, &[0, 0, 1, -1]);
    if let Some(weight) = weight {
        let weight = match cx.dtype(grid) == cx.dtype(x) {
            true => weight,
            false => cx.cast(weight, cx.dtype(x)),
        };
        let shape = cx.op("Shape", &[parts]);
        let samples = cx.slice(shape, &[0], &[3], &[i64::MAX]);
        let front = cx.ints(&[0, 1, -1]);
        let front = cx.op_with("Concat", &[front, samples], [Attribute::int("axis", 0)]);
        let weight = cx.op("Reshape", &[weight, front]);
        parts = cx.mul(parts, weight);
    }
    let parts = cx.reshape(parts, &[0, 0, -1]);
    let index = cx.reshape(index, &[0, 1, -1]);
    let shape = cx.op("Shape", &[parts]);
    let index = cx.op("Expand", &[index, shape]);
    let zeros = indexing::zeros(cx, x);
    let flat = cx.reshape(zeros, &[0, 0, -1]);
    let axis = Attribute::int("axis", 2);
    let sums = indexing::added(cx, "ScatterElements", [flat, index, parts], Some(axis))?;
    Ok(vec![(0, cx.reshape_like(sums, x))])
}

/// An axis of x, in numbers of the grid's type.
struct Line {
    grid: Value,
    /// Dimensions that taps of this axis take: its place, and how many there are.
    place: [usize; 2],
    size: Operand,
    /// The index of the last element.
    last: Operand,
    corners: bool,
}

impl Line {
    fn of(cx: &mut RuleContext<'_>, grid: Value, size: Operand, place: [usize; 2]) -> Self {
        let size = cx.cast(size, cx.dtype(grid));
        let one = cx.number(grid, 1.0);
        let last = cx.op("Sub", &[size, one]);
        let corners = cx.op.get("align_corners") == Some(true);
        Line {
            grid,
            place,
            size,
            last,
            corners,
        }
    }

    fn number(&self, cx: &mut RuleContext<'_>, x: f64) -> Operand {
        cx.number(self.grid, x)
    }

    /// From [-1, 1] to indices.
    fn coordinate(&self, cx: &mut RuleContext<'_>, g: Operand) -> Operand {
        let [one, two] = [1.0, 2.0].map(|n| self.number(cx, n));
        let g = cx.op("Add", &[g, one]);
        if self.corners {
            let half = cx.div(g, two);
            return cx.mul(half, self.last);
        }
        let wide = cx.mul(g, self.size);
        let wide = cx.op("Sub", &[wide, one]);
        cx.div(wide, two)
    }

    /// Indices of taps as integers, and their weights; `None` if all are 1.
    fn taps(
        &self,
        cx: &mut RuleContext<'_>,
        v: Operand,
        mode: Mode,
        outside: Outside,
    ) -> (Operand, Option<Operand>) {
        let v = match mode {
            Mode::Nearest => cx.op("Round", &[v]),
            _ => v,
        };
        let v = match (mode, outside) {
            // Each tap of its own, as ONNX Runtime and PyTorch have it.
            (Mode::Cubic, _) | (_, Outside::Zeros) => v,
            (_, Outside::Border) => self.clamped(cx, v),
            (_, Outside::Reflection) => self.reflected(cx, v),
        };
        let (taps, weight) = match mode {
            Mode::Nearest => (v, None),
            Mode::Linear => {
                let taps = self.around(cx, v, &[0.0, 1.0]);
                let distance = distance(cx, v, taps);
                let one = self.number(cx, 1.0);
                (taps, Some(cx.op("Sub", &[one, distance])))
            }
            Mode::Cubic => {
                let taps = self.around(cx, v, &[-1.0, 0.0, 1.0, 2.0]);
                let distance = distance(cx, v, taps);
                (taps, Some(self.cubic(cx, distance)))
            }
        };
        let weight = match outside {
            Outside::Zeros => Some(self.inside(cx, taps, weight)),
            _ => weight,
        };
        let taps = match outside {
            Outside::Reflection => self.reflected(cx, taps),
            _ => taps,
        };
        let taps = self.clamped(cx, taps);
        (cx.cast(taps, DataType::Int64), weight)
    }

    /// The taps at offsets from a coordinate rounded down, on their own dimension.
    fn around(&self, cx: &mut RuleContext<'_>, v: Operand, offsets: &[f64]) -> Operand {
        let [axis, rank] = self.place;
        let mut dims = vec![1; rank + 2];
        dims[1 + axis] = offsets.len() as u64;
        let offsets = weights::tensor(cx.dtype(self.grid), &dims, offsets);
        let offsets = cx.patch.parameter("taps", offsets);
        let floor = cx.op("Floor", &[v]);
        cx.op("Add", &[floor, offsets])
    }

    /// Weights, 0 where a tap is not in x.
    fn inside(&self, cx: &mut RuleContext<'_>, taps: Operand, weight: Option<Operand>) -> Operand {
        let clamped = self.clamped(cx, taps);
        let inside = cx.op("Equal", &[taps, clamped]);
        match weight {
            None => cx.cast(inside, cx.dtype(self.grid)),
            Some(weight) => {
                let zero = self.number(cx, 0.0);
                cx.op("Where", &[inside, weight, zero])
            }
        }
    }

    fn clamped(&self, cx: &mut RuleContext<'_>, v: Operand) -> Operand {
        let zero = self.number(cx, 0.0);
        let v = cx.op("Max", &[v, zero]);
        cx.op("Min", &[v, self.last])
    }

    /// The first and the last coordinate that count as inside.
    fn bounds(&self, cx: &mut RuleContext<'_>) -> [Operand; 2] {
        if self.corners {
            return [self.number(cx, 0.0), self.last];
        }
        let half = self.number(cx, 0.5);
        [self.number(cx, -0.5), cx.op("Sub", &[self.size, half])]
    }

    /// Coordinates as two mirrors at the bounds show them: with m = v - low modulo twice their distance s,
    /// `low + s - |m - s|`.
    fn reflected(&self, cx: &mut RuleContext<'_>, v: Operand) -> Operand {
        let [low, high] = self.bounds(cx);
        let span = cx.op("Sub", &[high, low]);
        let [one, two] = [1.0, 2.0].map(|n| self.number(cx, n));
        let period = cx.mul(span, two);
        // One element between two corners is where all coordinates go.
        let period = cx.op("Max", &[period, one]);
        let from_low = cx.op("Sub", &[v, low]);
        let turns = cx.div(from_low, period);
        let turns = cx.op("Floor", &[turns]);
        let turns = cx.mul(turns, period);
        let m = cx.op("Sub", &[from_low, turns]);
        let apart = cx.op("Sub", &[m, span]);
        let apart = cx.op("Abs", &[apart]);
        let inside = cx.op("Sub", &[span, apart]);
        cx.op("Add", &[inside, low])
    }

    /// `((a+2)d - (a+3)) d^2 + 1` up to a distance of 1, then `((a d - 5a) d + 8a) d - 4a`.
    fn cubic(&self, cx: &mut RuleContext<'_>, d: Operand) -> Operand {
        let a = CUBIC;
        let polynomial = |cx: &mut RuleContext<'_>, coefficients: [f64; 4]| {
            let [first, rest @ ..] = coefficients.map(|c| self.number(cx, c));
            rest.into_iter().fold(first, |sum, c| {
                let product = cx.mul(sum, d);
                cx.op("Add", &[product, c])
            })
        };
        let near = polynomial(cx, [a + 2.0, -(a + 3.0), 0.0, 1.0]);
        let far = polynomial(cx, [a, -5.0 * a, 8.0 * a, -4.0 * a]);
        let one = self.number(cx, 1.0);
        let is_far = cx.op("Greater", &[d, one]);
        cx.op("Where", &[is_far, far, near])
    }
}

fn distance(cx: &mut RuleContext<'_>, v: Operand, taps: Operand) -> Operand {
    let apart = cx.op("Sub", &[v, taps]);
    cx.op("Abs", &[apart])
}
