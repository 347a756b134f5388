//! Signed squares that are summed stay in blocks of channels.
//!
//! Runtimes keep what flows between convolutions in blocks of channels and rearrange it for an absolute
//! value, there and back; on the wide sums of residual blocks that costs more than the value itself.
//! A depthwise convolution by 1 keeps the blocks and takes a leaky rectifier of slope -1, which is the absolute
//! value, into itself. A second one takes in the sum and the rectifier behind it:
//!
//! ```text
//! s = Relu (Add (Mul (u, Abs (u)), x))
//! s = Relu (Add (Conv (Mul (u, LeakyRelu <alpha = -1> (Conv (u, ones))), ones), x))
//! ```

use bcosc_ir::views::Window;
use bcosc_ir::{DataType, Dim, Graph, Model, NodeId, Op, Operand, Patch, TensorType, Value};

use super::everywhere;
use super::layout::is_signed_square;
use crate::weights::{self, WeightError};
use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

/// The pass.
pub struct BlockedSums;

/// Channels of the largest blocks that runtimes use.
const BLOCK: u64 = 16;

impl Pass for BlockedSums {
    fn name(&self) -> &'static str {
        "blocked-sums"
    }

    fn summary(&self) -> &'static str {
        "with --deploy: keep the sums of residual blocks in the layout of convolutions"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn requires(&self) -> &'static [&'static str] {
        &["narrow-scales"]
    }

    fn ensures(&self) -> &'static str {
        "no absolute value is taken of what is summed in blocks of channels"
    }

    fn run(&self, model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
        everywhere(model, cx, "summed in blocks of channels", |graph, node| {
            let squares = signed_squares(graph, node);
            (!squares.is_empty()).then(|| blocked(graph, node, &squares).map_err(WeightError::from))
        })
    }
}

/// The operands of a sum that are `u |u|` of a convolution u, by slot.
fn signed_squares(graph: &Graph, node: NodeId) -> Vec<(u32, Value)> {
    let is_sum = graph.op(node).is_some_and(|op| op.is("Add"));
    let operands = (0..2).filter_map(|slot| Some((slot, graph.input(node, slot)?)));
    operands
        .filter(|(_, x)| is_sum && is_signed_square(graph, *x))
        .collect()
}

fn blocked(graph: &Graph, node: NodeId, squares: &[(u32, Value)]) -> Result<Patch, Reason> {
    let sum = graph.value_type(Value { node, slot: 0 });
    let channels = sum.as_ref().and_then(blocks).ok_or(Reason::NotBlocked)?;
    let mut patch = Patch::at(node);
    // A product with 1 that is a convolution.
    let ones = vec![1.0; channels as usize];
    let ones = weights::tensor(DataType::Float, &[channels, 1, 1, 1], &ones);
    let ones = patch.parameter("ones", ones);
    let copied = |patch: &mut Patch, x: Operand| {
        let op = Window::pointwise(2).write(Op::new("", "Conv").named("blocked"));
        patch.op(op.with_int("group", channels as i64), &[x, ones])
    };
    for (i, &(slot, square)) in squares.iter().enumerate() {
        if graph.uses(square).len() != 1 {
            return Err(Reason::UsedElsewhere(graph.value_name(square).to_owned()));
        }
        let u = graph.input(square.node, 0).ok_or(Reason::Malformed)?;
        let copy = copied(&mut patch, u.into());
        let leaky = Op::new("", "LeakyRelu")
            .named("abs")
            .with_float("alpha", -1.0);
        let size = patch.op(leaky, &[copy]);
        let mut signed = patch.op(Op::new("", "Mul").named("square"), &[u.into(), size]);
        // One convolution takes the other operand in.
        if i == 0 {
            signed = copied(&mut patch, signed);
        }
        patch.set_input(node, slot, Some(signed));
    }
    Ok(patch)
}

/// Channels of an image that runtimes keep in blocks.
fn blocks(value: &TensorType) -> Option<u64> {
    match value.shape.as_deref()? {
        [_, Dim::Known(channels), _, _] => Some(*channels),
        _ => None,
    }
    .filter(|channels| value.dtype == DataType::Float && channels % BLOCK == 0)
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{Attribute, ModelBuilder};

    use super::BlockedSums;
    use crate::cnn::deploy::narrow::NarrowScales;
    use crate::cnn::deploy::square_relu::SquareAfterRelu;
    use crate::cnn::deploy::testing::{bcos, conv, deployed, image, refused};
    use crate::testing::text;
    use crate::{Pass, Reason};

    const RULES: &[&dyn Pass] = &[&SquareAfterRelu, &NarrowScales, &BlockedSums];

    /// Two pointwise layers on the image, their rectified sum, and a layer on that.
    fn residual(channels: u64) -> ModelBuilder {
        let one = conv(image(), "x", "a", &[channels, 3, 1, 1], []);
        let two = conv(one, "x", "b", &[channels, 3, 1, 1], []);
        let sum = two
            .op("Add", &["a", "b"], "sum", [])
            .op("Relu", &["sum"], "s", []);
        conv(sum, "s", "y", &[2, channels, 1, 1], []).output("y")
    }

    #[test]
    fn sums_stay_in_blocks() {
        let (after, outcome) = deployed(RULES, &bcos(residual(16), 2.0));
        assert_eq!(outcome.changes.len(), 1);
        insta::assert_snapshot!(text(&after), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,3,6,8] x) => (y)
        <
           float[16,3,1,1] "a.weight" = {-0.8198231, -0.5585862, -1.0915186, -1.0646492, ... ca77e232},
           float[16,3,1,1] "b.weight" = {-1.0143253, 0.68723387, 0.2853081, 0.7341959, ... df84ae02},
           float[2,16,1,1] "y.weight" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, ... d1209e77},
           float[16,1,1,1] "sum.ones" = {1.0, 1.0, 1.0, 1.0, ... 0243771d}
        >
        {
           ["a.energy"] "a.energy" = bcosc.Energy <kernel_shape = [1, 1], group = 1, channels = 3, gain = 1.0, epsilon = 1e-6, exponent = -0.25> (x)  # from a
           ["a.weighed"] "a.weighed" = bcosc.Weigh <group = 1, channels = 3, spatial = 2> (x, "a.energy")  # from a
           ["a.conv"] "a.conv" = Conv <kernel_shape = [1, 1]> ("a.weighed", "a.weight")  # from a
           ["b.energy"] "b.energy" = bcosc.Energy <kernel_shape = [1, 1], group = 1, channels = 3, gain = 1.0, epsilon = 1e-6, exponent = -0.25> (x)  # from b
           ["b.weighed"] "b.weighed" = bcosc.Weigh <group = 1, channels = 3, spatial = 2> (x, "b.energy")  # from b
           ["b.conv"] "b.conv" = Conv <kernel_shape = [1, 1]> ("b.weighed", "b.weight")  # from b
           ["sum.blocked"] "sum.blocked" = Conv <kernel_shape = [1, 1], group = 16> ("a.conv", "sum.ones")  # from sum
           ["sum.abs"] "sum.abs" = LeakyRelu <alpha = -1.0> ("sum.blocked")  # from sum
           ["sum.square"] "sum.square" = Mul ("a.conv", "sum.abs")  # from sum
           ["sum.blocked_2"] "sum.blocked_2" = Conv <kernel_shape = [1, 1], group = 16> ("sum.square", "sum.ones")  # from sum
           ["sum.blocked_3"] "sum.blocked_3" = Conv <kernel_shape = [1, 1], group = 16> ("b.conv", "sum.ones")  # from sum
           ["sum.abs_2"] "sum.abs_2" = LeakyRelu <alpha = -1.0> ("sum.blocked_3")  # from sum
           ["sum.square_2"] "sum.square_2" = Mul ("b.conv", "sum.abs_2")  # from sum
           sum = Add ("sum.blocked_2", "sum.square_2")
           s = Relu (sum)
           "y.before" = Conv (s, "y.weight")
           ["y.patch_norm"] "y.patch_norm" = bcosc.PatchNorm <kernel_shape = [1, 1], group = 1, channels = 16> (s)  # from y
           ["y.bcos"] y = bcosc.Scale <b = 2.0, group = 1, channels = 2, spatial = 2> ("y.before", "y.patch_norm")  # from y
        }
        "#);
    }

    #[test]
    fn channels_that_fill_no_blocks_stay() {
        let model = bcos(residual(8), 2.0);
        assert_eq!(refused(RULES, &model), [Reason::NotBlocked]);
    }

    #[test]
    fn squares_that_are_read_elsewhere_stay() {
        let model = bcos(residual(16).output("a"), 2.0);
        let reasons = refused(RULES, &model);
        assert!(
            matches!(reasons[..], [Reason::UsedElsewhere(_)]),
            "{reasons:?}"
        );
    }

    #[test]
    fn rectified_layers_take_no_absolute_value() {
        let one = conv(image(), "x", "a", &[16, 3, 1, 1], []).op("Relu", &["a"], "r", []);
        let padded = [Attribute::ints("pads", &[1, 1, 1, 1])];
        let two = conv(one, "x", "b", &[16, 3, 3, 3], padded);
        let sum = two.op("Add", &["r", "b"], "y", []).output("y");
        assert_eq!(refused(RULES, &bcos(sum, 2.0)), []);
    }
}
