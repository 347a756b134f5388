//! Norms get the variance that their input has at the final B.
//!
//! B-cos layers with B > 1 put out less than linear ones, so statistics from B = 1 would let the
//! signal fade layer by layer. One forward pass in which every norm uses the statistics of the batch
//! measures all variances behind norms that fit already; only `var` changes:
//!
//! ```text
//! y = BatchNormalization (x, gamma, beta, 0, var)
//! y = BatchNormalization (x, gamma, beta, 0, v)      v: variance of x at B
//! ```
//!
//! At B = 1 there is nothing to measure again.

use bcosc_ir::views::BatchNorm;
use bcosc_ir::{Model, Patch};

use super::measure::{Statistics, batch_norms, variances};
use crate::{Context, Effect, Outcome, Pass, PassError, weights};

/// The pass.
pub struct RemeasureNorms;

impl Pass for RemeasureNorms {
    fn name(&self) -> &'static str {
        "remeasure-norms"
    }

    fn summary(&self) -> &'static str {
        "with --calibrate: measure the variance of every batch norm again at the final B"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn requires(&self) -> &'static [&'static str] {
        &["uncentre-norms"]
    }

    fn ensures(&self) -> &'static str {
        "norms fit what reaches them at the final B"
    }

    fn run(&self, model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        if cx.calibration.is_none() || cx.settings.b == 1.0 {
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
            outcome.changed(
                graph.label(node),
                format!("variance measured at B = {}", cx.settings.b),
            );
            model.graph.apply(patch)?;
        }
        Ok(outcome)
    }
}
