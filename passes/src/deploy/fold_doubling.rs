//! The first layer reads x instead of [x, -x].
//!
//! The negative adds no information, so it folds into the weights:
//!
//! ```text
//! d = Concat (x, Neg (x))
//! y, n = Conv (d, [w1, w2]), bcosc.PatchNorm (d)
//! y, n = Conv (x, w1 - w2), bcosc.Energy <gain = 2, exponent = 1/2> (x)
//! ```

use bcosc_ir::views::Conv;
use bcosc_ir::{Graph, Model, NodeId, Patch, Use, Value};

use super::everywhere;
use crate::analysis::weights::{self, WeightError};
use crate::dialect::Energy;
use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

/// The pass.
pub static FOLD_DOUBLING: Pass = Pass {
    name: "fold-doubling",
    summary: "with --deploy: let first layers read x instead of [x, -x]",
    effect: Effect::Exact,
    requires: &[&crate::bcos::layers::BCOS],
    run,
};

fn run(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
    everywhere(model, cx, "[x, -x] folded to x", |graph, node| {
        let x = doubled(graph, node)?;
        Some(fold(graph, node, x))
    })
}

/// The value x if a node is `Concat (x, Neg (x))` over channels.
fn doubled(graph: &Graph, node: NodeId) -> Option<Value> {
    let op = graph.op(node).filter(|op| op.is("Concat"))?;
    let [Some(x), Some(inverse)] = graph.inputs_of(node)[..] else {
        return None;
    };
    let (neg, _) = graph.producer(inverse).filter(|(_, op)| op.is("Neg"))?;
    (op.get("axis") == Some(1_i64) && graph.input(neg, 0) == Some(x)).then_some(x)
}

fn fold(graph: &Graph, concat: NodeId, x: Value) -> Result<Patch, WeightError> {
    let doubled = Value {
        node: concat,
        slot: 0,
    };
    let mut patch = Patch::at(concat);
    for usage in graph.uses(doubled) {
        let Use::Input { node, .. } = usage else {
            return Err(Reason::UsedElsewhere(graph.value_name(doubled).to_owned()).into());
        };
        if let Some(conv) = Conv::of(graph, node).filter(|c| c.x == doubled && c.group == 1) {
            let w = weights::floats(graph, conv.w)?;
            let half = w.elements.len() / conv.out_channels() as usize / 2;
            let folded: Vec<f64> = w
                .elements
                .chunks_exact(2 * half)
                .flat_map(|unit| (0..half).map(move |i| unit[i] - unit[half + i]))
                .collect();
            let mut dims = w.dims.clone();
            dims[1] /= 2;
            let weight = patch.parameter("weight", w.shaped(&dims, &folded));
            patch.set_input(node, 0, Some(x.into()));
            patch.set_input(node, 1, Some(weight));
        } else if let Some(mut energy) = Energy::of(graph, node).filter(|e| e.group == 1) {
            energy.x = x;
            energy.channels /= 2;
            energy.gain *= 2.0;
            let energy = energy.add(&mut patch);
            patch.replace(Value { node, slot: 0 }, energy);
        } else {
            return Err(Reason::UsedElsewhere(graph.value_name(doubled).to_owned()).into());
        }
    }
    Ok(patch)
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{Attribute, ModelBuilder};

    use super::FOLD_DOUBLING;
    use crate::Reason;
    use crate::deploy::testing::{bcos, deployed, image, refused};
    use crate::testing::{Layers, text};

    fn doubled() -> ModelBuilder {
        image().op("Neg", &["x"], "n", []).op(
            "Concat",
            &["x", "n"],
            "d",
            [Attribute::int("axis", 1)],
        )
    }

    #[test]
    fn the_negative_folds_into_the_weights() {
        let padded = [Attribute::ints("pads", &[1, 1, 1, 1])];
        let layer = doubled().conv("d", "y", &[4, 6, 3, 3], padded).output("y");
        let (after, _) = deployed(&[&FOLD_DOUBLING], &bcos(layer, 2.0));
        insta::assert_snapshot!(text(&after), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,3,6,8] x) => (y)
        <
           float[4,3,3,3] "d.weight" = {0.10433212, -0.117925584, 1.024094, 0.9601966, ... 78f0954f}
        >
        {
           ["d.energy"] "d.energy" = bcosc.Energy <kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 1, channels = 3, gain = 2.0, epsilon = 1e-6, exponent = 0.5> (x)  # from d
           "y.before" = Conv <pads = [1, 1, 1, 1]> (x, "d.weight")
           ["y.bcos"] y = bcosc.Scale <b = 2.0, group = 1, channels = 4, spatial = 2> ("y.before", "d.energy")  # from y
        }
        "#);
    }

    #[test]
    fn every_exponent_folds() {
        let layer = doubled().conv("d", "y", &[4, 6, 1, 1], []).output("y");
        let (_, outcome) = deployed(&[&FOLD_DOUBLING], &bcos(layer, 1.5));
        assert_eq!(outcome.changes.len(), 1);
    }

    #[test]
    fn groups_see_channels_of_their_own() {
        let groups = [Attribute::int("group", 2)];
        let layer = doubled().conv("d", "y", &[4, 3, 1, 1], groups).output("y");
        let reasons = refused(&[&FOLD_DOUBLING], &bcos(layer, 2.0));
        assert!(
            matches!(reasons[..], [Reason::UsedElsewhere(_)]),
            "{reasons:?}"
        );
    }
}
