//! Sets the variance of restored norms from calibration images.
//!
//! A restored norm is the identity with `var = 1 - eps`. This pass measures its input variance on images
//! at B = 1; the norm stays the identity, but has true statistics:
//!
//! ```text
//! y = BatchNormalization (x, 1, 0, 0, 1 - eps)
//! y = BatchNormalization (x, sqrt (v + eps), 0, 0, v)      v: variance of x on the images
//! ```
//!
//! Biases are still in the model: the scale of the norm is that of the original's values, as if the norm had never been
//! folded, and stays so when biases go and B grows.

use bcosc_ir::views::BatchNorm;
use bcosc_ir::{Model, Patch};

use super::restore::RESTORED;
use super::statistics::{Statistics, batch_norms, variances};
use crate::analysis::weights;
use crate::{Context, Effect, Outcome, Pass, PassError};

/// The pass.
pub static CALIBRATE_NORMS: Pass = Pass {
    name: "calibrate-norms",
    summary: "with --calibrate: set the statistics of restored norms from images, at B = 1",
    effect: Effect::Exact,
    requires: &[&crate::bcos::norms::restore::RESTORE_NORMS],
    run,
};

fn run(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
    let mut outcome = Outcome::default();
    if cx.calibration.is_none() {
        return Ok(outcome);
    }
    let restored = |id: &_| {
        model
            .graph
            .op(*id)
            .is_some_and(|op| op.metadata(RESTORED).is_some())
    };
    let norms: Vec<_> = batch_norms(&model.graph)
        .into_iter()
        .filter(restored)
        .collect();
    for (node, variance) in variances(model, &norms, Statistics::Running, cx)? {
        let graph = &model.graph;
        let Some(norm) = BatchNorm::of(graph, node) else {
            continue;
        };
        let Ok(gamma) = weights::floats(graph, norm.scale) else {
            continue;
        };
        let epsilon = f64::from(norm.epsilon);
        let roots: Vec<f64> = variance.iter().map(|v| (v + epsilon).sqrt()).collect();
        let mut patch = Patch::at(node);
        let var = patch.parameter("running_var", gamma.with(&variance));
        let gamma = patch.parameter("weight", gamma.with(&roots));
        patch.set_input(node, 1, Some(gamma));
        patch.set_input(node, 4, Some(var));
        outcome.changed(graph.label(node), "variance measured at B = 1");
        model.graph.apply(patch)?;
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{Tensor, Tensors};

    use super::*;
    use crate::bcos::norms::restore::RESTORE_NORMS;
    use crate::testing::{Layers, assert_same_function, image, passed, reasons, text};
    use crate::{Reason, Settings};

    /// Two channels that become one, and a head.
    fn network(weights: &[f32]) -> Model {
        image("batch,2,2")
            .param("w", Tensor::f32s(&[1, 2, 1], weights.to_vec()))
            .op("Conv", &["x", "w"], "a", [])
            .op("Relu", &["a"], "r", [])
            .conv("r", "y", &[3, 1, 1], vec![])
            .typed("y")
    }

    fn images() -> Tensors {
        let x = Tensor::f32s(&[2, 2, 2], vec![1.0, 2.0, 3.0, -1.0, 0.5, 0.0, 2.0, 4.0]);
        Tensors::from([("x".to_owned(), x)])
    }

    const PASSES: [&Pass; 2] = [&RESTORE_NORMS, &CALIBRATE_NORMS];

    fn calibrated(model: &Model) -> Result<(Model, Outcome), PassError> {
        passed(&PASSES, model, &Settings::default(), Some(&images()))
    }

    #[test]
    fn a_restored_norm_gets_the_variance_of_its_input_and_stays_the_identity() {
        let before = network(&[1.0, -0.5]);
        let Ok((after, _)) = calibrated(&before) else {
            panic!("not calibrated")
        };
        insta::assert_snapshot!(text(&after), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,2,2] x) => (y)
        <
           float[1,2,1] w = {1.0, -0.5},
           float[3,1,1] "y.w" = {0.48787567, 0.6461313, 0.7424666},
           float[1] "a.norm.bias" = {0.0},
           float[1] "a.norm.running_mean" = {0.0},
           float[1] "a.norm.running_var_2" = {2.671875},
           float[1] "a.norm.weight_2" = {1.6345901}
        >
        {
           a = Conv (x, w)
           ["a.norm"] "a.norm" = BatchNormalization <epsilon = 1e-5> (a, "a.norm.weight_2", "a.norm.bias", "a.norm.running_mean", "a.norm.running_var_2")  # from a
           r = Relu ("a.norm")
           y = Conv (r, "y.w")
        }
        "#);
        let node = batch_norms(&after.graph)[0];
        let operand = |slot| {
            let value = after.graph.input(node, slot);
            let tensor = value.and_then(|value| after.graph.constant(value));
            tensor
                .and_then(|tensor| tensor.to_f64s().ok())
                .unwrap_or_default()
        };
        let (gamma, var) = (operand(1), operand(4));
        // The convolution gives -0.5, 2.5, -0.5, -2.
        let mean = -0.125;
        let squares = [-0.5, 2.5, -0.5, -2.0].map(|x: f64| (x - mean).powi(2));
        let expected = squares.iter().sum::<f64>() / 4.0;
        assert!((var[0] - expected).abs() < 1e-6, "{var:?}");
        assert!(
            (gamma[0] - (expected + 1e-5).sqrt()).abs() < 1e-6,
            "{gamma:?}"
        );
        assert_same_function(&before, &after, 1e-6);
    }

    #[test]
    fn nothing_is_measured_without_images() {
        let result = passed(&PASSES, &network(&[1.0, 1.0]), &Settings::default(), None);
        assert!(result.is_ok_and(|(_, outcome)| outcome == Outcome::default()));
    }

    #[test]
    fn norms_of_the_model_keep_their_statistics() {
        let before = image("batch,2,2")
            .norm("x", "n", 2)
            .conv("n", "y", &[3, 2, 1], vec![]);
        let result = calibrated(&before.typed("y"));
        assert!(result.is_ok_and(|(_, outcome)| reasons(outcome).is_empty()));
    }

    #[test]
    fn infinities_name_the_norm() {
        match calibrated(&network(&[f32::INFINITY, 1.0])) {
            Err(PassError::Model(Reason::NotFinite(norm))) => assert_eq!(norm, "a.norm"),
            other => panic!("{:?}", other.map(|(_, outcome)| outcome)),
        }
    }
}
