//! A rectified B = 2 layer squares what its rectifier lets through.
//!
//! The factor r = 1/n is positive, so `relu(y|y|r) = relu(y) relu(y) r`: the rectifier sits on the
//! convolution, where runtimes fuse it, and no absolute value is taken.
//!
//! ```text
//! z = Relu (bcosc.Scale <b = 2> (y, bcosc.PatchNorm (x)))
//! a = Relu (y)
//! z = bcosc.Weigh (Mul (a, a), bcosc.Energy <exponent = -1/2> (x))
//! ```

use bcosc_ir::{Graph, Model, NodeId, Op, Patch, Value};

use super::everywhere;
use super::marker::{Energy, Weigh};
use crate::marker::Scale;
use crate::weights::WeightError;
use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

/// The pass.
pub struct SquareAfterRelu;

impl Pass for SquareAfterRelu {
    fn name(&self) -> &'static str {
        "square-after-relu"
    }

    fn summary(&self) -> &'static str {
        "with --deploy: rectify before squaring in B = 2 layers"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn requires(&self) -> &'static [&'static str] {
        &["bcos"]
    }

    fn ensures(&self) -> &'static str {
        "no rectifier follows a B = 2 convolution's scale directly"
    }

    fn run(&self, model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
        everywhere(model, cx, "rectified before squaring", |graph, node| {
            let scale = rectified(graph, node)?;
            Some(square(graph, node, &scale).map_err(WeightError::from))
        })
    }
}

/// The scale that a rectifier reads.
fn rectified(graph: &Graph, node: NodeId) -> Option<Scale> {
    graph.op(node).filter(|op| op.is("Relu"))?;
    Scale::of(graph, graph.input(node, 0)?.node)
}

fn square(graph: &Graph, relu: NodeId, scale: &Scale) -> Result<Patch, Reason> {
    let energy = Energy::of_scale(graph, scale)?;
    let scaled = Value {
        node: scale.node,
        slot: 0,
    };
    if graph.uses(scaled).len() != 1 {
        return Err(Reason::UsedElsewhere(graph.value_name(scaled).to_owned()));
    }
    let mut patch = Patch::at(scale.node);
    let rectified = patch.op(Op::new("", "Relu"), &[scale.y.into()]);
    let square = patch.op(Op::new("", "Mul").named("square"), &[rectified, rectified]);
    let energy = energy.to_the(-0.5).add(&mut patch);
    let weighed = patch.op(
        Weigh::op(scale.group, scale.channels, scale.spatial),
        &[square, energy],
    );
    patch.replace(
        Value {
            node: relu,
            slot: 0,
        },
        weighed,
    );
    Ok(patch)
}

#[cfg(test)]
mod tests {
    use bcosc_ir::Attribute;

    use super::SquareAfterRelu;
    use crate::Reason;
    use crate::cnn::deploy::testing::{bcos, conv, deployed, image, refused};
    use crate::testing::text;

    #[test]
    fn the_rectifier_moves_to_the_convolution() {
        let layer = conv(image(), "x", "y", &[4, 3, 3, 3], []).op("Relu", &["y"], "z", []);
        let (after, _) = deployed(&[&SquareAfterRelu], &bcos(layer.output("z"), 2.0));
        insta::assert_snapshot!(text(&after), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,3,6,8] x) => (z)
        <
           float[4,3,3,3] "y.weight" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, ... ae8cafe7}
        >
        {
           y = Conv (x, "y.weight")
           ["y.bcos.relu"] "y.bcos.relu" = Relu (y)  # from y
           ["y.bcos.square"] "y.bcos.square" = Mul ("y.bcos.relu", "y.bcos.relu")  # from y
           ["y.bcos.energy"] "y.bcos.energy" = bcosc.Energy <kernel_shape = [3, 3], group = 1, channels = 3, gain = 1.0, epsilon = 1e-6, exponent = -0.5> (x)  # from y
           ["y.bcos.weighed"] z = bcosc.Weigh <group = 1, channels = 4, spatial = 2> ("y.bcos.square", "y.bcos.energy")  # from y
        }
        "#);
    }

    #[test]
    fn every_group_keeps_its_norm() {
        let groups = [Attribute::int("group", 3)];
        let layer = conv(image(), "x", "y", &[6, 1, 3, 3], groups).op("Relu", &["y"], "z", []);
        let (_, outcome) = deployed(&[&SquareAfterRelu], &bcos(layer.output("z"), 2.0));
        assert_eq!(outcome.changes.len(), 1);
    }

    #[test]
    fn a_value_that_is_read_unrectified_too_stays() {
        let layer = conv(image(), "x", "y", &[4, 3, 1, 1], []).op("Relu", &["y"], "z", []);
        let model = bcos(layer.output("z").output("y"), 2.0);
        let reasons = refused(&[&SquareAfterRelu], &model);
        assert!(
            matches!(reasons[..], [Reason::UsedElsewhere(_)]),
            "{reasons:?}"
        );
    }

    #[test]
    fn other_exponents_stay() {
        let layer = conv(image(), "x", "y", &[4, 3, 1, 1], []).op("Relu", &["y"], "z", []);
        let model = bcos(layer.output("z"), 1.25);
        assert_eq!(refused(&[&SquareAfterRelu], &model), [Reason::OnlyForB2]);
    }
}
