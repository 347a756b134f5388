use bcosc_ir::{Attribute, DataType, Graph, Model, ModelBuilder};

use super::CHUNK_CHANNELS;
use crate::deploy::keep_blocked_layout::KEEP_BLOCKED_LAYOUT;
use crate::deploy::lower::LOWER_DEPLOY;
use crate::deploy::scale_inputs::SCALE_INPUTS;
use crate::deploy::signed_square::SIGNED_SQUARES;
use crate::deploy::square_relu::SQUARE_AFTER_RELU;
use crate::deploy::testing::{bcos, deployed, refused};
use crate::testing::{Layers, inferred, text};
use crate::{Pass, Reason};

const RULES: &[&Pass] = &[
    &SQUARE_AFTER_RELU,
    &SCALE_INPUTS,
    &SIGNED_SQUARES,
    &LOWER_DEPLOY,
    &KEEP_BLOCKED_LAYOUT,
    &CHUNK_CHANNELS,
];

/// A graph with an image of 3 channels and some positions.
fn image(positions: &str) -> ModelBuilder {
    ModelBuilder::new(17).input("x", DataType::Float, &format!("batch,3,{positions}"))
}

/// A layer with a window on an image, and a pointwise one on that.
fn two_layers(image: ModelBuilder, channels: u64) -> ModelBuilder {
    let padded = [Attribute::ints("pads", &[1, 1, 1, 1])];
    let wide = image
        .conv("x", "a", &[channels, 3, 3, 3], padded)
        .op("Relu", &["a"], "b", []);
    wide.conv("b", "y", &[2, channels, 1, 1], []).output("y")
}

fn count(model: &Model, op_type: &str) -> usize {
    let graph: &Graph = &model.graph;
    let ops = graph.ops().into_iter();
    ops.filter(|&node| graph.op(node).is_some_and(|op| op.is(op_type)))
        .count()
}

#[test]
fn a_wide_image_comes_in_chunks() {
    let (after, outcome) = deployed(RULES, &bcos(two_layers(image("48,48"), 128), 2.0));
    assert_eq!(outcome.changes.len(), 1);
    assert_eq!(outcome.changes[0].what, "split into 2 chunks of channels");
    insta::assert_snapshot!(text(&after), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 17]
    >
    main (float[batch,3,48,48] x) => (y)
    <
       int64[3] "a.bcos.energy.rows" = {0, 3, -1},
       float[1,3,1] "a.bcos.energy.ones" = {1.0, 1.0, 1.0},
       int64[4] "a.bcos.energy.grid" = {0, 1, 48, 48},
       float[1,1,3,3] "a.bcos.energy.ones_2" = {1.0, 1.0, 1.0, 1.0, ... 7371cc9f},
       float[1] "a.bcos.energy.epsilon" = {1e-6},
       float[64,3,3,3] "a.block" = {-0.8198231, -0.5585862, -1.0915186, -1.0646492, ... e636ed73},
       float[64,3,3,3] "a.block_2" = {0.19716483, 0.52502316, 0.13490225, 0.60730743, ... ec2ac7cb},
       float[64,1,1,1] "a.bcos.weighed.spread.block" = {1.0, 1.0, 1.0, 1.0, ... f889bc26},
       float[1] "y.before.energy.epsilon" = {1e-6},
       float[1,64,1,1] "y.before.energy.channel_sum.block" = {1.0, 1.0, 1.0, 1.0, ... f889bc26},
       float[64,1,1,1] "y.before.weighed.spread.block" = {1.0, 1.0, 1.0, 1.0, ... f889bc26},
       float[2,64,1,1] "y.before.conv.block" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, ... 075a8ce2},
       float[2,64,1,1] "y.before.conv.block_2" = {0.6346884, 0.8189137, -0.93218905, -0.48098937, ... 02167537}
    >
    {
       ["a.bcos.energy.squares"] "a.bcos.energy.squares" = Mul (x, x)  # from a
       ["a.bcos.energy.flat"] "a.bcos.energy.flat" = Reshape ("a.bcos.energy.squares", "a.bcos.energy.rows")  # from a
       ["a.bcos.energy.channel_sum"] "a.bcos.energy.channel_sum" = Conv <kernel_shape = [1]> ("a.bcos.energy.flat", "a.bcos.energy.ones")  # from a
       ["a.bcos.energy.sum"] "a.bcos.energy.sum" = Reshape ("a.bcos.energy.channel_sum", "a.bcos.energy.grid")  # from a
       ["a.bcos.energy.window_sum"] "a.bcos.energy.window_sum" = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> ("a.bcos.energy.sum", "a.bcos.energy.ones_2", "a.bcos.energy.epsilon")  # from a
       ["a.bcos.energy.sqrt"] "a.bcos.energy.sqrt" = Sqrt ("a.bcos.energy.window_sum")  # from a
       ["a.bcos.energy.reciprocal"] "a.bcos.energy.reciprocal" = Reciprocal ("a.bcos.energy.sqrt")  # from a
       ["a.chunk"] "a.chunk" = Conv <pads = [1, 1, 1, 1]> (x, "a.block")  # from a
       ["a.chunk_2"] "a.chunk_2" = Conv <pads = [1, 1, 1, 1]> (x, "a.block_2")  # from a
       ["a.bcos.relu.chunk"] "a.bcos.relu.chunk" = Relu ("a.chunk")  # from a
       ["a.bcos.relu.chunk_2"] "a.bcos.relu.chunk_2" = Relu ("a.chunk_2")  # from a
       ["a.bcos.square.chunk"] "a.bcos.square.chunk" = Mul ("a.bcos.relu.chunk", "a.bcos.relu.chunk")  # from a
       ["a.bcos.square.chunk_2"] "a.bcos.square.chunk_2" = Mul ("a.bcos.relu.chunk_2", "a.bcos.relu.chunk_2")  # from a
       ["a.bcos.weighed.spread.chunk"] "a.bcos.weighed.spread.chunk" = Conv <kernel_shape = [1, 1]> ("a.bcos.energy.reciprocal", "a.bcos.weighed.spread.block")  # from a
       ["a.bcos.weighed.weighed.chunk"] "a.bcos.weighed.weighed.chunk" = Mul ("a.bcos.square.chunk", "a.bcos.weighed.spread.chunk")  # from a
       ["a.bcos.weighed.weighed.chunk_2"] "a.bcos.weighed.weighed.chunk_2" = Mul ("a.bcos.square.chunk_2", "a.bcos.weighed.spread.chunk")  # from a
       ["y.before.energy.squares.chunk"] "y.before.energy.squares.chunk" = Mul ("a.bcos.weighed.weighed.chunk", "a.bcos.weighed.weighed.chunk")  # from "y.before"
       ["y.before.energy.squares.chunk_2"] "y.before.energy.squares.chunk_2" = Mul ("a.bcos.weighed.weighed.chunk_2", "a.bcos.weighed.weighed.chunk_2")  # from "y.before"
       ["y.before.energy.channel_sum.chunk"] "y.before.energy.channel_sum.chunk" = Conv <kernel_shape = [1, 1]> ("y.before.energy.squares.chunk", "y.before.energy.channel_sum.block", "y.before.energy.epsilon")  # from "y.before"
       ["y.before.energy.channel_sum.chunk_2"] "y.before.energy.channel_sum.chunk_2" = Conv <kernel_shape = [1, 1]> ("y.before.energy.squares.chunk_2", "y.before.energy.channel_sum.block")  # from "y.before"
       ["y.before.energy.channel_sum.sum"] "y.before.energy.channel_sum.sum" = Add ("y.before.energy.channel_sum.chunk_2", "y.before.energy.channel_sum.chunk")  # from "y.before"
       ["y.before.energy.sqrt"] "y.before.energy.sqrt" = Sqrt ("y.before.energy.channel_sum.sum")  # from "y.before"
       ["y.before.energy.sqrt_2"] "y.before.energy.sqrt_2" = Sqrt ("y.before.energy.sqrt")  # from "y.before"
       ["y.before.energy.reciprocal"] "y.before.energy.reciprocal" = Reciprocal ("y.before.energy.sqrt_2")  # from "y.before"
       ["y.before.weighed.spread.chunk"] "y.before.weighed.spread.chunk" = Conv <kernel_shape = [1, 1]> ("y.before.energy.reciprocal", "y.before.weighed.spread.block")  # from "y.before"
       ["y.before.weighed.weighed.chunk"] "y.before.weighed.weighed.chunk" = Mul ("a.bcos.weighed.weighed.chunk", "y.before.weighed.spread.chunk")  # from "y.before"
       ["y.before.weighed.weighed.chunk_2"] "y.before.weighed.weighed.chunk_2" = Mul ("a.bcos.weighed.weighed.chunk_2", "y.before.weighed.spread.chunk")  # from "y.before"
       ["y.before.conv.chunk"] "y.before.conv.chunk" = Conv <kernel_shape = [1, 1]> ("y.before.weighed.weighed.chunk", "y.before.conv.block")  # from "y.before"
       ["y.before.conv.chunk_2"] "y.before.conv.chunk_2" = Conv <kernel_shape = [1, 1]> ("y.before.weighed.weighed.chunk_2", "y.before.conv.block_2")  # from "y.before"
       ["y.before.conv.sum"] "y.before.conv.sum" = Add ("y.before.conv.chunk_2", "y.before.conv.chunk")  # from "y.before"
       ["y.before.abs"] "y.before.abs" = Abs ("y.before.conv.sum")  # from "y.before"
       ["y.before.bcos"] y = Mul ("y.before.conv.sum", "y.before.abs")  # from "y.before"
    }
    "#);
}

#[test]
fn convolutions_between_chunks_are_cut_both_ways() {
    let padded = || [Attribute::ints("pads", &[1, 1, 1, 1])];
    let wide = image("48,48")
        .conv("x", "a", &[128, 3, 1, 1], [])
        .op("Relu", &["a"], "b", []);
    let wider = wide
        .conv("b", "c", &[256, 128, 3, 3], padded())
        .op("Relu", &["c"], "d", []);
    let pooled = [
        Attribute::ints("kernel_shape", &[2, 2]),
        Attribute::ints("strides", &[2, 2]),
    ];
    let small = wider.op("AveragePool", &["d"], "e", pooled);
    let model = bcos(small.conv("e", "y", &[2, 256, 1, 1], []).output("y"), 2.0);
    let (after, outcome) = deployed(RULES, &model);
    assert_eq!(outcome.changes.len(), 2);
    // Two chunks go in and four come out; the pool works on each of the four.
    assert_eq!(count(&after, "AveragePool"), 4);
    let cut = text(&after).matches("float[64,64,3,3]").count();
    assert_eq!(cut, 8);
}

#[test]
fn depthwise_weights_and_biases_are_cut_with_their_channels() {
    let plain = ModelBuilder::new(17)
        .input("x", DataType::Float, "batch,3,48,48")
        .param("bias", crate::testing::weight(5, &[128]))
        .param("w", crate::testing::weight(6, &[128, 3, 1, 1]))
        .param("d", crate::testing::weight(7, &[128, 1, 3, 3]))
        .param("v", crate::testing::weight(8, &[2, 128, 1, 1]))
        .op("Conv", &["x", "w", "bias"], "a", [])
        .op(
            "Conv",
            &["a", "d", "bias"],
            "b",
            [Attribute::int("group", 128)],
        )
        .op("Abs", &["b"], "c", [])
        .op("Sqrt", &["c"], "s", [])
        .op("Div", &["c", "s"], "q", [])
        .op("Conv", &["q", "v"], "y", [])
        .output("y");
    let model = inferred(plain);
    let (after, outcome) = deployed(&[&CHUNK_CHANNELS], &model);
    assert_eq!(outcome.changes.len(), 1);
    assert_eq!(text(&after).matches("group = 64").count(), 2);
}

#[test]
fn a_layer_reads_what_took_the_place_of_chunks() {
    let wide = image("48,48")
        .conv("x", "a", &[128, 3, 1, 1], [])
        .op("Abs", &["a"], "b", []);
    let narrow = wide.conv("b", "c", &[32, 128, 1, 1], []);
    let again = narrow
        .conv("c", "d", &[128, 32, 1, 1], [])
        .op("Abs", &["d"], "e", []);
    let model = again.conv("e", "y", &[2, 128, 1, 1], []).typed("y");
    let (_, outcome) = deployed(&[&CHUNK_CHANNELS], &model);
    assert_eq!(outcome.changes.len(), 2);
}

#[test]
fn an_image_that_fits_a_cache_stays_whole() {
    let model = bcos(two_layers(image("44,44"), 128), 2.0);
    assert_eq!(refused(RULES, &model), []);
}

#[test]
fn a_few_channels_stay_whole() {
    let model = bcos(two_layers(image("96,96"), 64), 2.0);
    assert_eq!(refused(RULES, &model), [Reason::WideChunks]);
}

#[test]
fn open_sizes_stay_whole() {
    let model = bcos(two_layers(image("height,width"), 128), 2.0);
    assert_eq!(refused(RULES, &model), []);
}

#[test]
fn an_image_that_is_read_as_a_whole_stays_whole() {
    let layers = two_layers(image("48,48"), 128).op("Softmax", &["b"], "p", []);
    let reasons = refused(RULES, &bcos(layers.output("p"), 2.0));
    assert!(
        matches!(reasons[..], [Reason::NotByChannel(_)]),
        "{reasons:?}"
    );
}

#[test]
fn an_output_stays_whole() {
    let model = bcos(two_layers(image("48,48"), 128).output("b"), 2.0);
    let reasons = refused(RULES, &model);
    assert!(
        matches!(reasons[..], [Reason::NotByChannel(_)]),
        "{reasons:?}"
    );
}
