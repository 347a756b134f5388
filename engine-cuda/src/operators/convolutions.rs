//! Convolutions and their gradients.
//!
//! | form | becomes |
//! |---|---|
//! | 1x1, stride 1, one group | products of matrices |
//! | all weights equal, one output channel for each group (the sums of B-cos norms) | a sum over channels, or over the window |
//! | anything else | a call of the library; a border of two widths is filled up before |
//!
//! Images with two spatial axes lie in memory with channels last where products are rounded, since tensor cores want that, and
//! with channels first in single precision; `benches/cuda/RESULTS.md` has the measurements.

use bcosc_engine::Precision;
use bcosc_ir::views::Window;
use bcosc_passes::dialect::{ConvInputGradient, ConvWeightGradient};

use super::context::malformed;
use super::one_by_one;
use super::window_sums::{window_spread, window_sum};
use super::windows::pads;
use super::{Outputs, Reason, RuleContext, Table};
use crate::expr::{Expr, Formula, Index, Number, TensorId, Type};
use crate::program::{Call, Convolution, Def, Direction, Layout, Tensor, vars};

pub(super) const RULES: Table = &[("Conv", forward)];

pub(super) const MARKERS: Table = &[
    ("ConvInputGradient", input_gradient),
    ("ConvWeightGradient", weight_gradient),
];

/// A convolution with sizes.
pub(super) struct Sizes {
    pub window: Window,
    pub groups: u64,
    pub x: Vec<u64>,
    pub w: Vec<u64>,
    pub y: Vec<u64>,
    pub pads: Vec<(i64, i64)>,
}

impl Sizes {
    pub fn new(window: Window, groups: u64, [x, w, y]: [Vec<u64>; 3]) -> Result<Self, Reason> {
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

    /// How images lie in memory.
    pub fn layout(&self, cx: &RuleContext<'_>, x: TensorId) -> Layout {
        let rounded = cx.precision != Precision::Fp32 && cx.ty(x) == Type::F32;
        match rounded && self.window.rank() == 2 {
            true => Layout::ChannelsLast,
            false => Layout::ChannelsFirst,
        }
    }

    /// Calls the library; its result has the given sizes, channels first.
    fn call(
        &self,
        cx: &mut RuleContext<'_>,
        direction: Direction,
        operands: [TensorId; 2],
        dims: &[u64],
    ) -> TensorId {
        let sizes = |values: &[i64]| values.iter().map(|&v| v as u64).collect();
        let even = self.even();
        let pads = self
            .pads
            .iter()
            .map(|&(before, _)| if even { before as u64 } else { 0 });
        let of = operands[0];
        let layout = self.layout(cx, of);
        let convolution = Convolution {
            direction,
            x: if even { self.x.clone() } else { self.filled() },
            w: self.w.clone(),
            y: self.y.clone(),
            pads: pads.collect(),
            strides: sizes(&self.window.strides),
            dilations: sizes(&self.window.dilations),
            groups: self.groups,
            layout,
        };
        let last = layout == Layout::ChannelsLast;
        let operands = match last {
            true => operands.map(|id| cx.program.channels_last(id)),
            false => operands,
        };
        let call = Call::Convolution {
            convolution,
            operands,
        };
        match last {
            true => {
                let to = [&dims[..1], &dims[2..], &dims[1..2]].concat();
                let made = cx.call(of, &to, call);
                cx.program.channels_first(made)
            }
            false => cx.call(of, dims, call),
        }
    }

    /// Positions of an image.
    pub fn positions(&self) -> u64 {
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
    let mut inside = Formula::number(Type::Bool, 1.0);
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
        None if sizes.pointwise() => one_by_one::forward(cx, x, w, &sizes),
        None => {
            let from = filled(cx, x, &sizes);
            sizes.call(cx, Direction::Forward, [from, w], &sizes.y)
        }
    };
    let Some(bias) = cx.optional(2) else {
        return Ok(vec![Some(y)]);
    };
    let channel = vec![vars(&sizes.y)[1].clone()];
    let sum = cx.element(y) + cx.load(bias, channel);
    cx.output(&sizes.y, sum)
}

/// The gradient with respect to the input.
pub(super) fn to_input(
    cx: &mut RuleContext<'_>,
    dy: TensorId,
    w: TensorId,
    sizes: &Sizes,
) -> TensorId {
    if let Some(weight) = cx.uniform(w)
        && let Some(found) = window_spread(cx, dy, sizes, weight)
    {
        return found;
    }
    if sizes.pointwise() {
        return one_by_one::to_input(cx, dy, w, sizes);
    }
    let mut call = |dims: &[u64]| sizes.call(cx, Direction::InputGradient, [dy, w], dims);
    if sizes.even() {
        return call(&sizes.x);
    }
    let whole = call(&sizes.filled());
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

fn weight_gradient(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let Some(gradient) = ConvWeightGradient::of(cx.graph, cx.node) else {
        return malformed("attributes of the window");
    };
    let (x, dy) = (cx.operand(0)?, cx.operand(1)?);
    let dims = [cx.dims(x), cx.result()?, cx.dims(dy)];
    let sizes = Sizes::new(gradient.window, gradient.group, dims)?;
    if sizes.pointwise()
        && let Some(found) = one_by_one::to_weight(cx, x, dy, &sizes)
    {
        return Ok(vec![Some(found)]);
    }
    let from = filled(cx, x, &sizes);
    let found = sizes.call(cx, Direction::WeightGradient, [from, dy], &sizes.w);
    Ok(vec![Some(found)])
}

/// Whether an expression is a plain read, and of what.
pub(super) fn plain_read(def: &Def) -> Option<(TensorId, &[Index])> {
    let Def::Map(expr) = def else { return None };
    match &**expr {
        Expr::Load(id, _, at) => Some((*id, at)),
        _ => None,
    }
}
