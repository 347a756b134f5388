//! Images between convolutions stay in blocks of channels.
//!
//! For an absolute value or a bound, ONNX Runtime reorders an image there and back, which costs more than the
//! operator itself. A depthwise convolution by 1 works on blocks, and the next operator is fused into it; the
//! absolute value is a `LeakyRelu` of slope -1. A sum and the `Relu` after it are fused as well:
//!
//! ```text
//! Abs (u)              LeakyRelu <alpha = -1> (Conv (u, ones))
//! Clip (x, 0, 6)       Clip (Conv (x, ones), 0, 6)
//! Relu (Add (x, z))    Relu (Add (Conv (x, ones), z))
//! ```

use bcosc_ir::views::Window;
use bcosc_ir::{DataType, Graph, Model, NodeId, Op, Patch, Value};

use super::blocks::{Blocks, is_own_convolution};
use super::everywhere;
use crate::analysis::scalars::bounds;
use crate::analysis::weights::WeightError;
use crate::bcos::ones::Ones;
use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

/// The pass.
pub static KEEP_BLOCKED_LAYOUT: Pass = Pass {
    name: "keep-blocked-layout",
    summary: "with --deploy: keep images between convolutions in their layout of blocks",
    effect: Effect::Exact,
    requires: &[&crate::deploy::lower::LOWER_DEPLOY],
    run,
};

fn run(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
    if !cx.settings.deploy {
        return Ok(Outcome::default());
    }
    let blocks = Blocks::of(&model.graph);
    everywhere(model, cx, "stays in blocks of channels", |graph, node| {
        let x = leaves_blocks(graph, &blocks, node)?;
        let channels = blocks.filled(x).ok_or(Reason::NotBlocked);
        Some(
            channels
                .map(|c| stay(graph, node, x, c))
                .map_err(WeightError::from),
        )
    })
}

/// The operand in blocks that would be reordered for an operator, or read once more.
fn leaves_blocks(graph: &Graph, blocks: &Blocks, node: NodeId) -> Option<Value> {
    let x = graph.input(node, 0)?;
    let op = graph
        .op(node)
        .filter(|op| op.domain().is_empty() && blocks.has(x))?;
    let is_fused = || is_own_convolution(graph, x);
    let leaves = match op.op_type() {
        "Abs" => true,
        "Clip" => bounds(graph, node).is_some() && !is_fused(),
        "Add" => {
            let sum = Value { node, slot: 0 };
            let z = graph.input(node, 1)?;
            let rectified = graph
                .sole_consumer(sum)
                .and_then(|(relu, _)| graph.op(relu));
            rectified.is_some_and(|op| op.is("Relu"))
                && blocks.has(sum)
                && !is_fused()
                && !is_own_convolution(graph, z)
        }
        _ => false,
    };
    leaves.then_some(x)
}

fn stay(graph: &Graph, node: NodeId, x: Value, channels: u64) -> Patch {
    let mut patch = Patch::at(node);
    let ones = Ones {
        out: channels,
        per_group: 1,
        group: channels,
        window: &Window::pointwise(2),
        factor: 1.0,
        epsilon: 0.0,
    };
    let copy = ones.write(&mut patch, "blocked", x.into(), DataType::Float);
    if graph.op(node).is_some_and(|op| op.is("Abs")) {
        let leaky = Op::new("", "LeakyRelu")
            .named("abs")
            .with_float("alpha", -1.0);
        let size = patch.op(leaky, &[copy]);
        patch.replace(Value { node, slot: 0 }, size);
    } else {
        patch.set_input(node, 0, Some(copy));
    }
    patch
}

#[cfg(test)]
mod tests {
    use bcosc_ir::ModelBuilder;

    use super::KEEP_BLOCKED_LAYOUT;
    use crate::deploy::lower::LOWER_DEPLOY;
    use crate::deploy::scale_inputs::SCALE_INPUTS;
    use crate::deploy::signed_square::SIGNED_SQUARES;
    use crate::deploy::square_relu::SQUARE_AFTER_RELU;
    use crate::deploy::testing::{bcos, deployed, image, refused};
    use crate::testing::{Layers, text};
    use crate::{Pass, Reason};

    const RULES: &[&Pass] = &[
        &SQUARE_AFTER_RELU,
        &SCALE_INPUTS,
        &SIGNED_SQUARES,
        &LOWER_DEPLOY,
        &KEEP_BLOCKED_LAYOUT,
    ];

    /// Two pointwise layers on the image, their rectified sum, and a layer on that.
    fn residual(channels: u64) -> ModelBuilder {
        let one = image().conv("x", "a", &[channels, 3, 1, 1], []);
        let two = one.conv("x", "b", &[channels, 3, 1, 1], []);
        let sum = two
            .op("Add", &["a", "b"], "sum", [])
            .op("Relu", &["sum"], "s", []);
        sum.conv("s", "y", &[2, channels, 1, 1], []).output("y")
    }

    #[test]
    fn absolute_values_and_rectified_sums_stay() {
        let (after, outcome) = deployed(RULES, &bcos(residual(16), 2.0));
        assert_eq!(outcome.changes.len(), 3);
        insta::assert_snapshot!(text(&after), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,3,6,8] x) => (y)
        <
           float[16,3,1,1] "a.w" = {-0.8198231, -0.5585862, -1.0915186, -1.0646492, ... ca77e232},
           float[16,3,1,1] "b.w" = {-1.0143253, 0.68723387, 0.2853081, 0.7341959, ... df84ae02},
           float[2,16,1,1] "y.w" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, ... d1209e77},
           int64[3] "a.energy.rows" = {0, 3, -1},
           float[1,3,1] "a.energy.ones" = {1.0, 1.0, 1.0},
           float[1] "a.energy.epsilon" = {1e-6},
           int64[4] "a.energy.grid" = {0, 1, 6, 8},
           float "a.energy.exponent" = {-0.25},
           float[16,1,1,1] "a.abs.ones" = {1.0, 1.0, 1.0, 1.0, ... 0243771d},
           float[16,1,1,1] "b.abs.ones" = {1.0, 1.0, 1.0, 1.0, ... 0243771d},
           float[16,1,1,1] "sum.ones" = {1.0, 1.0, 1.0, 1.0, ... 0243771d},
           float[1,16,1,1] "y.bcos.energy.ones" = {1.0, 1.0, 1.0, 1.0, ... 0243771d},
           float[1] "y.bcos.energy.epsilon" = {1e-6},
           float "y.bcos.energy.exponent" = {-0.5}
        >
        {
           ["a.energy.squares"] "a.energy.squares" = Mul (x, x)  # from a
           ["a.energy.flat"] "a.energy.flat" = Reshape ("a.energy.squares", "a.energy.rows")  # from a
           ["a.energy.channel_sum"] "a.energy.channel_sum" = Conv <kernel_shape = [1]> ("a.energy.flat", "a.energy.ones", "a.energy.epsilon")  # from a
           ["a.energy.sum"] "a.energy.sum" = Reshape ("a.energy.channel_sum", "a.energy.grid")  # from a
           ["a.energy.pow"] "a.energy.pow" = Pow ("a.energy.sum", "a.energy.exponent")  # from a
           ["a.weighed.weighed"] "a.weighed.weighed" = Mul (x, "a.energy.pow")  # from a
           ["a.conv"] "a.conv" = Conv <kernel_shape = [1, 1]> ("a.weighed.weighed", "a.w")  # from a
           ["a.abs.blocked"] "a.abs.blocked" = Conv <kernel_shape = [1, 1], group = 16> ("a.conv", "a.abs.ones")  # from a
           ["a.abs.abs"] "a.abs.abs" = LeakyRelu <alpha = -1.0> ("a.abs.blocked")  # from a
           ["a.bcos_2"] "a.bcos_2" = Mul ("a.conv", "a.abs.abs")  # from a
           ["b.weighed.weighed"] "b.weighed.weighed" = Mul (x, "a.energy.pow")  # from b
           ["b.conv"] "b.conv" = Conv <kernel_shape = [1, 1]> ("b.weighed.weighed", "b.w")  # from b
           ["b.abs.blocked"] "b.abs.blocked" = Conv <kernel_shape = [1, 1], group = 16> ("b.conv", "b.abs.ones")  # from b
           ["b.abs.abs"] "b.abs.abs" = LeakyRelu <alpha = -1.0> ("b.abs.blocked")  # from b
           ["b.bcos_2"] "b.bcos_2" = Mul ("b.conv", "b.abs.abs")  # from b
           ["sum.blocked"] "sum.blocked" = Conv <kernel_shape = [1, 1], group = 16> ("a.bcos_2", "sum.ones")  # from sum
           sum = Add ("sum.blocked", "b.bcos_2")
           s = Relu (sum)
           "y.before" = Conv (s, "y.w")
           ["y.bcos.abs"] "y.bcos.abs" = Abs ("y.before")  # from y
           ["y.bcos.square"] "y.bcos.square" = Mul ("y.before", "y.bcos.abs")  # from y
           ["y.bcos.energy.squares"] "y.bcos.energy.squares" = Mul (s, s)  # from y
           ["y.bcos.energy.channel_sum"] "y.bcos.energy.channel_sum" = Conv <kernel_shape = [1, 1]> ("y.bcos.energy.squares", "y.bcos.energy.ones", "y.bcos.energy.epsilon")  # from y
           ["y.bcos.energy.pow"] "y.bcos.energy.pow" = Pow ("y.bcos.energy.channel_sum", "y.bcos.energy.exponent")  # from y
           ["y.bcos.weighed.weighed"] y = Mul ("y.bcos.square", "y.bcos.energy.pow")  # from y
        }
        "#);
    }

    #[test]
    fn bounds_stay() {
        let layer = image().conv("x", "a", &[16, 3, 3, 3], []);
        let layer = layer.clip("a", "b", [0.0, 6.0]);
        let model = bcos(layer.conv("b", "y", &[2, 16, 1, 1], []).output("y"), 2.0);
        let (after, outcome) = deployed(RULES, &model);
        assert_eq!(outcome.changes.len(), 1);
        insta::assert_snapshot!(text(&after), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,3,6,8] x) => (y)
        <
           float[16,3,3,3] "a.w" = {-0.8198231, -0.5585862, -1.0915186, -1.0646492, ... 38aac83a},
           float "b.low" = {0.0},
           float "b.high" = {6.0},
           float[2,16,1,1] "y.w" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, ... d1209e77},
           int64[3] "a.bcos.energy.rows" = {0, 3, -1},
           float[1,3,1] "a.bcos.energy.ones" = {1.0, 1.0, 1.0},
           int64[4] "a.bcos.energy.grid" = {0, 1, 6, 8},
           float[1,1,3,3] "a.bcos.energy.ones_2" = {1.0, 1.0, 1.0, 1.0, ... 7371cc9f},
           float[1] "a.bcos.energy.epsilon" = {1e-6},
           float "a.bcos.energy.exponent" = {-0.5},
           float[16,1,1,1] "a.bcos.weighed.ones" = {1.0, 1.0, 1.0, 1.0, ... 0243771d},
           float[16,1,1,1] "b.ones" = {1.0, 1.0, 1.0, 1.0, ... 0243771d},
           float[1,16,1,1] "y.bcos.energy.ones" = {1.0, 1.0, 1.0, 1.0, ... 0243771d},
           float[1] "y.bcos.energy.epsilon" = {1e-6},
           float "y.bcos.energy.exponent" = {-0.5}
        >
        {
           a = Conv (x, "a.w")
           ["a.bcos.relu"] "a.bcos.relu" = Relu (a)  # from a
           ["a.bcos.square"] "a.bcos.square" = Mul ("a.bcos.relu", "a.bcos.relu")  # from a
           ["a.bcos.energy.squares"] "a.bcos.energy.squares" = Mul (x, x)  # from a
           ["a.bcos.energy.flat"] "a.bcos.energy.flat" = Reshape ("a.bcos.energy.squares", "a.bcos.energy.rows")  # from a
           ["a.bcos.energy.channel_sum"] "a.bcos.energy.channel_sum" = Conv <kernel_shape = [1]> ("a.bcos.energy.flat", "a.bcos.energy.ones")  # from a
           ["a.bcos.energy.sum"] "a.bcos.energy.sum" = Reshape ("a.bcos.energy.channel_sum", "a.bcos.energy.grid")  # from a
           ["a.bcos.energy.window_sum"] "a.bcos.energy.window_sum" = Conv <kernel_shape = [3, 3]> ("a.bcos.energy.sum", "a.bcos.energy.ones_2", "a.bcos.energy.epsilon")  # from a
           ["a.bcos.energy.pow"] "a.bcos.energy.pow" = Pow ("a.bcos.energy.window_sum", "a.bcos.energy.exponent")  # from a
           ["a.bcos.weighed.spread"] "a.bcos.weighed.spread" = Conv <kernel_shape = [1, 1]> ("a.bcos.energy.pow", "a.bcos.weighed.ones")  # from a
           ["a.bcos.weighed.weighed"] "a.bcos.weighed.weighed" = Mul ("a.bcos.square", "a.bcos.weighed.spread")  # from a
           ["b.blocked"] "b.blocked" = Conv <kernel_shape = [1, 1], group = 16> ("a.bcos.weighed.weighed", "b.ones")  # from b
           b = Clip ("b.blocked", "b.low", "b.high")
           "y.before" = Conv (b, "y.w")
           ["y.bcos.abs"] "y.bcos.abs" = Abs ("y.before")  # from y
           ["y.bcos.square"] "y.bcos.square" = Mul ("y.before", "y.bcos.abs")  # from y
           ["y.bcos.energy.squares"] "y.bcos.energy.squares" = Mul (b, b)  # from y
           ["y.bcos.energy.channel_sum"] "y.bcos.energy.channel_sum" = Conv <kernel_shape = [1, 1]> ("y.bcos.energy.squares", "y.bcos.energy.ones", "y.bcos.energy.epsilon")  # from y
           ["y.bcos.energy.pow"] "y.bcos.energy.pow" = Pow ("y.bcos.energy.channel_sum", "y.bcos.energy.exponent")  # from y
           ["y.bcos.weighed.weighed"] y = Mul ("y.bcos.square", "y.bcos.energy.pow")  # from y
        }
        "#);
    }

    #[test]
    fn channels_that_fill_no_blocks_stay() {
        let reasons = refused(RULES, &bcos(residual(8), 2.0));
        assert_eq!(
            reasons,
            vec![Reason::NotBlocked, Reason::NotBlocked, Reason::NotBlocked]
        );
    }

    #[test]
    fn what_is_fused_anyway_stays() {
        let one = image().conv("x", "a", &[16, 3, 1, 1], []);
        let two = one.conv("x", "b", &[16, 3, 1, 1], []);
        let bounded = two.clip("a", "low", [0.0, 6.0]);
        let sum = bounded
            .op("Add", &["low", "b"], "sum", [])
            .op("Relu", &["sum"], "y", []);
        assert_eq!(refused(&[&KEEP_BLOCKED_LAYOUT], &sum.typed("y")), []);
    }

    #[test]
    fn sums_that_are_read_unrectified_too_stay() {
        let relu = |image: ModelBuilder, x: &str, y: &str| image.op("Relu", &[x], y, []);
        let one = relu(image().conv("x", "a", &[16, 3, 1, 1], []), "a", "c");
        let two = relu(one.conv("x", "b", &[16, 3, 1, 1], []), "b", "d");
        let sum = relu(two.op("Add", &["c", "d"], "sum", []), "sum", "y");
        let (_, outcome) = deployed(&[&KEEP_BLOCKED_LAYOUT], &sum.clone().typed("y"));
        assert_eq!(outcome.changes.len(), 1);
        let model = sum.output("y").typed("sum");
        assert_eq!(refused(&[&KEEP_BLOCKED_LAYOUT], &model), []);
    }
}
