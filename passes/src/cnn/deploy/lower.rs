//! Energies and weighed tensors in standard ONNX, in the forms that runtimes run fastest.
//!
//! ```text
//! e = bcosc.Energy <1x1, exponent = p> (x)     e = Pow (Reshape (Conv (Reshape (x * x, [0, C, -1]), ones [1, C, 1], epsilon)), p)
//! e = bcosc.Energy <kxk, exponent = p> (x)     e = Pow (AveragePool <kxk> (Conv (x * x, k k ones [1, C, 1, 1])) + epsilon, p)
//! z = bcosc.Weigh (x, e)                       z = Mul (x, e)     or     Mul (x, Conv (e, ones [C, 1, 1, 1]))
//! ```
//!
//! Sums, squares and powers that several layers need are computed once. A sum over channels is a product of
//! a row with a matrix where the number of positions in a row is known; between two convolutions a 1x1
//! convolution keeps the blocked layout that runtimes use there, and so does spreading the weight over
//! channels by one before multiplying.

use std::collections::BTreeMap;

use bcosc_ir::views::{Padding, Window};
use bcosc_ir::{DataType, Graph, Model, NodeId, Op, Operand, Patch, Tensor, Value};

use super::layout::{
    feeds_convolutions, feeds_pools, grid, is_blocked, is_pool_between_convolutions,
    is_signed_square, is_square,
};
use super::marker::{Energy, Weigh};
use super::power::power;
use crate::{Context, Effect, Outcome, Pass, PassError, weights};

/// The pass.
pub struct LowerDeploy;

/// Up to this many cells, a convolution that adds the epsilon costs no more than a pool and an addition.
const SMALL_WINDOW: i64 = 9;
/// From this opset on, average pools have dilations and, in runtimes, a slower kernel.
const SLOW_AVERAGES: i64 = 19;

impl Pass for LowerDeploy {
    fn name(&self) -> &'static str {
        "lower-deploy"
    }

    fn summary(&self) -> &'static str {
        "with --deploy: write B = 2 layers in the operators that run fastest"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn ensures(&self) -> &'static str {
        "what the deploy rules left is in standard operators"
    }

    fn run(&self, model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        if !cx.settings.deploy {
            return Ok(outcome);
        }
        let mut shared = BTreeMap::new();
        let opset = model.opset("").unwrap_or(0);
        for node in model.graph.ops() {
            let graph = &model.graph;
            if !graph.contains(node) {
                continue;
            }
            let mut writer = Writer {
                opset,
                graph,
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
            patch.replace(Value { node, slot: 0 }, result);
            let added = model.graph.apply(patch)?;
            let made = made.into_iter();
            shared.extend(made.filter_map(|(key, operand)| Some((key, operand.applied(&added)?))));
        }
        Ok(outcome)
    }
}

/// Energies of the deploy form; patch norms that are left belong to layers with another B.
fn exponentiated(graph: &Graph, node: NodeId) -> Option<Energy> {
    graph.op(node).filter(|op| op.op_type() == "Energy")?;
    Energy::of(graph, node)
}

/// Something that several layers need.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// x * x.
    Squares(Value),
    /// Over groups of channels, times a factor, plus an epsilon (both as bits).
    Sum(Value, u64, u64, u64),
    /// The whole energy: window, group, gain, epsilon and exponent.
    Energy(Value, Window, u64, [u64; 3]),
}

/// A convolution whose weights are all the same, and that adds the same everywhere.
struct Ones<'a> {
    out: u64,
    per_group: u64,
    group: u64,
    window: &'a Window,
    factor: f64,
    epsilon: f64,
}

struct Writer<'a> {
    opset: i64,
    graph: &'a Graph,
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
            let positions = w.positions(e);
            let dtype = w.dtype(e.x);
            power(&mut w.patch, energy, e.exponent, dtype, positions)
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
            return self.ones("window_sum", squares, &ones, dtype);
        }
        if e.window.is_single_cell() {
            let sum = self.sum_over_channels(e, e.gain, e.epsilon);
            if e.window.is_pointwise() {
                return sum;
            }
            let op = Op::new("", "MaxPool").named("stride");
            return self.patch.op(undilated(&e.window).write(op), &[sum]);
        }
        if self.opset < SLOW_AVERAGES && e.window.cells() > SMALL_WINDOW && averages(&e.window) {
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
        self.ones("window_sum", sum, &ones, dtype)
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
                && !is_blocked(w.graph, e.x)
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
            w.ones("channel_sum", squares, &ones, dtype)
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
        let sum = self.ones("channel_sum", flat, &ones, dtype);
        let grid = self.patch.parameter("grid", Tensor::i64_vec(&grid));
        self.patch
            .op(Op::new("", "Reshape").named("sum"), &[sum, grid])
    }

    /// A convolution whose weights are all the same.
    fn ones(&mut self, name: &str, x: Operand, ones: &Ones<'_>, dtype: DataType) -> Operand {
        let mut dims = vec![ones.out, ones.per_group];
        dims.extend(ones.window.kernel.iter().map(|&k| k as u64));
        let count = dims.iter().product::<u64>() as usize;
        let weight = weights::tensor(dtype, &dims, &vec![ones.factor; count]);
        let mut inputs = vec![x, self.patch.parameter("ones", weight)];
        if ones.epsilon != 0.0 {
            let epsilons = vec![ones.epsilon; ones.out as usize];
            let epsilons = weights::tensor(dtype, &[ones.out], &epsilons);
            inputs.push(self.patch.parameter("epsilon", epsilons));
        }
        let mut op = ones.window.write(Op::new("", "Conv").named(name));
        if ones.group > 1 {
            op = op.with_int("group", ones.group as i64);
        }
        self.patch.op(op, &inputs)
    }

    fn weigh(&mut self, weigh: &Weigh) -> Operand {
        let mut weight = Operand::Old(weigh.weight);
        let blocked = weigh.group == 1
            && weigh.spatial == 2
            && (is_square(self.graph, weigh.x)
                || is_pool_between_convolutions(self.graph, weigh.x))
            && feeds_convolutions(self.graph, weigh.node);
        let spread = weigh.group > 1 && weigh.group != weigh.channels;
        let dtype = self.dtype(weigh.x);
        let spatial = Window::pointwise(weigh.spatial);
        let mut ones = Ones {
            out: weigh.channels,
            per_group: 1,
            group: weigh.group,
            window: &spatial,
            factor: 1.0,
            epsilon: 0.0,
        };
        if blocked || spread {
            weight = self.ones("spread", weight, &ones, dtype);
        }
        let op = Op::new("", "Mul").named("weighed");
        let weighed = self.patch.op(op, &[weigh.x.into(), weight]);
        if weigh.spatial != 2
            || !is_signed_square(self.graph, weigh.x)
            || !feeds_pools(self.graph, weigh.node)
        {
            return weighed;
        }
        // A product with 1 that is a convolution: what follows keeps the blocked layout.
        ones.group = weigh.channels;
        self.ones("blocked", weighed, &ones, dtype)
    }

    fn dtype(&self, value: Value) -> DataType {
        self.graph
            .value_type(value)
            .map_or(DataType::Float, |t| t.dtype)
    }

    /// Positions of one image's energies, where known.
    fn positions(&self, e: &Energy) -> Option<u64> {
        let shape = self.graph.value_type(e.x)?.shape?;
        let sizes = shape.get(2..)?.iter().zip(&e.window.strides);
        sizes
            .map(|(size, &stride)| Some(size.known()?.div_ceil(stride.max(1) as u64)))
            .product()
    }
}

/// The window without dilation, which says nothing about a single cell.
fn undilated(window: &Window) -> Window {
    Window {
        dilations: vec![1; window.rank()],
        ..window.clone()
    }
}

/// Whether an average pool can have the window.
fn averages(window: &Window) -> bool {
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
mod tests {
    use bcosc_ir::{Attribute, DataType, ModelBuilder};

    use crate::Pass;
    use crate::cnn::deploy::merge::MergeWeights;
    use crate::cnn::deploy::narrow::NarrowScales;
    use crate::cnn::deploy::signed_square::SignedSquares;
    use crate::cnn::deploy::square_relu::SquareAfterRelu;
    use crate::cnn::deploy::testing::{bcos, conv, deployed, image, written};
    use crate::testing::text;

    const RULES: &[&dyn Pass] = &[
        &SquareAfterRelu,
        &NarrowScales,
        &MergeWeights,
        &SignedSquares,
    ];

    /// The layers of a residual block, without the block's sum.
    fn bottleneck(image: ModelBuilder) -> ModelBuilder {
        let padded = [Attribute::ints("pads", &[1, 1, 1, 1])];
        let first = conv(image, "x", "a", &[2, 3, 1, 1], []).op("Relu", &["a"], "b", []);
        let second = conv(first, "b", "c", &[2, 2, 3, 3], padded).op("Relu", &["c"], "d", []);
        conv(second, "d", "y", &[4, 2, 1, 1], []).output("y")
    }

    #[test]
    fn a_residual_block_scales_where_it_is_narrow() {
        let (after, _) = deployed(RULES, &bcos(bottleneck(image()), 2.0));
        insta::assert_snapshot!(text(&written(&after)), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,3,6,8] x) => (y)
        <
           float[2,3,1,1] "a.weight" = {-0.8198231, -0.5585862, -1.0915186, -1.0646492, 0.34965923, 0.62712014},
           float[2,2,3,3] "c.weight" = {0.20882747, -0.8158816, 0.47909757, -0.40374255, ... 42667861},
           float[4,2,1,1] "y.weight" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, 0.33834577, 0.61412346, 0.8469708, -0.8702746},
           int64[3] "a.bcos.energy.rows" = {0, 3, -1},
           float[1,3,1] "a.bcos.energy.ones" = {1.0, 1.0, 1.0},
           float[1] "a.bcos.energy.epsilon" = {1e-6},
           int64[4] "a.bcos.energy.grid" = {0, 1, 6, 8},
           float "a.bcos.energy.exponent" = {-0.5},
           float[2,1,1,1] "a.bcos.weighed.ones" = {1.0, 1.0},
           float "y.before.weighed.epsilon" = {1e-6},
           float "y.before.weighed.exponent" = {-0.25},
           float[1,2,1,1] "y.before.weighed.energy.ones" = {1.0, 1.0},
           float[1,1,3,3] "y.before.weighed.energy.ones_2" = {1.0, 1.0, 1.0, 1.0, ... 7371cc9f},
           float[1] "y.before.weighed.energy.epsilon" = {1e-6},
           float[1,2,1,1] "y.before.weighed.energy_2.ones" = {1.0, 1.0},
           float[2,1,1,1] "y.before.weighed.weighed.ones" = {1.0, 1.0}
        >
        {
           a = Conv (x, "a.weight")
           ["a.bcos.relu"] "a.bcos.relu" = Relu (a)  # from a
           ["a.bcos.square"] "a.bcos.square" = Mul ("a.bcos.relu", "a.bcos.relu")  # from a
           ["a.bcos.energy.squares"] "a.bcos.energy.squares" = Mul (x, x)  # from a
           ["a.bcos.energy.flat"] "a.bcos.energy.flat" = Reshape ("a.bcos.energy.squares", "a.bcos.energy.rows")  # from a
           ["a.bcos.energy.channel_sum"] "a.bcos.energy.channel_sum" = Conv <kernel_shape = [1]> ("a.bcos.energy.flat", "a.bcos.energy.ones", "a.bcos.energy.epsilon")  # from a
           ["a.bcos.energy.sum"] "a.bcos.energy.sum" = Reshape ("a.bcos.energy.channel_sum", "a.bcos.energy.grid")  # from a
           ["a.bcos.energy.pow"] "a.bcos.energy.pow" = Pow ("a.bcos.energy.sum", "a.bcos.energy.exponent")  # from a
           ["a.bcos.weighed.spread"] "a.bcos.weighed.spread" = Conv <kernel_shape = [1, 1]> ("a.bcos.energy.pow", "a.bcos.weighed.ones")  # from a
           ["a.bcos.weighed.weighed"] "a.bcos.weighed.weighed" = Mul ("a.bcos.square", "a.bcos.weighed.spread")  # from a
           c = Conv <pads = [1, 1, 1, 1]> ("a.bcos.weighed.weighed", "c.weight")
           ["c.bcos.relu"] "c.bcos.relu" = Relu (c)  # from c
           ["c.bcos.square"] "c.bcos.square" = Mul ("c.bcos.relu", "c.bcos.relu")  # from c
           ["y.before.weighed.energy.squares"] "y.before.weighed.energy.squares" = Mul ("a.bcos.weighed.weighed", "a.bcos.weighed.weighed")  # from "y.before"
           ["y.before.weighed.energy.channel_sum"] "y.before.weighed.energy.channel_sum" = Conv <kernel_shape = [1, 1]> ("y.before.weighed.energy.squares", "y.before.weighed.energy.ones")  # from "y.before"
           ["y.before.weighed.energy.window_sum"] "y.before.weighed.energy.window_sum" = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> ("y.before.weighed.energy.channel_sum", "y.before.weighed.energy.ones_2", "y.before.weighed.energy.epsilon")  # from "y.before"
           ["y.before.weighed.mul"] "y.before.weighed.mul" = Mul ("y.before.weighed.energy.window_sum", "y.before.weighed.epsilon")  # from "y.before"
           ["y.before.weighed.energy_2.squares"] "y.before.weighed.energy_2.squares" = Mul ("c.bcos.square", "c.bcos.square")  # from "y.before"
           ["y.before.weighed.energy_2.channel_sum"] "y.before.weighed.energy_2.channel_sum" = Conv <kernel_shape = [1, 1]> ("y.before.weighed.energy_2.squares", "y.before.weighed.energy_2.ones")  # from "y.before"
           ["y.before.weighed.add"] "y.before.weighed.add" = Add ("y.before.weighed.energy_2.channel_sum", "y.before.weighed.mul")  # from "y.before"
           ["y.before.weighed.mul_2"] "y.before.weighed.mul_2" = Mul ("y.before.weighed.energy.window_sum", "y.before.weighed.add")  # from "y.before"
           ["y.before.weighed.pow"] "y.before.weighed.pow" = Pow ("y.before.weighed.mul_2", "y.before.weighed.exponent")  # from "y.before"
           ["y.before.weighed.weighed.spread"] "y.before.weighed.weighed.spread" = Conv <kernel_shape = [1, 1]> ("y.before.weighed.pow", "y.before.weighed.weighed.ones")  # from "y.before"
           ["y.before.weighed.weighed.weighed"] "y.before.weighed.weighed.weighed" = Mul ("c.bcos.square", "y.before.weighed.weighed.spread")  # from "y.before"
           ["y.before.conv"] "y.before.conv" = Conv <kernel_shape = [1, 1]> ("y.before.weighed.weighed.weighed", "y.weight")  # from "y.before"
           ["y.before.abs"] "y.before.abs" = Abs ("y.before.conv")  # from "y.before"
           ["y.before.bcos"] y = Mul ("y.before.conv", "y.before.abs")  # from "y.before"
        }
        "#);
    }

    #[test]
    fn open_sizes_stay_open() {
        let image = ModelBuilder::new(17).input("x", DataType::Float, "batch,3,height,width");
        let (after, _) = deployed(RULES, &bcos(bottleneck(image), 2.0));
        assert!(!text(&written(&after)).contains("Reshape"));
    }

    #[test]
    fn layers_that_see_the_same_share_squares_sums_and_roots() {
        let padded = [Attribute::ints("pads", &[1, 1, 1, 1])];
        let strides = [Attribute::ints("strides", &[2, 2])];
        let one = conv(image(), "x", "a", &[2, 3, 1, 1], []).output("a");
        let two = conv(one, "x", "b", &[2, 3, 3, 3], padded).output("b");
        let three = conv(two, "x", "c", &[3, 3, 1, 1], []).output("c");
        let four = conv(three, "x", "d", &[3, 3, 1, 1], strides).output("d");
        let (after, _) = deployed(RULES, &bcos(four, 2.0));
        let text = text(&written(&after));
        assert_eq!(text.matches("Mul (x, x)").count(), 1);
        insta::assert_snapshot!(text, @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,3,6,8] x) => (a, b, c, d)
        <
           float[2,3,1,1] "a.weight" = {-0.8198231, -0.5585862, -1.0915186, -1.0646492, 0.34965923, 0.62712014},
           float[2,3,3,3] "b.weight" = {-1.0143253, 0.68723387, 0.2853081, 0.7341959, ... 652a3809},
           float[3,3,1,1] "c.weight" = {0.20882747, -0.8158816, 0.47909757, -0.40374255, ... e0d52504},
           float[3,3,1,1] "d.weight" = {0.40332967, 0.9445293, 0.6728871, -1.0732892, ... 6b830002},
           int64[3] "a.bcos.energy.rows" = {0, 3, -1},
           float[1,3,1] "a.bcos.energy.ones" = {1.0, 1.0, 1.0},
           float[1] "a.bcos.energy.epsilon" = {1e-6},
           int64[4] "a.bcos.energy.grid" = {0, 1, 6, 8},
           float "a.bcos.energy.exponent" = {-0.5},
           int64[3] "b.bcos.energy.rows" = {0, 3, -1},
           float[1,3,1] "b.bcos.energy.ones" = {1.0, 1.0, 1.0},
           int64[4] "b.bcos.energy.grid" = {0, 1, 6, 8},
           float[1,1,3,3] "b.bcos.energy.ones_2" = {1.0, 1.0, 1.0, 1.0, ... 7371cc9f},
           float[1] "b.bcos.energy.epsilon" = {1e-6},
           float "b.bcos.energy.exponent" = {-0.5},
           float "d.bcos.energy.exponent" = {-0.5}
        >
        {
           "a.before" = Conv (x, "a.weight")
           ["a.bcos.abs"] "a.bcos.abs" = Abs ("a.before")  # from a
           ["a.bcos.square"] "a.bcos.square" = Mul ("a.before", "a.bcos.abs")  # from a
           ["a.bcos.energy.squares"] "a.bcos.energy.squares" = Mul (x, x)  # from a
           ["a.bcos.energy.flat"] "a.bcos.energy.flat" = Reshape ("a.bcos.energy.squares", "a.bcos.energy.rows")  # from a
           ["a.bcos.energy.channel_sum"] "a.bcos.energy.channel_sum" = Conv <kernel_shape = [1]> ("a.bcos.energy.flat", "a.bcos.energy.ones", "a.bcos.energy.epsilon")  # from a
           ["a.bcos.energy.sum"] "a.bcos.energy.sum" = Reshape ("a.bcos.energy.channel_sum", "a.bcos.energy.grid")  # from a
           ["a.bcos.energy.pow"] "a.bcos.energy.pow" = Pow ("a.bcos.energy.sum", "a.bcos.energy.exponent")  # from a
           ["a.bcos.weighed.weighed"] a = Mul ("a.bcos.square", "a.bcos.energy.pow")  # from a
           "b.before" = Conv <pads = [1, 1, 1, 1]> (x, "b.weight")
           ["b.bcos.abs"] "b.bcos.abs" = Abs ("b.before")  # from b
           ["b.bcos.square"] "b.bcos.square" = Mul ("b.before", "b.bcos.abs")  # from b
           ["b.bcos.energy.flat"] "b.bcos.energy.flat" = Reshape ("a.bcos.energy.squares", "b.bcos.energy.rows")  # from b
           ["b.bcos.energy.channel_sum"] "b.bcos.energy.channel_sum" = Conv <kernel_shape = [1]> ("b.bcos.energy.flat", "b.bcos.energy.ones")  # from b
           ["b.bcos.energy.sum"] "b.bcos.energy.sum" = Reshape ("b.bcos.energy.channel_sum", "b.bcos.energy.grid")  # from b
           ["b.bcos.energy.window_sum"] "b.bcos.energy.window_sum" = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> ("b.bcos.energy.sum", "b.bcos.energy.ones_2", "b.bcos.energy.epsilon")  # from b
           ["b.bcos.energy.pow"] "b.bcos.energy.pow" = Pow ("b.bcos.energy.window_sum", "b.bcos.energy.exponent")  # from b
           ["b.bcos.weighed.weighed"] b = Mul ("b.bcos.square", "b.bcos.energy.pow")  # from b
           "c.before" = Conv (x, "c.weight")
           ["c.bcos.abs"] "c.bcos.abs" = Abs ("c.before")  # from c
           ["c.bcos.square"] "c.bcos.square" = Mul ("c.before", "c.bcos.abs")  # from c
           ["c.bcos.weighed.weighed"] c = Mul ("c.bcos.square", "a.bcos.energy.pow")  # from c
           "d.before" = Conv <strides = [2, 2]> (x, "d.weight")
           ["d.bcos.abs"] "d.bcos.abs" = Abs ("d.before")  # from d
           ["d.bcos.square"] "d.bcos.square" = Mul ("d.before", "d.bcos.abs")  # from d
           ["d.bcos.energy.stride"] "d.bcos.energy.stride" = MaxPool <kernel_shape = [1, 1], strides = [2, 2]> ("a.bcos.energy.sum")  # from d
           ["d.bcos.energy.pow"] "d.bcos.energy.pow" = Pow ("d.bcos.energy.stride", "d.bcos.energy.exponent")  # from d
           ["d.bcos.weighed.weighed"] d = Mul ("d.bcos.square", "d.bcos.energy.pow")  # from d
        }
        "#);
    }
}
