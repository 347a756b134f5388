//! Pools over windows, and resizing.

use bcosc_ir::Tensor;
use bcosc_ir::views::{Padding, Pool, PoolKind, Window};

use super::context::malformed;
use super::{Outputs, Reason, RuleContext, Table};
use crate::expr::{Atom, Expr, Fold, Formula, Index, Type, flat};
use crate::program::vars;

pub(super) const RULES: Table = &[
    ("AveragePool", average),
    ("MaxPool", max),
    ("Resize", resize),
    ("Upsample", resize),
];

/// Cells of the border at the beginning and the end of each axis.
pub(super) fn pads(window: &Window, from: &[u64], to: &[u64]) -> Vec<(i64, i64)> {
    let axes = 0..window.rank();
    axes.map(|axis| {
        let extent = (window.kernel[axis] - 1) * window.dilations[axis] + 1;
        let needed = (to[axis] as i64 - 1) * window.strides[axis] + extent - from[axis] as i64;
        let needed = needed.max(0);
        match &window.padding {
            Padding::Explicit(pads) => (pads[axis], pads[axis + window.rank()]),
            Padding::SameUpper => (needed / 2, needed - needed / 2),
            Padding::SameLower => (needed - needed / 2, needed / 2),
        }
    })
    .collect()
}

/// What a window sees at a position: where each cell is, and whether it is inside of the input.
pub(super) fn seen(
    window: &Window,
    pads: &[(i64, i64)],
    from: &[u64],
    at: &[Index],
    cell: &[Index],
) -> (Vec<Index>, Formula) {
    let mut inside = Formula::number(Type::Bool, 1.0);
    let mut places = Vec::new();
    for axis in 0..window.rank() {
        let place = at[axis].times(window.strides[axis]);
        let place = place.plus(&cell[axis].times(window.dilations[axis]));
        let place = place.offset(-pads[axis].0);
        inside = inside.and(Formula::within(place.clone(), 0, from[axis] as i64));
        places.push(place);
    }
    (places, inside)
}

fn max(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let pool = Pool::of(cx.graph, cx.node);
    let Some(Pool { window, .. }) = pool else {
        return malformed("attributes of the window");
    };
    let (x, dims) = (cx.operand(0)?, cx.result()?);
    let own = cx.dims(x);
    if own.len() != window.rank() + 2 || dims.len() != own.len() {
        return malformed("the window has another rank");
    }
    let pads = pads(&window, &own[2..], &dims[2..]);
    let at = vars(&dims);
    let largest = cx.fold_over(Fold::Max, &window.kernel, |cx, cell| {
        let (places, inside) = seen(&window, &pads, &own[2..], &at[2..], cell);
        let element = cx.load(x, [&at[..2], &places].concat());
        let least = element.like(Fold::Max.neutral(element.ty()));
        inside.select(element, least)
    });
    let y = cx.map(&dims, largest);
    if !cx.is_used(1) {
        return Ok(vec![Some(y)]);
    }
    if cx.attribute::<i64>("storage_order")? != 0 {
        return Err(Reason::Form("MaxPool with indices in column-major order"));
    }
    let best = cx.element(y);
    let none = own.iter().product::<u64>() as f64;
    let first = cx.fold_over(Fold::Min, &window.kernel, |cx, cell| {
        let (places, inside) = seen(&window, &pads, &own[2..], &at[2..], cell);
        let from = [&at[..2], &places].concat();
        let hit = inside.and(cx.load(x, from.clone()).equals(best.clone()));
        let number = Formula::position(flat(&from, &own)).cast(Type::I64);
        let none = number.like(none);
        hit.select(number, none)
    });
    let indices = cx.map(&dims, first);
    Ok(vec![Some(y), Some(indices)])
}

fn average(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let pool = Pool::of(cx.graph, cx.node);
    let Some(Pool {
        window,
        kind: PoolKind::Average { count_padding },
        ..
    }) = pool
    else {
        return malformed("attributes of the window");
    };
    let (x, dims) = (cx.operand(0)?, cx.result()?);
    let own = cx.dims(x);
    if own.len() != window.rank() + 2 || dims.len() != own.len() {
        return malformed("the window has another rank");
    }
    let pads = pads(&window, &own[2..], &dims[2..]);
    let whole = (0..window.rank()).all(|axis| {
        pads[axis] == (0, 0)
            && window.dilations[axis] == 1
            && window.kernel[axis] == own[axis + 2] as i64
    });
    if whole {
        let axes: Vec<usize> = (2..own.len()).collect();
        let element = cx.element(x);
        let mean = cx.mean(&own, &axes, element);
        return Ok(vec![Some(mean)]);
    }
    let at = vars(&dims);
    let sum = cx.fold_over(Fold::Sum, &window.kernel, |cx, cell| {
        let (places, inside) = seen(&window, &pads, &own[2..], &at[2..], cell);
        let element = cx.load(x, [&at[..2], &places].concat());
        let zero = element.like(0.0);
        inside.select(element, zero)
    });
    // The border counts, but not what a last window has beyond it.
    let border = |axis: usize| match count_padding {
        true => pads[axis],
        false => (0, 0),
    };
    let ty = sum.ty();
    let counted = (0..window.rank()).map(|axis| {
        let (before, after) = border(axis);
        let count = cx.fold_over(Fold::Sum, &[window.kernel[axis]], |_, cell| {
            let place = at[axis + 2].times(window.strides[axis]);
            let place = place.plus(&cell[0].times(window.dilations[axis]));
            let place = place.offset(-pads[axis].0);
            let inside = Formula::within(place, -before, own[axis + 2] as i64 + after);
            inside.cast(ty)
        });
        match &*count.0 {
            Expr::Loop(_, _, body) if body.as_number().is_some() => {
                Formula::number(ty, window.kernel[axis] as f64)
            }
            _ => count,
        }
    });
    let counted = counted.reduce(|x, y| match (x.0.as_number(), y.0.as_number()) {
        (Some(a), Some(b)) => Formula::number(ty, a.as_f64() * b.as_f64()),
        _ => x * y,
    });
    let Some(count) = counted else {
        return malformed("the window has no axes");
    };
    cx.output(&dims, sum / count)
}

/// Each output element is a weighted sum of a few input elements along every axis that is resized. Sizes are known, so
/// places and weights are constants.
fn resize(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let (x, dims) = (cx.operand(0)?, cx.result()?);
    let own = cx.dims(x);
    let text = |name: &str, default: &str| cx.given::<&str>(name).unwrap_or(default).to_owned();
    // Opset 10 has neither attribute, and means the simplest of both.
    let simple = cx.opset < 11;
    let how = How {
        mode: text("mode", "nearest"),
        coordinates: text(
            "coordinate_transformation_mode",
            if simple { "asymmetric" } else { "half_pixel" },
        ),
        nearest: text(
            "nearest_mode",
            if simple {
                "floor"
            } else {
                "round_prefer_floor"
            },
        ),
        cubic: cx.given::<f32>("cubic_coeff_a").unwrap_or(-0.75).into(),
        excludes: cx.given("exclude_outside").unwrap_or(false),
    };
    let antialias: bool = cx.given("antialias").unwrap_or(false);
    if antialias || how.coordinates == "tf_crop_and_resize" || cx.given::<&[i64]>("axes").is_some()
    {
        return Err(Reason::Form("this mode of Resize"));
    }
    let slot = if cx.opset < 11 { 1 } else { 2 };
    let scales = match cx.optional(slot) {
        Some(id) if cx.dims(id) == [own.len() as u64] => cx.floats(slot)?,
        _ => Vec::new(),
    };
    let mut at = vars(&dims);
    let mut weights = Vec::new();
    let mut loops = Vec::new();
    for axis in 0..own.len() {
        if own[axis] == dims[axis] {
            continue;
        }
        let scale = scales.get(axis).copied();
        let scale = scale.unwrap_or(dims[axis] as f64 / own[axis] as f64);
        // Whether corners are those of the whole size or of the fraction, implementations do not agree.
        let size = scale * own[axis] as f64;
        if how.coordinates == "align_corners" && (size - size.round()).abs() > 1e-3 {
            return Err(Reason::Form(
                "Resize with aligned corners to a fraction of a size",
            ));
        }
        let taps = how.taps(own[axis] as i64, dims[axis] as i64, scale)?;
        let count = taps.first().map_or(0, Vec::len) as u64;
        let sizes = [dims[axis], count];
        let (places, factors): (Vec<i64>, Vec<f64>) = taps.into_iter().flatten().unzip();
        let name = cx.name.clone();
        let places = cx
            .program
            .constant(&name, Type::I64, Tensor::i64s(&sizes, places));
        let (number, tap) = cx.program.loop_var(count as i64);
        let row = vec![at[axis].clone(), tap];
        let place = cx.load(places, row.clone());
        at[axis] = Atom::Value(place.0, own[axis] as i64).into();
        if count > 1 {
            loops.push((number, count as i64));
            let ty = cx.ty(x);
            let factors = Tensor::floats(ty.data_type(), &sizes, &factors);
            let factors = factors.ok_or(Reason::Type(ty.data_type()))?;
            let factors = cx.program.constant(&name, ty, factors);
            weights.push(cx.load(factors, row));
        }
    }
    let element = cx.load(x, at);
    let weighted = weights
        .into_iter()
        .fold(element, |product, weight| product * weight);
    let sum = match loops.is_empty() {
        true => weighted,
        false => Expr::Loop(Fold::Sum, loops, weighted.0).into(),
    };
    cx.output(&dims, sum)
}

struct How {
    mode: String,
    coordinates: String,
    nearest: String,
    cubic: f64,
    excludes: bool,
}

impl How {
    /// For each output position along an axis: input positions and their weights.
    fn taps(&self, from: i64, to: i64, scale: f64) -> Result<Vec<Vec<(i64, f64)>>, Reason> {
        (0..to)
            .map(|place| self.taps_at(self.source(place as f64, from, to, scale)?, from))
            .collect()
    }

    /// The position in the input of one in the output.
    fn source(&self, place: f64, from: i64, to: i64, scale: f64) -> Result<f64, Reason> {
        let (long, short) = (from as f64, to as f64);
        Ok(match self.coordinates.as_str() {
            "half_pixel" => (place + 0.5) / scale - 0.5,
            "half_pixel_symmetric" => {
                let adjustment = short / (scale * long);
                let center = long / 2.0;
                center * (1.0 - adjustment) + (place + 0.5) / scale - 0.5
            }
            "pytorch_half_pixel" if to == 1 => 0.0,
            "pytorch_half_pixel" => (place + 0.5) / scale - 0.5,
            "align_corners" if to == 1 => 0.0,
            "align_corners" => place * (long - 1.0) / (short - 1.0),
            "asymmetric" => place / scale,
            _ => return Err(Reason::Form("this coordinate transformation of Resize")),
        })
    }

    fn taps_at(&self, source: f64, from: i64) -> Result<Vec<(i64, f64)>, Reason> {
        let inside = |place: i64| place.clamp(0, from - 1);
        let floor = source.floor();
        let rest = source - floor;
        let base = floor as i64;
        let a = self.cubic;
        Ok(match self.mode.as_str() {
            "nearest" => {
                let place = match self.nearest.as_str() {
                    "round_prefer_floor" if rest <= 0.5 => floor,
                    "round_prefer_floor" | "ceil" => source.ceil(),
                    "round_prefer_ceil" if rest >= 0.5 => source.ceil(),
                    "round_prefer_ceil" | "floor" => floor,
                    _ => return Err(Reason::Form("this mode of rounding of Resize")),
                };
                vec![(inside(place as i64), 1.0)]
            }
            "linear" => {
                let source = source.clamp(0.0, (from - 1) as f64);
                let rest = source - source.floor();
                let base = source.floor() as i64;
                vec![(base, 1.0 - rest), (inside(base + 1), rest)]
            }
            "cubic" => {
                let near = |t: f64| ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0;
                let far = |t: f64| ((a * t - 5.0 * a) * t + 8.0 * a) * t - 4.0 * a;
                let curve = [
                    far(rest + 1.0),
                    near(rest),
                    near(1.0 - rest),
                    far(2.0 - rest),
                ];
                let mut taps: Vec<(i64, f64)> = (base - 1..).zip(curve).collect();
                if self.excludes {
                    let out = |place: i64| place != inside(place);
                    taps.iter_mut()
                        .filter(|(p, _)| out(*p))
                        .for_each(|(_, w)| *w = 0.0);
                    let sum: f64 = taps.iter().map(|(_, w)| w).sum();
                    taps.iter_mut().for_each(|(_, w)| *w /= sum);
                }
                taps.into_iter().map(|(p, w)| (inside(p), w)).collect()
            }
            _ => return Err(Reason::Form("this mode of Resize")),
        })
    }
}
