use bcosc_ir::{Attribute, DataType, ModelBuilder};

use crate::Pass;
use crate::deploy::merge_scales::MERGE_SCALES;
use crate::deploy::scale_inputs::SCALE_INPUTS;
use crate::deploy::signed_square::SIGNED_SQUARES;
use crate::deploy::square_relu::SQUARE_AFTER_RELU;
use crate::deploy::testing::{bcos, deployed, image, written};
use crate::testing::{Layers, text};

const RULES: &[&Pass] = &[
    &SQUARE_AFTER_RELU,
    &SCALE_INPUTS,
    &MERGE_SCALES,
    &SIGNED_SQUARES,
];

/// The layers of a residual block, without the block's sum.
fn bottleneck(image: ModelBuilder) -> ModelBuilder {
    let padded = [Attribute::ints("pads", &[1, 1, 1, 1])];
    let first = image
        .conv("x", "a", &[2, 3, 1, 1], [])
        .op("Relu", &["a"], "b", []);
    let second = first
        .conv("b", "c", &[2, 2, 3, 3], padded)
        .op("Relu", &["c"], "d", []);
    second.conv("d", "y", &[4, 2, 1, 1], []).output("y")
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
       float[2,3,1,1] "a.w" = {-0.8198231, -0.5585862, -1.0915186, -1.0646492, 0.34965923, 0.62712014},
       float[2,2,3,3] "c.w" = {0.20882747, -0.8158816, 0.47909757, -0.40374255, ... 42667861},
       float[4,2,1,1] "y.w" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, 0.33834577, 0.61412346, 0.8469708, -0.8702746},
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
       a = Conv (x, "a.w")
       ["a.bcos.relu"] "a.bcos.relu" = Relu (a)  # from a
       ["a.bcos.square"] "a.bcos.square" = Mul ("a.bcos.relu", "a.bcos.relu")  # from a
       ["a.bcos.energy.squares"] "a.bcos.energy.squares" = Mul (x, x)  # from a
       ["a.bcos.energy.flat"] "a.bcos.energy.flat" = Reshape ("a.bcos.energy.squares", "a.bcos.energy.rows")  # from a
       ["a.bcos.energy.channel_sum"] "a.bcos.energy.channel_sum" = Conv <kernel_shape = [1]> ("a.bcos.energy.flat", "a.bcos.energy.ones", "a.bcos.energy.epsilon")  # from a
       ["a.bcos.energy.sum"] "a.bcos.energy.sum" = Reshape ("a.bcos.energy.channel_sum", "a.bcos.energy.grid")  # from a
       ["a.bcos.energy.pow"] "a.bcos.energy.pow" = Pow ("a.bcos.energy.sum", "a.bcos.energy.exponent")  # from a
       ["a.bcos.weighed.spread"] "a.bcos.weighed.spread" = Conv <kernel_shape = [1, 1]> ("a.bcos.energy.pow", "a.bcos.weighed.ones")  # from a
       ["a.bcos.weighed.weighed"] "a.bcos.weighed.weighed" = Mul ("a.bcos.square", "a.bcos.weighed.spread")  # from a
       c = Conv <pads = [1, 1, 1, 1]> ("a.bcos.weighed.weighed", "c.w")
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
       ["y.before.conv"] "y.before.conv" = Conv <kernel_shape = [1, 1]> ("y.before.weighed.weighed.weighed", "y.w")  # from "y.before"
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
    let one = image().conv("x", "a", &[2, 3, 1, 1], []).output("a");
    let two = one.conv("x", "b", &[2, 3, 3, 3], padded).output("b");
    let three = two.conv("x", "c", &[3, 3, 1, 1], []).output("c");
    let four = three.conv("x", "d", &[3, 3, 1, 1], strides).output("d");
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
       float[2,3,1,1] "a.w" = {-0.8198231, -0.5585862, -1.0915186, -1.0646492, 0.34965923, 0.62712014},
       float[2,3,3,3] "b.w" = {-1.0143253, 0.68723387, 0.2853081, 0.7341959, ... 652a3809},
       float[3,3,1,1] "c.w" = {0.20882747, -0.8158816, 0.47909757, -0.40374255, ... e0d52504},
       float[3,3,1,1] "d.w" = {0.40332967, 0.9445293, 0.6728871, -1.0732892, ... 6b830002},
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
       "a.before" = Conv (x, "a.w")
       ["a.bcos.abs"] "a.bcos.abs" = Abs ("a.before")  # from a
       ["a.bcos.square"] "a.bcos.square" = Mul ("a.before", "a.bcos.abs")  # from a
       ["a.bcos.energy.squares"] "a.bcos.energy.squares" = Mul (x, x)  # from a
       ["a.bcos.energy.flat"] "a.bcos.energy.flat" = Reshape ("a.bcos.energy.squares", "a.bcos.energy.rows")  # from a
       ["a.bcos.energy.channel_sum"] "a.bcos.energy.channel_sum" = Conv <kernel_shape = [1]> ("a.bcos.energy.flat", "a.bcos.energy.ones", "a.bcos.energy.epsilon")  # from a
       ["a.bcos.energy.sum"] "a.bcos.energy.sum" = Reshape ("a.bcos.energy.channel_sum", "a.bcos.energy.grid")  # from a
       ["a.bcos.energy.pow"] "a.bcos.energy.pow" = Pow ("a.bcos.energy.sum", "a.bcos.energy.exponent")  # from a
       ["a.bcos.weighed.weighed"] a = Mul ("a.bcos.square", "a.bcos.energy.pow")  # from a
       "b.before" = Conv <pads = [1, 1, 1, 1]> (x, "b.w")
       ["b.bcos.abs"] "b.bcos.abs" = Abs ("b.before")  # from b
       ["b.bcos.square"] "b.bcos.square" = Mul ("b.before", "b.bcos.abs")  # from b
       ["b.bcos.energy.flat"] "b.bcos.energy.flat" = Reshape ("a.bcos.energy.squares", "b.bcos.energy.rows")  # from b
       ["b.bcos.energy.channel_sum"] "b.bcos.energy.channel_sum" = Conv <kernel_shape = [1]> ("b.bcos.energy.flat", "b.bcos.energy.ones")  # from b
       ["b.bcos.energy.sum"] "b.bcos.energy.sum" = Reshape ("b.bcos.energy.channel_sum", "b.bcos.energy.grid")  # from b
       ["b.bcos.energy.window_sum"] "b.bcos.energy.window_sum" = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> ("b.bcos.energy.sum", "b.bcos.energy.ones_2", "b.bcos.energy.epsilon")  # from b
       ["b.bcos.energy.pow"] "b.bcos.energy.pow" = Pow ("b.bcos.energy.window_sum", "b.bcos.energy.exponent")  # from b
       ["b.bcos.weighed.weighed"] b = Mul ("b.bcos.square", "b.bcos.energy.pow")  # from b
       "c.before" = Conv (x, "c.w")
       ["c.bcos.abs"] "c.bcos.abs" = Abs ("c.before")  # from c
       ["c.bcos.square"] "c.bcos.square" = Mul ("c.before", "c.bcos.abs")  # from c
       ["c.bcos.weighed.weighed"] c = Mul ("c.bcos.square", "a.bcos.energy.pow")  # from c
       "d.before" = Conv <strides = [2, 2]> (x, "d.w")
       ["d.bcos.abs"] "d.bcos.abs" = Abs ("d.before")  # from d
       ["d.bcos.square"] "d.bcos.square" = Mul ("d.before", "d.bcos.abs")  # from d
       ["d.bcos.energy.stride"] "d.bcos.energy.stride" = MaxPool <kernel_shape = [1, 1], strides = [2, 2]> ("a.bcos.energy.sum")  # from d
       ["d.bcos.energy.pow"] "d.bcos.energy.pow" = Pow ("d.bcos.energy.stride", "d.bcos.energy.exponent")  # from d
       ["d.bcos.weighed.weighed"] d = Mul ("d.bcos.square", "d.bcos.energy.pow")  # from d
    }
    "#);
}
