//! Convolutions and their gradients.
//!
//! | form | becomes |
//! |---|---|
//! | 1x1, stride 1, one group | products of matrices, one for each image |
//! | all weights equal, one output channel for each group (the sums of B-cos norms) | a sum over channels, or over the window |
//! | anything else | a call of the library; a border of two widths is filled up before |

use bcosc_ir::views::Window;
use bcosc_passes::dialect::{ConvInputGradient, ConvWeightGradient};

use super::context::malformed;
use super::windows::{pads, seen};
use super::{Outputs, Reason, RuleContext, Table};
use crate::expr::{Expr, Fold, Formula, Index, Number, TensorId};
use crate::program::{Call, Convolution, Def, Direction, Factor, Product, Tensor, vars};

pub(super) const RULES: Table = &[("Conv", forward), ("ConvTranspose", transposed)];

pub(super) const MARKERS: Table = &[
    ("ConvInputGradient", input_gradient),
    ("ConvWeightGradient", weight_gradient),
];

/// The sum over the window costs a thread so many turns at most.
const TURNS: i64 = 128;

/// A convolution with sizes.
struct Sizes {
    window: Window,
    groups: u64,
    x: Vec<u64>,
    w: Vec<u64>,
    y: Vec<u64>,
    pads: Vec<(i64, i64)>,
}

impl Sizes {
    fn new(window: Window, groups: u64, [x, w, y]: [Vec<u64>; 3]) -> Result<Self, Reason> {
        let rank = window.rank();
        if [&x, &w, &y].iter().any(|dims| dims.len() != rank + 2) || groups == 0 {
            return malformed("the operands have other ranks than the window");
        }
        if w[1] * groups != x[1] || w[0] != y[1] || w[0] % groups != 0 {
            return malformed("the channels do not fit the weight");
        }
        let pads = pads(&window, &x[2..], &y[2..]);
        let sizes = Sizes {
            window,
            groups,
            x,
            w,
            y,
            pads,
        };
        for axis in 0..rank {
            let (before, after) = sizes.pads[axis];
            let room = sizes.x[axis + 2] as i64 + before + after - sizes.extent(axis);
            if room < 0 || room / sizes.window.strides[axis] + 1 != sizes.y[axis + 2] as i64 {
                return malformed("the output has another size than the window makes it");
            }
        }
        Ok(sizes)
    }

    /// What the window spans along an axis.
    fn extent(&self, axis: usize) -> i64 {
        (self.window.kernel[axis] - 1) * self.window.dilations[axis] + 1
    }

    fn pointwise(&self) -> bool {
        self.groups == 1
            && self
                .window
                .kernel
                .iter()
                .chain(&self.window.strides)
                .all(|&n| n == 1)
            && self.pads.iter().all(|&pads| pads == (0, 0))
    }

    fn even(&self) -> bool {
        self.pads
            .iter()
            .all(|(before, after)| before == after && *before >= 0)
    }

    /// The input with its border filled up.
    fn filled(&self) -> Vec<u64> {
        let spatial = self.x[2..].iter().zip(&self.pads);
        let spatial = spatial.map(|(&size, (before, after))| (size as i64 + before + after) as u64);
        self.x[..2].iter().copied().chain(spatial).collect()
    }

    fn call(&self, direction: Direction, operands: [TensorId; 2]) -> Call {
        let sizes = |values: &[i64]| values.iter().map(|&v| v as u64).collect();
        let even = self.even();
        let pads = self
            .pads
            .iter()
            .map(|&(before, _)| if even { before as u64 } else { 0 });
        let convolution = Convolution {
            direction,
            x: if even { self.x.clone() } else { self.filled() },
            w: self.w.clone(),
            y: self.y.clone(),
            pads: pads.collect(),
            strides: sizes(&self.window.strides),
            dilations: sizes(&self.window.dilations),
            groups: self.groups,
        };
        Call::Convolution {
            convolution,
            operands,
        }
    }

    /// Positions of an image.
    fn positions(&self) -> u64 {
        self.y[2..].iter().product()
    }
}

impl RuleContext<'_> {
    /// Adds a call of a library.
    pub(super) fn call(&mut self, of: TensorId, dims: &[u64], call: Call) -> TensorId {
        let tensor = Tensor {
            name: self.name.clone(),
            ty: self.ty(of),
            dims: dims.to_vec(),
            def: Def::Call(call),
        };
        self.program.add(tensor)
    }

    /// The number that all weights are.
    fn uniform(&self, w: TensorId) -> Option<Number> {
        match self.program.tensor(self.program.base(w)).def {
            Def::Constant(_, uniform) => uniform,
            _ => None,
        }
    }
}

/// The input with zeros around it, where the library would not fill them up.
fn filled(cx: &mut RuleContext<'_>, x: TensorId, sizes: &Sizes) -> TensorId {
    if sizes.even() {
        return x;
    }
    let dims = sizes.filled();
    let mut at = vars(&dims);
    let mut inside = Formula::number(crate::expr::Type::Bool, 1.0);
    for (axis, (before, _)) in sizes.pads.iter().enumerate() {
        at[axis + 2] = at[axis + 2].offset(-before);
        let index = at[axis + 2].clone();
        inside = inside.and(Formula::within(index, 0, sizes.x[axis + 2] as i64));
    }
    let element = cx.load(x, at);
    let zero = element.like(0.0);
    cx.map(&dims, inside.select(element, zero))
}

fn forward(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let (x, w) = (cx.operand(0)?, cx.operand(1)?);
    let dims = [cx.dims(x), cx.dims(w), cx.result()?];
    let kernel = dims[1].iter().skip(2).map(|&k| k as i64).collect();
    let Some(window) = Window::of(cx.op, kernel) else {
        return malformed("attributes of the window");
    };
    let sizes = Sizes::new(window, cx.attribute("group")?, dims)?;
    let y = match cx.uniform(w) {
        Some(weight) => window_sum(cx, x, &sizes, weight),
        None => None,
    };
    let y = match y {
        Some(y) => y,
        None if sizes.pointwise() => {
            let [m, k, n] = [sizes.w[0], sizes.w[1], sizes.positions()];
            let product = Product {
                batch: sizes.x[0],
                m,
                n,
                k,
                a: Factor {
                    offset: 0,
                    batch: 0,
                    row: k,
                    column: 1,
                },
                b: Factor {
                    offset: 0,
                    batch: k * n,
                    row: n,
                    column: 1,
                },
            };
            let operands = [w, x];
            cx.call(x, &sizes.y, Call::Product { product, operands })
        }
        None => {
            let from = filled(cx, x, &sizes);
            cx.call(x, &sizes.y, sizes.call(Direction::Forward, [from, w]))
        }
    };
    let Some(bias) = cx.optional(2) else {
        return Ok(vec![Some(y)]);
    };
    let channel = vec![vars(&sizes.y)[1].clone()];
    let sum = cx.element(y) + cx.load(bias, channel);
    cx.output(&sizes.y, sum)
}

/// `weight * sum of x over the window and the group's channels`, where each group has one output channel.
fn window_sum(
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
fn window_spread(
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
        let mut sees = Formula::number(crate::expr::Type::Bool, 1.0);
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

/// The gradient with respect to the input.
fn to_input(cx: &mut RuleContext<'_>, dy: TensorId, w: TensorId, sizes: &Sizes) -> TensorId {
    if let Some(weight) = cx.uniform(w)
        && let Some(found) = window_spread(cx, dy, sizes, weight)
    {
        return found;
    }
    if sizes.pointwise() {
        let [k, m, n] = [sizes.w[0], sizes.w[1], sizes.positions()];
        let product = Product {
            batch: sizes.x[0],
            m,
            n,
            k,
            a: Factor {
                offset: 0,
                batch: 0,
                row: 1,
                column: m,
            },
            b: Factor {
                offset: 0,
                batch: k * n,
                row: n,
                column: 1,
            },
        };
        let operands = [w, dy];
        return cx.call(dy, &sizes.x, Call::Product { product, operands });
    }
    let call = sizes.call(Direction::InputGradient, [dy, w]);
    if sizes.even() {
        return cx.call(dy, &sizes.x, call);
    }
    let whole = cx.call(dy, &sizes.filled(), call);
    let mut at = vars(&sizes.x);
    for (axis, (before, _)) in sizes.pads.iter().enumerate() {
        at[axis + 2] = at[axis + 2].offset(*before);
    }
    let element = cx.load(whole, at);
    cx.map(&sizes.x, element)
}

fn input_gradient(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let Some(gradient) = ConvInputGradient::of(cx.graph, cx.node) else {
        return malformed("attributes of the window");
    };
    let (dy, w) = (cx.operand(0)?, cx.operand(1)?);
    let dims = [cx.result()?, cx.dims(w), cx.dims(dy)];
    let sizes = Sizes::new(gradient.window, gradient.group, dims)?;
    Ok(vec![Some(to_input(cx, dy, w, &sizes))])
}

/// A transposed convolution is the input gradient of the convolution with the same window.
fn transposed(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let (x, w) = (cx.operand(0)?, cx.operand(1)?);
    let (from, weight, to) = (cx.dims(x), cx.dims(w), cx.result()?);
    let kernel = weight.iter().skip(2).map(|&k| k as i64).collect();
    let Some(mut window) = Window::of(cx.op, kernel) else {
        return malformed("attributes of the window");
    };
    let rank = window.rank();
    if from.len() != rank + 2 || to.len() != rank + 2 {
        return malformed("the operands have other ranks than the window");
    }
    // With a shape or automatic padding, the border is what is left over.
    let open = cx
        .given::<&[i64]>("output_shape")
        .is_some_and(|shape| !shape.is_empty())
        || !matches!(window.padding, bcosc_ir::views::Padding::Explicit(_));
    if open {
        return Err(Reason::Form(
            "ConvTranspose with an output shape or automatic padding",
        ));
    }
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
    let dims = |window: Window| {
        let group = cx.attribute("group")?;
        Sizes::new(window, group, [to.clone(), weight.clone(), from.clone()])
    };
    let sizes = dims(window.clone()).or_else(|_| {
        window.padding = bcosc_ir::views::Padding::Explicit(exact);
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

fn weight_gradient(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let Some(gradient) = ConvWeightGradient::of(cx.graph, cx.node) else {
        return malformed("attributes of the window");
    };
    let (x, dy) = (cx.operand(0)?, cx.operand(1)?);
    let dims = [cx.dims(x), cx.result()?, cx.dims(dy)];
    let sizes = Sizes::new(gradient.window, gradient.group, dims)?;
    let [m, n, k] = [sizes.w[0], sizes.w[1], sizes.positions()];
    // A product for each image, and their sum, while these are fewer numbers than are read.
    if sizes.pointwise() && m * n <= (m + n) * k {
        let product = Product {
            batch: sizes.x[0],
            m,
            n,
            k,
            a: Factor {
                offset: 0,
                batch: m * k,
                row: k,
                column: 1,
            },
            b: Factor {
                offset: 0,
                batch: n * k,
                row: 1,
                column: k,
            },
        };
        let operands = [dy, x];
        let full = [sizes.x[0], m, n];
        let parts = cx.call(x, &full, Call::Product { product, operands });
        let element = cx.element(parts);
        let sum = cx.reduced(Fold::Sum, &full, &[0], element);
        return Ok(vec![Some(cx.program.view(sum, &sizes.w))]);
    }
    let from = filled(cx, x, &sizes);
    let call = sizes.call(Direction::WeightGradient, [from, dy]);
    Ok(vec![Some(cx.call(x, &sizes.w, call))])
}

/// Whether an expression is a plain read, and of what.
pub(super) fn plain_read(def: &Def) -> Option<(TensorId, &[Index])> {
    let Def::Map(expr) = def else { return None };
    match &**expr {
        Expr::Load(id, _, at) => Some((*id, at)),
        _ => None,
    }
}
