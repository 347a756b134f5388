//! A B = 2 layer with a rectifier is rectified first, then squared (see `rectifier.rs`).
//!
//! ```text
//! z = Relu (bcosc.Scale <b = 2> (y, bcosc.PatchNorm (x)))
//! a = Relu (y)
//! z = bcosc.Weigh (Mul (a, a), bcosc.Energy <exponent = -1/2> (x))
//! ```

use bcosc_ir::{Graph, Model, Patch, Value};

use super::energy::{energy_of, over_norm};
use super::everywhere;
use super::rectifier::{Rectifier, rectified_square};
use super::scale_inputs;
use crate::analysis::weights::WeightError;
use crate::dialect::Scale;
use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

/// The pass.
pub static SQUARE_AFTER_RELU: Pass = Pass {
    name: "square-after-relu",
    summary: "with --deploy: rectify before squaring in B = 2 layers",
    effect: Effect::Exact,
    requires: &[&crate::bcos::layers::BCOS],
    run,
};

fn run(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
    everywhere(model, cx, "rectified before squaring", |graph, node| {
        let rectifier = Rectifier::of(graph, node)?;
        let scale = Scale::of(graph, graph.input(node, 0)?.node)?;
        Some(square(graph, &rectifier, &scale).map_err(WeightError::from))
    })
}

fn square(graph: &Graph, rectifier: &Rectifier, scale: &Scale) -> Result<Patch, Reason> {
    let energy = energy_of(graph, scale)?;
    let scaled = Value {
        node: scale.node,
        slot: 0,
    };
    if graph.uses(scaled).len() != 1 {
        return Err(Reason::UsedElsewhere(graph.value_name(scaled).to_owned()));
    }
    if scale_inputs::widening(graph, scale).is_ok() {
        return Err(Reason::Widens);
    }
    let mut patch = Patch::at(scale.node);
    let square = rectified_square(&mut patch, scale.y.into());
    let scaled_square = over_norm(&mut patch, scale, square, energy);
    rectifier.replace(&mut patch, scaled, scaled_square);
    Ok(patch)
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{Attribute, DataType, ModelBuilder, Tensor};

    use super::SQUARE_AFTER_RELU;
    use crate::Reason;
    use crate::deploy::testing::{bcos, deployed, image, refused};
    use crate::testing::{Layers, text};

    #[test]
    fn the_rectifier_moves_to_the_convolution() {
        let layer = image()
            .conv("x", "y", &[4, 3, 3, 3], [])
            .op("Relu", &["y"], "z", []);
        let (after, _) = deployed(&[&SQUARE_AFTER_RELU], &bcos(layer.output("z"), 2.0));
        insta::assert_snapshot!(text(&after), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,3,6,8] x) => (z)
        <
           float[4,3,3,3] "y.w" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, ... ae8cafe7}
        >
        {
           y = Conv (x, "y.w")
           ["y.bcos.relu"] "y.bcos.relu" = Relu (y)  # from y
           ["y.bcos.square"] "y.bcos.square" = Mul ("y.bcos.relu", "y.bcos.relu")  # from y
           ["y.bcos.energy"] "y.bcos.energy" = bcosc.Energy <kernel_shape = [3, 3], group = 1, channels = 3, gain = 1.0, epsilon = 1e-6, exponent = -0.5> (x)  # from y
           ["y.bcos.weighed"] z = bcosc.Weigh <group = 1, channels = 4, spatial = 2> ("y.bcos.square", "y.bcos.energy")  # from y
        }
        "#);
    }

    #[test]
    fn bounds_from_0_on_rectify_and_stay() {
        let layer = image().conv("x", "y", &[4, 3, 3, 3], []);
        let model = bcos(layer.clip("y", "z", [0.0, 6.0]).output("z"), 2.0);
        let (after, _) = deployed(&[&SQUARE_AFTER_RELU], &model);
        insta::assert_snapshot!(text(&after), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,3,6,8] x) => (z)
        <
           float[4,3,3,3] "y.w" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, ... ae8cafe7},
           float "z.low" = {0.0},
           float "z.high" = {6.0}
        >
        {
           y = Conv (x, "y.w")
           ["y.bcos.relu"] "y.bcos.relu" = Relu (y)  # from y
           ["y.bcos.square"] "y.bcos.square" = Mul ("y.bcos.relu", "y.bcos.relu")  # from y
           ["y.bcos.energy"] "y.bcos.energy" = bcosc.Energy <kernel_shape = [3, 3], group = 1, channels = 3, gain = 1.0, epsilon = 1e-6, exponent = -0.5> (x)  # from y
           ["y.bcos.weighed"] "y.bcos.weighed" = bcosc.Weigh <group = 1, channels = 4, spatial = 2> ("y.bcos.square", "y.bcos.energy")  # from y
           z = Clip ("y.bcos.weighed", "z.low", "z.high")
        }
        "#);
        // The bound reads a rectified value, which the original does not have.
        assert_eq!(after.graph.standing_for("y"), None);
    }

    #[test]
    fn bounds_below_0_do_not_rectify() {
        let layer = image().conv("x", "y", &[4, 3, 3, 3], []);
        let model = bcos(layer.clip("y", "z", [-1.0, 6.0]).output("z"), 2.0);
        assert_eq!(refused(&[&SQUARE_AFTER_RELU], &model), []);
    }

    #[test]
    fn other_precisions_stay() {
        let weights = Tensor::floats(DataType::Double, &[4, 3, 3, 3], &[0.5; 108]).unwrap();
        let layer = ModelBuilder::new(17)
            .input("x", DataType::Double, "batch,3,6,8")
            .param("w", weights)
            .op("Conv", &["x", "w"], "y", [])
            .op("Relu", &["y"], "z", []);
        let model = bcos(layer.output("z"), 2.0);
        assert_eq!(refused(&[&SQUARE_AFTER_RELU], &model), [Reason::NotSingle]);
    }

    #[test]
    fn layers_that_scale_their_input_stay() {
        let layer = image()
            .conv("x", "y", &[4, 3, 1, 1], [])
            .op("Relu", &["y"], "z", []);
        let model = bcos(layer.output("z"), 2.0);
        assert_eq!(refused(&[&SQUARE_AFTER_RELU], &model), [Reason::Widens]);
    }

    #[test]
    fn every_group_keeps_its_norm() {
        let groups = [Attribute::int("group", 3)];
        let layer = image()
            .conv("x", "y", &[6, 1, 3, 3], groups)
            .op("Relu", &["y"], "z", []);
        let (_, outcome) = deployed(&[&SQUARE_AFTER_RELU], &bcos(layer.output("z"), 2.0));
        assert_eq!(outcome.changes.len(), 1);
    }

    #[test]
    fn a_value_that_is_read_unrectified_too_stays() {
        let layer = image()
            .conv("x", "y", &[4, 3, 1, 1], [])
            .op("Relu", &["y"], "z", []);
        let model = bcos(layer.output("z").output("y"), 2.0);
        let reasons = refused(&[&SQUARE_AFTER_RELU], &model);
        assert!(
            matches!(reasons[..], [Reason::UsedElsewhere(_)]),
            "{reasons:?}"
        );
    }

    #[test]
    fn other_exponents_stay() {
        let layer = image()
            .conv("x", "y", &[4, 3, 1, 1], [])
            .op("Relu", &["y"], "z", []);
        let model = bcos(layer.output("z"), 1.25);
        assert_eq!(refused(&[&SQUARE_AFTER_RELU], &model), [Reason::OnlyForB2]);
    }
}
