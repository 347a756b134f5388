//! B = 2 layers without a rectifier become their signed square over the norm.
//!
//! The factors of `y |y|` have the same shape, which is fastest to multiply, and multiplying by the reciprocal of
//! the norm is cheaper than dividing, as the norm has one channel. A depthwise layer, whose norm has as many channels
//! as its output, divides:
//!
//! ```text
//! z = bcosc.Scale <b = 2> (y, bcosc.PatchNorm (x))
//! z = bcosc.Weigh (Mul (y, Abs (y)), bcosc.Energy <exponent = -1/2> (x))
//! z = Div (Mul (y, Abs (y)), bcosc.Energy <exponent = 1/2> (x))                 depthwise
//! ```

use bcosc_ir::{Graph, Model, Op, Patch, Value};

use super::energy::{energy_of, over_norm};
use super::everywhere;
use crate::analysis::weights::WeightError;
use crate::dialect::Scale;
use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

/// The pass.
pub static SIGNED_SQUARES: Pass = Pass {
    name: "signed-squares",
    summary: "with --deploy: write the other B = 2 layers as squares over norms",
    effect: Effect::Exact,
    requires: &[
        &crate::deploy::square_relu::SQUARE_AFTER_RELU,
        &crate::deploy::scale_inputs::SCALE_INPUTS,
    ],
    run,
};

fn run(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
    everywhere(model, cx, "square over the norm", |graph, node| {
        let scale = Scale::of(graph, node)?;
        Some(square(graph, &scale).map_err(WeightError::from))
    })
}

fn square(graph: &Graph, scale: &Scale) -> Result<Patch, Reason> {
    let energy = energy_of(graph, scale)?;
    let y = scale.y.into();
    let mut patch = Patch::at(scale.node);
    let size = patch.op(Op::new("", "Abs"), &[y]);
    let signed = patch.op(Op::new("", "Mul").named("square"), &[y, size]);
    let quotient = over_norm(&mut patch, scale, signed, energy);
    let scaled = Value {
        node: scale.node,
        slot: 0,
    };
    patch.replace(scaled, quotient);
    Ok(patch)
}

#[cfg(test)]
mod tests {
    use bcosc_ir::Attribute;

    use super::SIGNED_SQUARES;
    use crate::Reason;
    use crate::deploy::testing::{bcos, deployed, image, refused};
    use crate::testing::{Layers, text, weight};

    #[test]
    fn a_product_with_the_reciprocal_replaces_the_quotient() {
        let layer = image().conv("x", "y", &[4, 3, 3, 3], []).output("y");
        let (after, _) = deployed(&[&SIGNED_SQUARES], &bcos(layer, 2.0));
        insta::assert_snapshot!(text(&after), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,3,6,8] x) => (y)
        <
           float[4,3,3,3] "y.w" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, ... ae8cafe7}
        >
        {
           "y.before" = Conv (x, "y.w")
           ["y.bcos.abs"] "y.bcos.abs" = Abs ("y.before")  # from y
           ["y.bcos.square"] "y.bcos.square" = Mul ("y.before", "y.bcos.abs")  # from y
           ["y.bcos.energy"] "y.bcos.energy" = bcosc.Energy <kernel_shape = [3, 3], group = 1, channels = 3, gain = 1.0, epsilon = 1e-6, exponent = -0.5> (x)  # from y
           ["y.bcos.weighed"] y = bcosc.Weigh <group = 1, channels = 4, spatial = 2> ("y.bcos.square", "y.bcos.energy")  # from y
        }
        "#);
    }

    #[test]
    fn windows_of_every_form_keep_their_energy() {
        for attributes in [
            vec![Attribute::ints("dilations", &[2, 1])],
            vec![
                Attribute::string("auto_pad", "SAME_LOWER"),
                Attribute::ints("strides", &[2, 1]),
            ],
            vec![
                Attribute::ints("pads", &[0, 1, 2, 0]),
                Attribute::ints("strides", &[1, 3]),
            ],
            vec![
                Attribute::int("group", 3),
                Attribute::ints("strides", &[2, 1]),
            ],
        ] {
            let grouped = attributes.iter().any(|a| a.name() == "group");
            let dims = [6, if grouped { 1 } else { 3 }, 2, 5];
            let layer = image().conv("x", "y", &dims, attributes).output("y");
            let (_, outcome) = deployed(&[&SIGNED_SQUARES], &bcos(layer, 2.0));
            assert_eq!(outcome.changes.len(), 1);
        }
    }

    #[test]
    fn depthwise_layers_divide() {
        let groups = [Attribute::int("group", 3)];
        let layer = image().conv("x", "y", &[3, 1, 3, 3], groups).output("y");
        let model = bcos(layer, 2.0);
        let (after, _) = deployed(&[&SIGNED_SQUARES], &model);
        insta::assert_snapshot!(text(&after), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,3,6,8] x) => (y)
        <
           float[3,1,3,3] "y.w" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, ... 9bc664bf}
        >
        {
           "y.before" = Conv <group = 3> (x, "y.w")
           ["y.bcos.abs"] "y.bcos.abs" = Abs ("y.before")  # from y
           ["y.bcos.square"] "y.bcos.square" = Mul ("y.before", "y.bcos.abs")  # from y
           ["y.bcos.energy"] "y.bcos.energy" = bcosc.Energy <kernel_shape = [3, 3], group = 3, channels = 3, gain = 1.0, epsilon = 1e-6, exponent = 0.5> (x)  # from y
           ["y.bcos.quotient"] y = Div ("y.bcos.square", "y.bcos.energy")  # from y
        }
        "#);
    }

    #[test]
    fn products_of_vectors_stay() {
        let layer = image()
            .param("w", weight(3, &[8, 5]))
            .op("MatMul", &["x", "w"], "y", [])
            .output("y");
        let model = bcos(layer, 2.0);
        assert_eq!(refused(&[&SIGNED_SQUARES], &model), [Reason::NoConvolution]);
    }
}
