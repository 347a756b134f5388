//! Sets the variance of batch norms to that of their input at the final B.
//!
//! B-cos layers with B > 1 have smaller outputs than linear layers, so with statistics from B = 1 the signal would
//! vanish with depth. One forward pass, in which every norm uses batch statistics, measures all variances.
//! Only `var` changes, and epsilon if it would be large compared with the new variance:
//!
//! ```text
//! y = BatchNormalization (x, gamma, beta, 0, var)
//! y = BatchNormalization (x, gamma, beta, 0, v)      v: variance of x at B
//! ```
//!
//! Where all layers have B = 1, the pass does nothing.

use bcosc_ir::views::BatchNorm;
use bcosc_ir::{Attribute, Model, Patch};

use super::statistics::{Statistics, batch_norms, fitting_epsilon, variances};
use crate::analysis::weights;
use crate::bcos::layers::has_bcos_layers;
use crate::{Context, Effect, Outcome, Pass, PassError};

/// The pass.
pub static REMEASURE_NORMS: Pass = Pass {
    name: "remeasure-norms",
    summary: "with --calibrate: measure the variance of all batch norms at the final B",
    effect: Effect::Exact,
    requires: &[&crate::bcos::norms::uncentre::UNCENTRE_NORMS],
    run,
};

fn run(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
    let mut outcome = Outcome::default();
    let linear = cx.settings.b == 1.0 && !has_bcos_layers(&model.graph);
    if cx.calibration.is_none() || linear {
        return Ok(outcome);
    }
    let norms = batch_norms(&model.graph);
    for (node, variance) in variances(model, &norms, Statistics::Batch, cx)? {
        let graph = &model.graph;
        let Some(norm) = BatchNorm::of(graph, node) else {
            continue;
        };
        let Ok(var) = weights::floats(graph, norm.var) else {
            continue;
        };
        let mut patch = Patch::at(node);
        let var = patch.parameter("running_var", var.with(&variance));
        patch.set_input(node, 4, Some(var));
        let epsilon = fitting_epsilon(norm.epsilon, &variance);
        if epsilon != norm.epsilon {
            patch.set_attribute(node, Attribute::float("epsilon", epsilon));
        }
        outcome.changed(
            graph.label(node),
            format!("variance measured at B = {}", cx.settings.b),
        );
        model.graph.apply(patch)?;
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{Tensor, Tensors};

    use super::*;
    use crate::Settings;
    use crate::bcos::layers::BCOS;
    use crate::bcos::norms::uncentre::UNCENTRE_NORMS;
    use crate::testing::{Array, Layers, exponent, image, noise, passed};

    const PASSES: [&Pass; 3] = [&UNCENTRE_NORMS, &BCOS, &REMEASURE_NORMS];

    fn network() -> Model {
        image("batch,2,2")
            .conv("x", "a", &[3, 2, 1], vec![])
            .norm("a", "n", 3)
            .op("Relu", &["n"], "r", [])
            .conv("r", "b", &[2, 3, 1], vec![])
            .norm("b", "y", 2)
            .typed("y")
    }

    fn images() -> Array {
        Array::noise(8, &[4, 2, 2])
    }

    fn measured(settings: &Settings) -> Result<(Model, Outcome), PassError> {
        let x = images().tensor(bcosc_ir::DataType::Float);
        let images = Tensors::from([("x".to_owned(), x)]);
        passed(&PASSES, &network(), settings, Some(&images))
    }

    fn constant(model: &Model, name: &str) -> Vec<f64> {
        let found = model.graph.value_named(name);
        match found.map(|value| weights::floats(&model.graph, value)) {
            Some(Ok(floats)) => floats.elements,
            _ => panic!("no constant {name}"),
        }
    }

    /// A B-cos layer on vectors, and the biased variance of each of its units.
    fn layer(x: &[Vec<f64>], w: &[f64]) -> (Vec<Vec<f64>>, Vec<f64>) {
        let y: Vec<Vec<f64>> = x
            .iter()
            .map(|x| {
                let norm = (x.iter().map(|x| x * x).sum::<f64>() + 1e-6).sqrt();
                let rows = w.chunks(x.len());
                let products = rows.map(|w| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>());
                products.map(|y| y.abs() / norm * y).collect()
            })
            .collect();
        let count = y.len() as f64;
        let variances = (0..y[0].len()).map(|unit| {
            let mean = y.iter().map(|y| y[unit]).sum::<f64>() / count;
            y.iter().map(|y| (y[unit] - mean).powi(2)).sum::<f64>() / count
        });
        let variances = variances.collect();
        (y, variances)
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (found - expected).abs() <= 1e-5 * expected,
                "{found}, not {expected}"
            );
        }
    }

    #[test]
    fn every_variance_is_that_behind_norms_that_fit() {
        let Ok((after, outcome)) = measured(&exponent(2.0)) else {
            panic!("not measured")
        };
        assert_eq!(outcome.changes.len(), 2);
        let images = images();
        let positions = (0..4).flat_map(|n| (0..2).map(move |p| (n, p)));
        let x: Vec<Vec<f64>> = positions
            .map(|(n, p)| (0..2).map(|c| images.at(&[n, c, p])).collect())
            .collect();
        let network = network();
        let (a, first) = layer(&x, &constant(&network, "a.w"));
        let gamma = constant(&network, "n.gamma");
        let beta = constant(&after, "n.bias");
        let relu: Vec<Vec<f64>> = a
            .iter()
            .map(|a| {
                let unit = |c: usize| gamma[c] * a[c] / (first[c] + 1e-5).sqrt() + beta[c];
                (0..3).map(|c| unit(c).max(0.0)).collect()
            })
            .collect();
        let (_, second) = layer(&relu, &constant(&network, "b.w"));
        assert_close(&constant(&after, "n.running_var"), &first);
        assert_close(&constant(&after, "y.running_var"), &second);
    }

    #[test]
    fn nothing_is_measured_at_b_1_or_without_images() {
        let at_one = measured(&exponent(1.0));
        assert!(at_one.is_ok_and(|(_, outcome)| outcome == Outcome::default()));
        // One layer with another B is enough.
        let last = Settings {
            b_last: Some(2.0),
            ..exponent(1.0)
        };
        assert!(measured(&last).is_ok_and(|(_, outcome)| outcome.changes.len() == 2));
        let without = passed(&PASSES, &network(), &exponent(2.0), None);
        assert!(without.is_ok_and(|(_, outcome)| outcome == Outcome::default()));
    }

    #[test]
    fn a_norm_on_a_value_of_unknown_rank_is_an_error() {
        let unknown = crate::testing::model(
            bcosc_ir::ModelBuilder::new(17)
                .opset("com.acme", 1)
                .input("x", bcosc_ir::DataType::Float, "batch,2,2")
                .op("com.acme::Odd", &["x"], "a", [])
                .norm("a", "y", 2)
                .output("y"),
        );
        let x = Tensor::f32s(&[1, 2, 2], noise(1, 4).iter().map(|&x| x as f32).collect());
        let images = Tensors::from([("x".to_owned(), x)]);
        let result = passed(&PASSES, &unknown, &exponent(2.0), Some(&images));
        let error = result.map(|_| ()).map_err(|error| error.to_string());
        let expected = "the input of norm \"y\" cannot be measured: its shape is not known";
        assert_eq!(error, Err(expected.to_owned()));
    }
}
