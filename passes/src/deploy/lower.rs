//! Energies and scaled tensors in standard ONNX, in the forms that the target runs fastest.
//!
//! ```text
//! e = bcosc.Energy <1x1, exponent = p> (x)     e = Pow (Reshape (Conv (Reshape (x * x, [0, C, -1]), ones [1, C, 1], epsilon)), p)
//! e = bcosc.Energy <kxk, exponent = p> (x)     e = Pow (AveragePool <kxk> (Conv (x * x, k k ones [1, C, 1, 1])) + epsilon, p)
//! z = bcosc.Weigh (x, e)                       z = Mul (x, e)     or     Mul (x, Conv (e, ones [C, 1, 1, 1]))
//! ```
//!
//! Sums, squares and powers that several layers need are computed once. A sum over channels is a product of
//! a row with a matrix if the number of positions is known; for images in blocks of channels (see `blocks.rs`) it is
//! a 1x1 convolution, and another one repeats a scale for every channel before the
//! multiplication.

use std::collections::BTreeMap;

use bcosc_ir::views::{Padding, Window};
use bcosc_ir::{DataType, Dim, Graph, Model, NodeId, Op, Operand, Patch, Tensor, Value};

use super::blocks::Blocks;
use super::power::power;
use super::target::OnnxRuntimeCpu;
use crate::analysis::weights;
use crate::bcos::ones::Ones;
use crate::dialect::{Energy, Weigh};
use crate::{Context, Effect, Outcome, Pass, PassError};

/// The pass.
pub static LOWER_DEPLOY: Pass = Pass {
    name: "lower-deploy",
    summary: "with --deploy: write B = 2 layers in the operators that run fastest",
    effect: Effect::Exact,
    requires: &[],
    run,
};

fn run(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
    let mut outcome = Outcome::default();
    if !cx.settings.deploy {
        return Ok(outcome);
    }
    let mut shared = BTreeMap::new();
    let opset = model.opset("").unwrap_or(0);
    let mut blocks = Blocks::of(&model.graph);
    for node in model.graph.ops() {
        let graph = &model.graph;
        if !graph.contains(node) {
            continue;
        }
        let mut writer = Writer {
            opset,
            graph,
            blocks: &blocks,
            shared: &shared,
            patch: Patch::at(node),
            made: Vec::new(),
        };
        let result = if let Some(energy) = exponentiated(graph, node) {
            writer.energy(&energy)
        } else if let Some(weigh) = Weigh::of(graph, node) {
            outcome.changed(graph.label(node), "written in standard operators");
            writer.weigh(&weigh)
        } else {
            continue;
        };
        let Writer {
            mut patch, made, ..
        } = writer;
        let old = Value { node, slot: 0 };
        patch.replace(old, result);
        let added = model.graph.apply(patch)?;
        if let Some(new) = result.applied(&added) {
            blocks.replaced(old, new);
        }
        let made = made.into_iter();
        shared.extend(made.filter_map(|(key, operand)| Some((key, operand.applied(&added)?))));
    }
    Ok(outcome)
}

/// Energies of the deploy form; remaining patch norms belong to layers with another B.
fn exponentiated(graph: &Graph, node: NodeId) -> Option<Energy> {
    graph.op(node).filter(|op| op.op_type() == "Energy")?;
    Energy::of(graph, node)
}

/// A value shared by several layers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// x * x.
    Squares(Value),
    /// Over groups of channels, times a factor, plus an epsilon (both as bits).
    Sum(Value, u64, u64, u64),
    /// The whole energy: window, group, gain, epsilon and exponent.
    Energy(Value, Window, u64, [u64; 3]),
}

struct Writer<'a> {
    opset: i64,
    graph: &'a Graph,
    blocks: &'a Blocks,
    shared: &'a BTreeMap<Key, Value>,
    patch: Patch,
    made: Vec<(Key, Operand)>,
}

impl Writer<'_> {
    fn shared(&mut self, key: Key, make: impl FnOnce(&mut Self) -> Operand) -> Operand {
        if let Some(value) = self.shared.get(&key) {
            return Operand::Old(*value);
        }
        let operand = make(self);
        self.made.push((key, operand));
        operand
    }

    fn energy(&mut self, e: &Energy) -> Operand {
        let bits = [e.gain, e.epsilon, e.exponent].map(f64::to_bits);
        let key = Key::Energy(e.x, e.window.clone(), e.group, bits);
        self.shared(key, |w| {
            let energy = w.sum_over_window(e);
            let count = w.count(e);
            let dtype = w.dtype(e.x);
            power(&mut w.patch, energy, e.exponent, dtype, count)
        })
    }

    /// `gain * sum + epsilon`.
    fn sum_over_window(&mut self, e: &Energy) -> Operand {
        let group = e.group;
        let mut ones = Ones {
            out: group,
            per_group: 1,
            group,
            window: &e.window,
            factor: 1.0,
            epsilon: e.epsilon,
        };
        let dtype = self.dtype(e.x);
        if e.group == e.channels {
            let squares = self.squares(e.x);
            ones.factor = e.gain;
            return ones.write(&mut self.patch, "window_sum", squares, dtype);
        }
        if e.window.is_single_cell() {
            let sum = self.sum_over_channels(e, e.gain, e.epsilon);
            if e.window.is_pointwise() {
                return sum;
            }
            let op = Op::new("", "MaxPool").named("stride");
            let every = Window::single_cell(&e.window.strides);
            return self.patch.op(every.write(op), &[sum]);
        }
        let pools = self.opset < OnnxRuntimeCpu::SLOW_AVERAGE_POOL_OPSET
            && e.window.cells() > OnnxRuntimeCpu::SMALL_WINDOW
            && is_average_pool(&e.window);
        if pools {
            let sum = self.sum_over_channels(e, e.gain * e.window.cells() as f64, 0.0);
            let op = Op::new("", "AveragePool").named("window_sum");
            let op = e.window.write(op).with_int("count_include_pad", 1);
            let sum = self.patch.op(op, &[sum]);
            let epsilon = self
                .patch
                .parameter("epsilon", weights::tensor(dtype, &[], &[e.epsilon]));
            return self
                .patch
                .op(Op::new("", "Add").named("energy"), &[sum, epsilon]);
        }
        let sum = self.sum_over_channels(e, e.gain, 0.0);
        ones.write(&mut self.patch, "window_sum", sum, dtype)
    }

    fn squares(&mut self, x: Value) -> Operand {
        self.shared(Key::Squares(x), |w| {
            let op = Op::new("", "Mul").named("squares");
            w.patch.op(op, &[x.into(), x.into()])
        })
    }

    /// Sum of squares over every group's channels, at every position.
    fn sum_over_channels(&mut self, e: &Energy, factor: f64, epsilon: f64) -> Operand {
        let key = Key::Sum(e.x, e.group, factor.to_bits(), epsilon.to_bits());
        let dtype = self.dtype(e.x);
        self.shared(key, |w| {
            let squares = w.squares(e.x);
            if e.group == 1
                && !w.blocks.has(e.x)
                && let Some(grid) = grid(w.graph, e.x)
            {
                return w.row_sum(squares, e.channels, grid, factor, epsilon, dtype);
            }
            let ones = Ones {
                out: e.group,
                per_group: e.channels / e.group,
                group: e.group,
                window: &Window::pointwise(e.window.rank()),
                factor,
                epsilon,
            };
            ones.write(&mut w.patch, "channel_sum", squares, dtype)
        })
    }

    /// The sum over channels as a row times a matrix.
    fn row_sum(
        &mut self,
        squares: Operand,
        channels: u64,
        grid: [i64; 4],
        factor: f64,
        epsilon: f64,
        dtype: DataType,
    ) -> Operand {
        let rows = self
            .patch
            .parameter("rows", Tensor::i64_vec(&[0, channels as i64, -1]));
        let flat = self
            .patch
            .op(Op::new("", "Reshape").named("flat"), &[squares, rows]);
        let ones = Ones {
            out: 1,
            per_group: channels,
            group: 1,
            window: &Window::pointwise(1),
            factor,
            epsilon,
        };
        let sum = ones.write(&mut self.patch, "channel_sum", flat, dtype);
        let grid = self.patch.parameter("grid", Tensor::i64_vec(&grid));
        self.patch
            .op(Op::new("", "Reshape").named("sum"), &[sum, grid])
    }

    fn weigh(&mut self, weigh: &Weigh) -> Operand {
        let mut weight = Operand::Old(weigh.weight);
        let blocked = weigh.group == 1 && self.blocks.has(weigh.x);
        let spread = weigh.group > 1 && weigh.group != weigh.channels;
        if blocked || spread {
            let dtype = self.dtype(weigh.x);
            let ones = Ones {
                out: weigh.channels,
                per_group: 1,
                group: weigh.group,
                window: &Window::pointwise(weigh.spatial),
                factor: 1.0,
                epsilon: 0.0,
            };
            weight = ones.write(&mut self.patch, "spread", weight, dtype);
            let weighed = Value {
                node: weigh.node,
                slot: 0,
            };
            if let Some(same) = self.graph.value_type(weighed) {
                self.patch.typed(weight, same);
            }
        }
        let op = Op::new("", "Mul").named("weighed");
        self.patch.op(op, &[weigh.x.into(), weight])
    }

    fn dtype(&self, value: Value) -> DataType {
        self.graph
            .value_type(value)
            .map_or(DataType::Float, |t| t.dtype)
    }

    /// Number of elements of the energy of one image, if known.
    fn count(&self, e: &Energy) -> Option<u64> {
        let shape = self.graph.value_type(e.x)?.shape?;
        let sizes = shape.get(2..)?.iter().zip(&e.window.strides);
        let positions = sizes
            .map(|(size, &stride)| Some(size.known()?.div_ceil(stride.max(1) as u64)))
            .product::<Option<u64>>()?;
        Some(positions.saturating_mul(e.group))
    }
}

/// The shape from [N, 1, H * W] to [N, 1, H, W].
fn grid(graph: &Graph, x: Value) -> Option<[i64; 4]> {
    let shape = graph.value_type(x)?.shape?;
    let [_, _, height, width] = &shape[..] else {
        return None;
    };
    match (height, width) {
        (Dim::Known(h), Dim::Known(w)) => Some([0, 1, *h as i64, *w as i64]),
        (Dim::Known(h), _) => Some([0, 1, *h as i64, -1]),
        (_, Dim::Known(w)) => Some([0, 1, -1, *w as i64]),
        _ => None,
    }
}

/// Whether an average pool can have the window.
fn is_average_pool(window: &Window) -> bool {
    let Padding::Explicit(pads) = &window.padding else {
        return false;
    };
    let rank = window.rank();
    let inside = pads
        .iter()
        .enumerate()
        .all(|(i, &p)| p < window.kernel[i % rank]);
    inside && window.dilations.iter().all(|&d| d == 1)
}

#[cfg(test)]
mod tests;
