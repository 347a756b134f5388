//! Pointwise layers with more output than input channels scale their input.
//!
//! With e the energy of x at a position, a pointwise layer with B = 2 is `y|y| / sqrt(e) = u|u|` with
//! `u = w . (x e^(-1/4))`. The scale then multiplies the input channels instead of the more numerous output
//! channels. A stride drops positions first:
//!
//! ```text
//! z = bcosc.Scale <b = 2> (Conv <1x1, strides> (x, w), bcosc.PatchNorm <1x1, strides> (x))
//! p = MaxPool <1x1, strides> (x)
//! u = Conv <1x1> (bcosc.Weigh (p, bcosc.Energy <1x1, strides, exponent = -1/4> (x)), w)
//! z = Mul (u, Abs (u))          or, rectified,          z = Mul (Relu (u), Relu (u))
//! ```

use bcosc_ir::views::{Conv, Window};
use bcosc_ir::{Dim, Graph, Model, NodeId, Op, Operand, Patch, TensorType, Value};

use super::energy::energy_of;
use super::everywhere;
use super::rectifier::{Rectifier, rectified_square};
use crate::analysis::weights::WeightError;
use crate::dialect::{Scale, Weigh};
use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

/// The pass.
pub static SCALE_INPUTS: Pass = Pass {
    name: "scale-inputs",
    summary: "with --deploy: scale the input of 1x1 layers that add channels instead of the output",
    effect: Effect::Exact,
    requires: &[&crate::deploy::square_relu::SQUARE_AFTER_RELU],
    run,
};

fn run(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
    everywhere(model, cx, "scaled before the layer", |graph, node| {
        let scale = Scale::of(graph, node)?;
        Some(scale_input(graph, &scale).map_err(WeightError::from))
    })
}

/// The pointwise layer before a scale, if it has more output than input channels.
pub(crate) fn widening(graph: &Graph, scale: &Scale) -> Result<Conv, Reason> {
    let conv = pointwise(graph, scale)?;
    match conv.in_channels() < conv.out_channels() {
        true => Ok(conv),
        false => Err(Reason::NotNarrower),
    }
}

/// The pointwise layer before a scale.
fn pointwise(graph: &Graph, scale: &Scale) -> Result<Conv, Reason> {
    let conv = Conv::of(graph, scale.y.node).ok_or(Reason::NoConvolution)?;
    if !conv.window.is_single_cell() || conv.group != 1 {
        return Err(Reason::NotPointwise);
    }
    if conv.bias.is_some() {
        return Err(Reason::HasBias);
    }
    if graph.uses(scale.y).len() != 1 {
        return Err(Reason::UsedElsewhere(graph.value_name(scale.y).to_owned()));
    }
    Ok(conv)
}

fn scale_input(graph: &Graph, scale: &Scale) -> Result<Patch, Reason> {
    let energy = energy_of(graph, scale)?;
    let conv = pointwise(graph, scale)?;
    // `merge_scales.rs` makes one scale of this one and that of x.
    let merges = Weigh::of(graph, conv.x.node).is_some() && conv.window.is_pointwise();
    if !merges {
        widening(graph, scale)?;
    }
    let mut patch = Patch::at(conv.node);
    let rank = conv.window.rank();
    let mut x = Operand::Old(conv.x);
    let window = Window::pointwise(rank);
    if !conv.window.is_pointwise() {
        // Of all operators that drop positions, the target has the fastest kernels for pools.
        let every = Window::single_cell(&conv.window.strides);
        let pool = every.write(Op::new("", "MaxPool").named("stride"));
        x = patch.op(pool, &[x]);
        if let Some(kept) = input_at_output(graph, &conv) {
            patch.typed(x, kept);
        }
    }
    let factor = energy.to_the(-0.25).add(&mut patch);
    let weighed = patch.op(Weigh::op(1, conv.in_channels(), rank), &[x, factor]);
    if let Some(kept) = input_at_output(graph, &conv) {
        patch.typed(weighed, kept);
    }
    let op = window.write(Op::new("", "Conv").named("conv"));
    let u = patch.op(op, &[weighed, conv.w.into()]);
    if let Some(kept) = graph.value_type(conv.y()) {
        patch.typed(u, kept);
    }
    let scaled = output(scale.node);
    if let Some(rectifier) = Rectifier::behind(graph, scaled) {
        let square = rectified_square(&mut patch, u);
        rectifier.replace(&mut patch, scaled, square);
        return Ok(patch);
    }
    let size = patch.op(Op::new("", "Abs"), &[u]);
    let signed = patch.op(Op::new("", "Mul").named("bcos"), &[u, size]);
    patch.replace(scaled, signed);
    Ok(patch)
}

/// Type of the layer's input at the positions of its output.
fn input_at_output(graph: &Graph, conv: &Conv) -> Option<TensorType> {
    let mut found = graph.value_type(conv.y())?;
    *found.shape.as_mut()?.get_mut(1)? = Dim::Known(conv.in_channels());
    Some(found)
}

fn output(node: NodeId) -> Value {
    Value { node, slot: 0 }
}

#[cfg(test)]
mod tests {
    use bcosc_ir::Attribute;

    use super::SCALE_INPUTS;
    use crate::Reason;
    use crate::deploy::testing::{bcos, deployed, image, refused, written};
    use crate::testing::{Layers, text};

    #[test]
    fn a_widening_layer_with_a_stride_scales_its_input() {
        let strides = [Attribute::ints("strides", &[2, 2])];
        let layer = image().conv("x", "y", &[5, 3, 1, 1], strides).output("y");
        let (after, _) = deployed(&[&SCALE_INPUTS], &bcos(layer, 2.0));
        insta::assert_snapshot!(text(&after), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,3,6,8] x) => (y)
        <
           float[5,3,1,1] "y.w" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, ... 156079e8}
        >
        {
           ["y.before.stride"] "y.before.stride" = MaxPool <kernel_shape = [1, 1], strides = [2, 2]> (x)  # from "y.before"
           ["y.before.energy"] "y.before.energy" = bcosc.Energy <kernel_shape = [1, 1], strides = [2, 2], group = 1, channels = 3, gain = 1.0, epsilon = 1e-6, exponent = -0.25> (x)  # from "y.before"
           ["y.before.weighed"] "y.before.weighed" = bcosc.Weigh <group = 1, channels = 3, spatial = 2> ("y.before.stride", "y.before.energy")  # from "y.before"
           ["y.before.conv"] "y.before.conv" = Conv <kernel_shape = [1, 1]> ("y.before.weighed", "y.w")  # from "y.before"
           ["y.before.abs"] "y.before.abs" = Abs ("y.before.conv")  # from "y.before"
           ["y.before.bcos"] y = Mul ("y.before.conv", "y.before.abs")  # from "y.before"
        }
        "#);
    }

    #[test]
    fn a_single_cell_needs_no_border_and_no_dilation() {
        let attributes = [
            Attribute::ints("strides", &[2, 2]),
            Attribute::ints("dilations", &[2, 2]),
            Attribute::string("auto_pad", "SAME_UPPER"),
        ];
        let layer = image()
            .conv("x", "y", &[5, 3, 1, 1], attributes)
            .output("y");
        let (after, _) = deployed(&[&SCALE_INPUTS], &bcos(layer, 2.0));
        let text = text(&written(&after));
        assert_eq!(
            text.matches("MaxPool <kernel_shape = [1, 1], strides = [2, 2]>")
                .count(),
            2
        );
    }

    #[test]
    fn a_rectified_layer_squares_what_is_positive() {
        let layer = image()
            .conv("x", "y", &[5, 3, 1, 1], [])
            .op("Relu", &["y"], "z", []);
        let (after, _) = deployed(&[&SCALE_INPUTS], &bcos(layer.output("z"), 2.0));
        insta::assert_snapshot!(text(&after), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,3,6,8] x) => (z)
        <
           float[5,3,1,1] "y.w" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, ... 156079e8}
        >
        {
           ["y.energy"] "y.energy" = bcosc.Energy <kernel_shape = [1, 1], group = 1, channels = 3, gain = 1.0, epsilon = 1e-6, exponent = -0.25> (x)  # from y
           ["y.weighed"] "y.weighed" = bcosc.Weigh <group = 1, channels = 3, spatial = 2> (x, "y.energy")  # from y
           ["y.conv"] "y.conv" = Conv <kernel_shape = [1, 1]> ("y.weighed", "y.w")  # from y
           ["y.relu"] "y.relu" = Relu ("y.conv")  # from y
           ["y.square"] z = Mul ("y.relu", "y.relu")  # from y
        }
        "#);
    }

    #[test]
    fn a_layer_that_is_read_unrectified_too_takes_its_absolute_value() {
        let layer = image()
            .conv("x", "y", &[5, 3, 1, 1], [])
            .op("Relu", &["y"], "z", []);
        let model = bcos(layer.output("z").output("y"), 2.0);
        let (after, _) = deployed(&[&SCALE_INPUTS], &model);
        assert!(text(&after).contains("Abs ("));
    }

    #[test]
    fn a_layer_with_fewer_output_channels_stays() {
        let layer = image().conv("x", "y", &[2, 3, 1, 1], []).output("y");
        let model = bcos(layer, 2.0);
        assert_eq!(refused(&[&SCALE_INPUTS], &model), [Reason::NotNarrower]);
    }

    #[test]
    fn patches_stay() {
        let layer = image().conv("x", "y", &[5, 3, 3, 3], []).output("y");
        let model = bcos(layer, 2.0);
        assert_eq!(refused(&[&SCALE_INPUTS], &model), [Reason::NotPointwise]);
    }
}
