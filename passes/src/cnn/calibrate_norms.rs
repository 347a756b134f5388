//! Restored norms learn the variance of what reaches them.
//!
//! A restored norm is the identity with `var = 1 - eps`, which tells training nothing. Measured on
//! images at B = 1, it stays the identity with the true statistics:
//!
//! ```text
//! y = BatchNormalization (x, 1, 0, 0, 1 - eps)
//! y = BatchNormalization (x, sqrt (v + eps), 0, 0, v)      v: variance of x on the images
//! ```

use bcosc_ir::views::BatchNorm;
use bcosc_ir::{Model, Patch};

use super::measure::{Statistics, batch_norms, variances};
use super::restore_norms::RESTORED;
use crate::{Context, Effect, Outcome, Pass, PassError, weights};

/// The pass.
pub struct CalibrateNorms;

impl Pass for CalibrateNorms {
    fn name(&self) -> &'static str {
        "calibrate-norms"
    }

    fn summary(&self) -> &'static str {
        "with --calibrate: give restored norms the statistics of images, at B = 1"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn requires(&self) -> &'static [&'static str] {
        &["restore-norms"]
    }

    fn ensures(&self) -> &'static str {
        "restored norms are the identity with measured variance"
    }

    fn run(&self, model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
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
}
