//! `GridSample`: each sample is a sum of elements around a coordinate v, with weights.
//!
//! ```text
//! v = ((g + 1) size - 1) / 2, or with align_corners (g + 1) / 2 (size - 1)
//! nearest   round (v)
//! linear    floor (v) + 0, 1            weight 1 - |v - index|
//! cubic     floor (v) - 1, 0, 1, 2      weight from |v - index|, a = -3/4
//! ```
//!
//! Outside of x, elements count nothing (`zeros`), or coordinates and elements are brought inside (`border`, `reflection`).

use super::context::malformed;
use super::{Outputs, Reason, RuleContext, Table};
use crate::expr::{Atom, Fold, Formula, Index, Type, Unary};
use crate::program::vars;

pub(super) const RULES: Table = &[("GridSample", grid_sample)];

/// The coefficient of cubic interpolation.
const CUBIC: f64 = -0.75;

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

impl Mode {
    /// How many elements along an axis, and how many of them are before the coordinate.
    fn taps(self) -> (i64, f64) {
        match self {
            Mode::Nearest => (1, 0.0),
            Mode::Linear => (2, 0.0),
            Mode::Cubic => (4, 1.0),
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Outside {
    Zeros,
    Border,
    Reflection,
}

fn grid_sample(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let (x, grid) = (cx.operand(0)?, cx.operand(1)?);
    let (own, of_grid) = (cx.dims(x), cx.dims(grid));
    let rank = own.len().saturating_sub(2);
    let fits = own.len() == of_grid.len() && of_grid.last() == Some(&(rank as u64));
    if rank == 0 || !fits || of_grid[0] != own[0] {
        return malformed("the grid does not fit");
    }
    let mode = match cx.attribute("mode")? {
        "nearest" => Mode::Nearest,
        "linear" | "bilinear" => Mode::Linear,
        "cubic" | "bicubic" => Mode::Cubic,
        _ => return malformed("attribute `mode`"),
    };
    let outside = match cx.attribute("padding_mode")? {
        "zeros" => Outside::Zeros,
        "border" => Outside::Border,
        "reflection" => Outside::Reflection,
        _ => return malformed("attribute `padding_mode`"),
    };
    let corners: bool = cx.attribute("align_corners")?;
    let dims = [&own[..2], &of_grid[1..=rank]].concat();
    let at = vars(&dims);
    let (taps, before) = mode.taps();
    let sum = cx.fold_over(Fold::Sum, &vec![taps; rank], |cx, cell| {
        let mut places = at[..2].to_vec();
        let mut weight: Option<Formula> = None;
        for axis in 0..rank {
            // The last coordinate is that of the first axis.
            let coordinate = Index::number((rank - 1 - axis) as i64);
            let row = [&at[..1], &at[2..], &[coordinate]].concat();
            let line = Line {
                size: own[2 + axis] as f64,
                corners,
            };
            let v = line.coordinate(cx.load(grid, row), mode, outside);
            let tap = match mode {
                Mode::Nearest => v.clone(),
                _ => {
                    let number = Formula::position(cell[axis].clone()).cast(v.ty());
                    v.clone().unary(Unary::Floor) + (number - before)
                }
            };
            let share = line.share(&v, &tap, mode, outside);
            weight = match (weight, share) {
                (Some(a), Some(b)) => Some(a * b),
                (a, b) => a.or(b),
            };
            places.push(line.place(tap, outside));
        }
        let element = cx.load(x, places);
        match weight {
            Some(weight) => {
                let weight = weight.cast(element.ty());
                // What counts nothing may be infinite.
                let none = weight.clone().equals(weight.like(0.0));
                let zero = element.like(0.0);
                none.select(zero, element * weight)
            }
            None => element,
        }
    });
    cx.output(&dims, sum)
}

/// An axis of x.
struct Line {
    size: f64,
    corners: bool,
}

impl Line {
    /// From [-1, 1] to indices.
    fn coordinate(&self, g: Formula, mode: Mode, outside: Outside) -> Formula {
        let v = match self.corners {
            true => (g + 1.0) / 2.0 * (self.size - 1.0),
            false => ((g + 1.0) * self.size - 1.0) / 2.0,
        };
        let v = match mode {
            Mode::Nearest => v.unary(Unary::Rint),
            _ => v,
        };
        match (mode, outside) {
            // Each element of its own, as ONNX Runtime and PyTorch have it.
            (Mode::Cubic, _) | (_, Outside::Zeros) => v,
            (_, Outside::Border) => v.clamp(0.0, self.size - 1.0),
            (_, Outside::Reflection) => self.reflected(v),
        }
    }

    /// The weight of an element; none if it is 1.
    fn share(&self, v: &Formula, tap: &Formula, mode: Mode, outside: Outside) -> Option<Formula> {
        let distance = (v.clone() - tap.clone()).abs();
        let weight = match mode {
            Mode::Nearest => None,
            Mode::Linear => Some(distance.like(1.0) - distance),
            Mode::Cubic => Some(cubic(&distance)),
        };
        if outside != Outside::Zeros {
            return weight;
        }
        let low = tap.like(0.0).at_most(tap.clone());
        let inside = low.and(tap.clone().at_most(tap.like(self.size - 1.0)));
        let weight = weight.unwrap_or_else(|| tap.like(1.0));
        let zero = weight.like(0.0);
        Some(inside.select(weight, zero))
    }

    /// Where an element is; what is outside, or no number, is brought inside.
    fn place(&self, tap: Formula, outside: Outside) -> Index {
        let tap = match outside {
            Outside::Reflection => self.reflected(tap),
            _ => tap,
        };
        let whole = tap.cast(Type::I64).clamp(0.0, self.size - 1.0);
        match whole.0.as_number() {
            Some(number) => Index::number(number.as_i64()),
            None => Atom::Value(whole.0, self.size as i64).into(),
        }
    }

    /// Coordinates as two mirrors at the first and the last that are inside show them: with m = v - low modulo twice their
    /// distance s, `low + s - |m - s|`.
    fn reflected(&self, v: Formula) -> Formula {
        let (low, high) = match self.corners {
            true => (0.0, self.size - 1.0),
            false => (-0.5, self.size - 0.5),
        };
        let span = high - low;
        // One element between two corners is where all coordinates go.
        let period = (2.0 * span).max(1.0);
        let from_low = v - low;
        let turns = (from_low.clone() / period).unary(Unary::Floor) * period;
        let m = from_low - turns;
        let apart = (m - span).abs();
        apart.like(span) - apart + low
    }
}

/// `((a+2)d - (a+3)) d^2 + 1` up to a distance of 1, then `((a d - 5a) d + 8a) d - 4a`.
fn cubic(d: &Formula) -> Formula {
    let a = CUBIC;
    let polynomial = |coefficients: [f64; 4]| {
        let [first, rest @ ..] = coefficients;
        let start = d.like(first);
        rest.into_iter().fold(start, |sum, c| sum * d.clone() + c)
    };
    let near = polynomial([a + 2.0, -(a + 3.0), 0.0, 1.0]);
    let far = polynomial([a, -5.0 * a, 8.0 * a, -4.0 * a]);
    d.like(1.0).less(d.clone()).select(far, near)
}
