//! Convolutions whose weights are all equal, with one output channel for each group: the sums of B-cos norms.

use super::RuleContext;
use super::convolutions::Sizes;
use super::windows::seen;
use crate::expr::{Fold, Formula, Index, Number, TensorId, Type};
use crate::program::vars;

/// The sum over the window costs a thread so many turns at most.
const TURNS: i64 = 128;

/// `weight * sum of x over the window and the group's channels`, where each group has one output channel.
pub(super) fn window_sum(
    cx: &mut RuleContext<'_>,
    x: TensorId,
    sizes: &Sizes,
    weight: Number,
) -> Option<TensorId> {
    let (y, per_group) = (&sizes.y, sizes.w[1]);
    if sizes.w[0] != sizes.groups || !cx.ty(x).is_float() {
        return None;
    }
    let scaled = |sum: Formula| sum * weight.as_f64();
    if sizes.window.cells() == 1 && sizes.pads.iter().all(|&pads| pads == (0, 0)) {
        // [N, groups, channels of a group, spatial...]
        let full = [&y[..2], &[per_group], &y[2..]].concat();
        let at = vars(&full);
        let channel = at[1].times(per_group as i64).plus(&at[2]);
        let places = at[3..].iter().zip(&sizes.window.strides);
        let places: Vec<Index> = places.map(|(index, &step)| index.times(step)).collect();
        let element = cx.load(x, [&[at[0].clone(), channel], &places[..]].concat());
        let sum = cx.reduced(Fold::Sum, &full, &[2], element);
        let sum = cx.program.view(sum, y);
        let sum = scaled(cx.element(sum));
        return Some(cx.map(y, sum));
    }
    if per_group != 1 || sizes.window.cells() > TURNS {
        return None;
    }
    let at = vars(y);
    let sum = cx.fold_over(Fold::Sum, &sizes.window.kernel, |cx, cell| {
        let (places, inside) = seen(&sizes.window, &sizes.pads, &sizes.x[2..], &at[2..], cell);
        let element = cx.load(x, [&at[..2], &places].concat());
        let zero = element.like(0.0);
        inside.select(element, zero)
    });
    Some(cx.map(y, scaled(sum)))
}

/// `weight * sum of dy over the positions whose window sees x`, where each group has one output channel.
pub(super) fn window_spread(
    cx: &mut RuleContext<'_>,
    dy: TensorId,
    sizes: &Sizes,
    weight: Number,
) -> Option<TensorId> {
    let window = &sizes.window;
    if sizes.w[0] != sizes.groups || window.cells() > TURNS || !cx.ty(dy).is_float() {
        return None;
    }
    let at = vars(&sizes.x);
    let group = at[1].over(sizes.w[1] as i64);
    let sum = cx.fold_over(Fold::Sum, &window.kernel, |cx, cell| {
        let mut sees = Formula::number(Type::Bool, 1.0);
        let mut places = Vec::new();
        for axis in 0..window.rank() {
            let step = window.strides[axis];
            let ahead = at[axis + 2].offset(sizes.pads[axis].0);
            let ahead = ahead.plus(&cell[axis].times(-window.dilations[axis]));
            let reach = step * (sizes.y[axis + 2] as i64 - 1) + 1;
            sees = sees.and(Formula::within(ahead.clone(), 0, reach));
            if step > 1 {
                sees = sees.and(Formula::within(ahead.modulo(step), 0, 1));
            }
            places.push(ahead.over(step));
        }
        let element = cx.load(dy, [&[at[0].clone(), group.clone()], &places[..]].concat());
        let zero = element.like(0.0);
        sees.select(element, zero)
    });
    Some(cx.map(&sizes.x, sum * weight.as_f64()))
}
