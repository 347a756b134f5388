//! Moves the running mean of batch norms into their bias.
//!
//! With statistics fixed, `gamma * (x - mean) / sqrt(var + eps) + beta` is `s * x + (beta - mean * s)`
//! with `s = gamma / sqrt(var + eps)`. `remove-biases` can then remove the mean:
//!
//! ```text
//! y = BatchNormalization (x, gamma, beta, mean, var)
//! y = BatchNormalization (x, gamma, beta - mean * s, 0, var)
//! ```

use bcosc_ir::views::BatchNorm;
use bcosc_ir::{Graph, Model, NodeId, Patch};

use crate::analysis::weights::{self, WeightError};
use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

/// The pass.
pub static UNCENTRE_NORMS: Pass = Pass {
    name: "uncentre-norms",
    summary: "move the running mean of batch norms into their bias",
    effect: Effect::Exact,
    requires: &[],
    run,
};

fn run(model: &mut Model, _: &Context<'_>) -> Result<Outcome, PassError> {
    let mut outcome = Outcome::default();
    for node in model.graph.ops() {
        let graph = &model.graph;
        if !graph.op(node).is_some_and(|op| op.is("BatchNormalization")) {
            continue;
        }
        match uncentre(graph, node) {
            Ok(Some(patch)) => {
                outcome.changed(graph.label(node), "mean moved into the bias");
                model.graph.apply(patch)?;
            }
            Ok(None) => {}
            Err(error) => error.skip_or_fail(graph, node, &mut outcome)?,
        }
    }
    Ok(outcome)
}

/// `None` if the mean is already zero.
fn uncentre(graph: &Graph, node: NodeId) -> Result<Option<Patch>, WeightError> {
    if (0..5).any(|slot| graph.input(node, slot).is_none()) {
        return Err(Reason::Malformed.into());
    }
    let norm = BatchNorm::of(graph, node).ok_or(Reason::TrainingMode)?;
    let mean = weights::floats(graph, norm.mean)?;
    if mean.elements.iter().all(|&m| m == 0.0) {
        return Ok(None);
    }
    let [scale, bias, var] = [norm.scale, norm.bias, norm.var].map(|v| weights::floats(graph, v));
    let (scale, bias, var) = (scale?, bias?, var?);
    let channels = mean.elements.len();
    if [&scale, &bias, &var]
        .iter()
        .any(|operand| operand.elements.len() != channels)
    {
        return Err(Reason::NormShape.into());
    }
    let epsilon = f64::from(norm.epsilon);
    let shifted: Vec<f64> = (0..channels)
        .map(|c| {
            let factor = scale.elements[c] / (var.elements[c] + epsilon).sqrt();
            bias.elements[c] - mean.elements[c] * factor
        })
        .collect();
    if shifted.iter().any(|b| !b.is_finite()) {
        return Err(Reason::NotFiniteWeight.into());
    }
    let mut patch = Patch::at(node);
    let shifted = patch.parameter("bias", bias.with(&shifted));
    let zeros = patch.parameter("mean", mean.with(&vec![0.0; channels]));
    patch.set_input(node, 2, Some(shifted));
    patch.set_input(node, 3, Some(zeros));
    Ok(Some(patch))
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{Attribute, ModelBuilder, Tensor};

    use super::*;
    use crate::testing::{Layers, apply, image, model, reasons, rewritten, text, try_pass, weight};

    #[test]
    fn means_move_into_biases() {
        let before = image("batch,2,3").norm("x", "y", 2).typed("y");
        insta::assert_snapshot!(text(&rewritten(&UNCENTRE_NORMS, &before)), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,2,3] x) => (y)
        <
           float[2] "y.gamma" = {0.48787567, 0.6461313},
           float[2] "y.var" = {0.98568463, 0.9984185},
           float[2] "y.bias" = {0.25147623, -1.3589704},
           float[2] "y.mean_2" = {0.0, 0.0}
        >
        {
           y = BatchNormalization (x, "y.gamma", "y.bias", "y.mean_2", "y.var")
        }
        "#);
    }

    /// A norm of two channels with one operand replaced.
    fn norm_with(operand: &str, tensor: Tensor, attributes: Vec<Attribute>) -> ModelBuilder {
        let operands = ["gamma", "beta", "mean", "var"];
        let builder = operands.iter().fold(image("batch,2,3"), |builder, name| {
            let own = weight(3, &[2]);
            builder.param(
                name,
                if *name == operand {
                    tensor.clone()
                } else {
                    own
                },
            )
        });
        let inputs = ["x", "gamma", "beta", "mean", "var"];
        builder
            .op("BatchNormalization", &inputs, "y", attributes)
            .output("y")
    }

    fn refusal(builder: ModelBuilder) -> Vec<Reason> {
        let outcome = apply(&UNCENTRE_NORMS, &mut model(builder));
        assert!(outcome.changes.is_empty());
        reasons(outcome)
    }

    #[test]
    fn a_norm_without_a_mean_stays() {
        let zeros = Tensor::f32s(&[2], vec![0.0; 2]);
        assert_eq!(refusal(norm_with("mean", zeros, vec![])), []);
    }

    #[test]
    fn a_norm_in_training_mode_stays() {
        let training = vec![Attribute::int("training_mode", 1)];
        let builder = norm_with("", weight(1, &[2]), training);
        assert_eq!(refusal(builder), [Reason::TrainingMode]);
    }

    #[test]
    fn broken_norms_stay() {
        let short = norm_with("gamma", weight(1, &[1]), vec![]);
        assert_eq!(refusal(short), [Reason::NormShape]);
        let empty = norm_with("var", Tensor::f32s(&[0], vec![]), vec![]);
        assert_eq!(refusal(empty), [Reason::NormShape]);
        let negative = norm_with("var", Tensor::f32s(&[2], vec![-1.0, 1.0]), vec![]);
        assert_eq!(refusal(negative), [Reason::NotFiniteWeight]);
        let few = image("batch,2,3")
            .param("gamma", weight(1, &[2]))
            .op("BatchNormalization", &["x", "gamma"], "y", [])
            .output("y");
        assert_eq!(refusal(few), [Reason::Malformed]);
    }

    #[test]
    fn an_operand_of_integers_is_an_error_with_the_norms_name() {
        let integers = Tensor::i64s(&[2], vec![1, 2]);
        let error = try_pass(
            &UNCENTRE_NORMS,
            &mut model(norm_with("mean", integers, vec![])),
        );
        let error = error.map_err(|e| e.to_string());
        assert!(error.is_err_and(|e| e.starts_with("weight of y:")));
    }
}
