//! The scales of batch norms fold into the weights of the layer before.
//!
//! Without mean and bias, a batch norm multiplies channel c by `s = gamma / sqrt(var + eps)`. A B-cos
//! layer is homogeneous of degree B in its weights, so the scale moves into them:
//!
//! ```text
//! z = BatchNormalization (bcosc.Scale <b> (Conv (x, w), n), gamma, 0, 0, var)
//! z = bcosc.Scale <b> (Conv (x, sign(s) |s|^(1/b) w), n)
//! ```
//!
//! For B other than 2 the factor has an epsilon, `(|y|/n + 1e-6)^(B-1)`, and is not homogeneous; the norm
//! stays.

use bcosc_ir::views::{BatchNorm, Conv};
use bcosc_ir::{Graph, Model, NodeId, Patch};

use super::everywhere;
use crate::analysis::weights::{self, WeightError};
use crate::dialect::Scale;
use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

/// The pass.
pub static FOLD_NORM_SCALES: Pass = Pass {
    name: "fold-norm-scales",
    summary: "with --deploy: fold the scale of norms into the weights of the layer before",
    effect: Effect::Exact,
    requires: &[&crate::bcos::layers::BCOS],
    run,
};

fn run(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
    everywhere(model, cx, "scale folded into the weights", |graph, node| {
        let (norm, scale) = scaled_norm(graph, node)?;
        Some(fold(graph, &norm, &scale))
    })
}

/// A batch norm that reads a B-cos layer directly.
fn scaled_norm(graph: &Graph, node: NodeId) -> Option<(BatchNorm, Scale)> {
    let norm = BatchNorm::of(graph, node)?;
    let scale = Scale::of(graph, norm.x.node)?;
    Some((norm, scale))
}

fn fold(graph: &Graph, norm: &BatchNorm, scale: &Scale) -> Result<Patch, WeightError> {
    if scale.b != 2.0 {
        return Err(Reason::OnlyForB2.into());
    }
    for value in [norm.x, scale.y] {
        if graph.uses(value).len() != 1 {
            return Err(Reason::UsedElsewhere(graph.value_name(value).to_owned()).into());
        }
    }
    let conv = Conv::of(graph, scale.y.node).ok_or(Reason::NoConvolution)?;
    let factors = norm_scale(graph, norm)?;
    let w = weights::floats(graph, conv.w)?;
    let channels = conv.out_channels() as usize;
    if factors.len() != channels || w.elements.is_empty() {
        return Err(Reason::Malformed.into());
    }
    let roots: Vec<f64> = factors
        .iter()
        .map(|s| s.signum() * s.abs().powf(1.0 / scale.b))
        .collect();
    let mut patch = Patch::at(conv.node);
    let cells = w.elements.len() / channels;
    let folded: Vec<f64> = w
        .elements
        .chunks_exact(cells)
        .zip(&roots)
        .flat_map(|(unit, root)| unit.iter().map(move |x| x * root))
        .collect();
    let weight = patch.parameter("weight", w.with(&folded));
    patch.set_input(conv.node, 1, Some(weight));
    if let Some(bias) = conv.bias {
        let bias = weights::floats(graph, bias)?;
        let folded: Vec<f64> = bias
            .elements
            .iter()
            .zip(&roots)
            .map(|(b, r)| b * r)
            .collect();
        let bias = patch.parameter("bias", bias.with(&folded));
        patch.set_input(conv.node, 2, Some(bias));
    }
    // The output of the layer now is that of the norm.
    patch.forget(scale.y);
    patch.forget(norm.x);
    patch.replace(norm.y(), norm.x);
    Ok(patch)
}

/// The factor of a norm for every channel; an error if it does anything else.
pub(crate) fn norm_scale(graph: &Graph, norm: &BatchNorm) -> Result<Vec<f64>, WeightError> {
    let zero = |value| -> Result<bool, WeightError> {
        let found = weights::floats(graph, value)?;
        Ok(found.elements.iter().all(|&x| x == 0.0))
    };
    if !zero(norm.mean)? {
        return Err(Reason::Centred.into());
    }
    if !zero(norm.bias)? {
        return Err(Reason::HasBias.into());
    }
    let gamma = weights::floats(graph, norm.scale)?;
    let var = weights::floats(graph, norm.var)?;
    let epsilon = f64::from(norm.epsilon);
    let scales = gamma.elements.iter().zip(&var.elements);
    Ok(scales.map(|(g, v)| g / (v + epsilon).sqrt()).collect())
}

#[cfg(test)]
mod tests {
    use super::FOLD_NORM_SCALES;
    use crate::Reason;
    use crate::deploy::testing::{bcos, deployed, image, refused};
    use crate::testing::{Layers, text};

    #[test]
    fn scales_of_either_sign_fold() {
        let layer = image()
            .conv("x", "y", &[4, 3, 3, 3], [])
            .scale_norm("y", "z", 4);
        let (after, _) = deployed(&[&FOLD_NORM_SCALES], &bcos(layer.output("z"), 2.0));
        insta::assert_snapshot!(text(&after), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,3,6,8] x) => (z)
        <
           float[4,3,3,3] "y.weight" = {-0.24587275, -0.3256282, -0.37417793, -0.0674149, ... 5f55a131}
        >
        {
           ["y.patch_norm"] "y.patch_norm" = bcosc.PatchNorm <kernel_shape = [3, 3], group = 1, channels = 3> (x)  # from y
           y = Conv (x, "y.weight")
           ["y.bcos"] z = bcosc.Scale <b = 2.0, group = 1, channels = 4, spatial = 2> (y, "y.patch_norm")  # from y
        }
        "#);
        // The output of the layer is that of the norm; the input of the norm no longer exists.
        let found = after.graph.outputs()[0].value;
        assert_eq!(after.graph.standing_for("z"), Some(found));
        assert_eq!(after.graph.standing_for("y"), None);
    }

    #[test]
    fn other_exponents_stay() {
        let layer = image()
            .conv("x", "y", &[4, 3, 1, 1], [])
            .scale_norm("y", "z", 4);
        let model = bcos(layer.output("z"), 1.5);
        assert_eq!(refused(&[&FOLD_NORM_SCALES], &model), [Reason::OnlyForB2]);
    }

    #[test]
    fn a_layer_that_is_read_before_its_norm_stays() {
        let layer = image()
            .conv("x", "y", &[4, 3, 1, 1], [])
            .scale_norm("y", "z", 4);
        let model = bcos(layer.output("z").output("y"), 2.0);
        let reasons = refused(&[&FOLD_NORM_SCALES], &model);
        assert!(
            matches!(reasons[..], [Reason::UsedElsewhere(_)]),
            "{reasons:?}"
        );
    }
}
