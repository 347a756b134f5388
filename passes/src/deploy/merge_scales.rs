//! A tensor that is scaled twice in a row is scaled once.
//!
//! Let `t = s p^(-1/2)`, with p the energy of some patch (its epsilon e included), be scaled by a power of
//! its own energy. With S the sum of squares of s at a position, the energy of t is `S/p + e`, so both scales
//! depend on s and p only:
//!
//! ```text
//! z = bcosc.Weigh (t, bcosc.Energy <1x1, exponent = -1/4> (t)),    t = bcosc.Weigh (s, p^(-1/2))
//! z = bcosc.Weigh (s, (p (S + e p))^(-1/4))
//! ```

use bcosc_ir::{Graph, Model, NodeId, Op, Operand, Patch, Use, Value};

use super::everywhere;
use crate::analysis::weights::{self, WeightError};
use crate::dialect::{Energy, Weigh};
use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

/// The pass.
pub static MERGE_SCALES: Pass = Pass {
    name: "merge-scales",
    summary: "with --deploy: scale a tensor once instead of twice",
    effect: Effect::Exact,
    requires: &[&crate::deploy::scale_inputs::SCALE_INPUTS],
    run,
};

fn run(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
    everywhere(model, cx, "scaled once", |graph, node| {
        let (outer, inner) = twice(graph, node)?;
        Some(merge(graph, &outer, &inner).map_err(WeightError::from))
    })
}

/// A scale by energies and the one before it.
fn twice(graph: &Graph, node: NodeId) -> Option<(Weigh, Weigh)> {
    let outer = Weigh::of(graph, node)?;
    let inner = Weigh::of(graph, outer.x.node)?;
    Some((outer, inner))
}

fn merge(graph: &Graph, outer: &Weigh, inner: &Weigh) -> Result<Patch, Reason> {
    let own = Energy::of(graph, outer.weight.node).ok_or(Reason::NoConvolution)?;
    let patch_energy = Energy::of(graph, inner.weight.node).ok_or(Reason::NoConvolution)?;
    let fits = own.x == outer.x && own.window.is_pointwise() && own.exponent == -0.25;
    if !fits || patch_energy.exponent != -0.5 || inner.group != 1 || outer.group != 1 {
        return Err(Reason::NotPointwise);
    }
    let others = |usage: &Use| match usage {
        Use::Input { node, .. } => *node != outer.node && *node != outer.weight.node,
        Use::Capture { .. } | Use::Output(_) => true,
    };
    if graph.uses(outer.x).iter().any(others) {
        return Err(Reason::UsedElsewhere(graph.value_name(outer.x).to_owned()));
    }
    let dtype = graph
        .value_type(outer.x)
        .map_or(bcosc_ir::DataType::Float, |t| t.dtype);
    let mut patch = Patch::at(outer.node);
    let p = patch_energy.to_the(1.0).add(&mut patch);
    let bare = Energy {
        x: inner.x,
        epsilon: 0.0,
        exponent: 1.0,
        ..own.clone()
    };
    let sum = bare.add(&mut patch);
    let epsilon = patch.parameter("epsilon", weights::tensor(dtype, &[], &[own.epsilon]));
    let exponent = patch.parameter("exponent", weights::tensor(dtype, &[], &[own.exponent]));
    let share = small(&mut patch, "Mul", &[p, epsilon]);
    let shifted = small(&mut patch, "Add", &[sum, share]);
    let product = small(&mut patch, "Mul", &[p, shifted]);
    let factor = small(&mut patch, "Pow", &[product, exponent]);
    let op = Weigh::op(1, inner.channels, inner.spatial);
    let weighed = patch.op(op, &[inner.x.into(), factor]);
    patch.replace(output(outer.node), weighed);
    Ok(patch)
}

/// An operator on one number per position.
fn small(patch: &mut Patch, op_type: &str, inputs: &[Operand]) -> Operand {
    patch.op(Op::new("", op_type), inputs)
}

fn output(node: NodeId) -> Value {
    Value { node, slot: 0 }
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{Attribute, ModelBuilder};

    use super::MERGE_SCALES;
    use crate::deploy::scale_inputs::SCALE_INPUTS;
    use crate::deploy::square_relu::SQUARE_AFTER_RELU;
    use crate::deploy::testing::{bcos, deployed, image, refused};
    use crate::testing::{Layers, text};
    use crate::{Pass, Reason};

    const RULES: &[&Pass] = &[&SQUARE_AFTER_RELU, &SCALE_INPUTS, &MERGE_SCALES];

    fn two_layers(groups: u64) -> ModelBuilder {
        let grouped = [Attribute::int("group", groups as i64)];
        let first = image().conv("x", "y", &[6, 3 / groups, 3, 3], grouped);
        let rectified = first.op("Relu", &["y"], "z", []);
        rectified.conv("z", "u", &[8, 6, 1, 1], []).output("u")
    }

    #[test]
    fn two_scales_become_one() {
        let (after, _) = deployed(RULES, &bcos(two_layers(1), 2.0));
        insta::assert_snapshot!(text(&after), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,3,6,8] x) => (u)
        <
           float[6,3,3,3] "y.w" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, ... 4ea0e002},
           float[8,6,1,1] "u.w" = {-0.7098669, 0.13154043, -0.9673086, -0.45558217, ... 151ad1e4},
           float "u.before.weighed.epsilon" = {1e-6},
           float "u.before.weighed.exponent" = {-0.25}
        >
        {
           y = Conv <group = 1> (x, "y.w")
           ["y.bcos.relu"] "y.bcos.relu" = Relu (y)  # from y
           ["y.bcos.square"] "y.bcos.square" = Mul ("y.bcos.relu", "y.bcos.relu")  # from y
           ["u.before.weighed.energy"] "u.before.weighed.energy" = bcosc.Energy <kernel_shape = [3, 3], group = 1, channels = 3, gain = 1.0, epsilon = 1e-6, exponent = 1.0> (x)  # from "u.before"
           ["u.before.weighed.energy_2"] "u.before.weighed.energy_2" = bcosc.Energy <kernel_shape = [1, 1], group = 1, channels = 6, gain = 1.0, epsilon = 0.0, exponent = 1.0> ("y.bcos.square")  # from "u.before"
           ["u.before.weighed.mul"] "u.before.weighed.mul" = Mul ("u.before.weighed.energy", "u.before.weighed.epsilon")  # from "u.before"
           ["u.before.weighed.add"] "u.before.weighed.add" = Add ("u.before.weighed.energy_2", "u.before.weighed.mul")  # from "u.before"
           ["u.before.weighed.mul_2"] "u.before.weighed.mul_2" = Mul ("u.before.weighed.energy", "u.before.weighed.add")  # from "u.before"
           ["u.before.weighed.pow"] "u.before.weighed.pow" = Pow ("u.before.weighed.mul_2", "u.before.weighed.exponent")  # from "u.before"
           ["u.before.weighed.weighed"] "u.before.weighed.weighed" = bcosc.Weigh <group = 1, channels = 6, spatial = 2> ("y.bcos.square", "u.before.weighed.pow")  # from "u.before"
           ["u.before.conv"] "u.before.conv" = Conv <kernel_shape = [1, 1]> ("u.before.weighed.weighed", "u.w")  # from "u.before"
           ["u.before.abs"] "u.before.abs" = Abs ("u.before.conv")  # from "u.before"
           ["u.before.bcos"] u = Mul ("u.before.conv", "u.before.abs")  # from "u.before"
        }
        "#);
    }

    #[test]
    fn scales_of_groups_stay() {
        let model = bcos(two_layers(3), 2.0);
        assert_eq!(refused(RULES, &model), [Reason::NotPointwise]);
    }

    #[test]
    fn a_tensor_that_others_read_stays() {
        let model = bcos(two_layers(1).output("z"), 2.0);
        let reasons = refused(RULES, &model);
        assert!(
            matches!(reasons[..], [Reason::UsedElsewhere(_)]),
            "{reasons:?}"
        );
    }
}
