//! Comparison of the deploy form with the plain form.

use bcosc_engine::{Outputs, ProofError, ProofFigures, compare, nudged};
use bcosc_passes::{LogitBias, Settings};

use super::task::{Rewrite, Task};
use crate::Error;

const DEPLOYED: &str = "the deploy form against the plain form";

/// The tolerance is larger by this factor: squaring doubles relative errors in every layer.
const TOLERANCE: f64 = 10.0;

/// Compares the deploy form with the plain form at the model's B: at B = 1 there is no deploy form.
pub(super) fn check(task: &Task<'_>) -> Result<ProofFigures, Error> {
    let form = |deploy| Rewrite {
        passes: task.split().1.to_vec(),
        settings: Settings {
            deploy,
            logit_bias: LogitBias::None,
            ..task.settings.clone()
        },
    };
    let (plain, fast) = (form(false), form(true));
    let (expected, found) = rayon::join(
        || task.outputs(&plain, DEPLOYED),
        || task.outputs(&fast, DEPLOYED),
    );
    let (expected, found) = (expected?, found?);
    let tolerance = TOLERANCE * task.verification.rtol;
    compare(&expected, &found, tolerance).map_err(|error| {
        let amplified = amplified(task, &plain, &expected, tolerance);
        let problem = match amplified {
            Some(change) => format!(
                "{error}; but the outputs of the plain form change by {change:.1e} when its input changes by a rounding \
                 error: the model is numerically unstable; try a smaller --b, or --calibrate"
            ),
            None => error.to_string(),
        };
        task.failure(DEPLOYED, None, problem)
    })
}

/// The change of the outputs for a change of the inputs by a rounding error, if above the tolerance.
fn amplified(
    task: &Task<'_>,
    rewrite: &Rewrite,
    outputs: &[Outputs],
    tolerance: f64,
) -> Option<f64> {
    let model = task.rewrite(rewrite).ok()?;
    let samples = nudged(&task.samples(&model, rewrite.contract()).ok()?).ok()?;
    let found = task.run_on(&model, &samples).ok()?;
    match compare(outputs, &found, tolerance) {
        Err(ProofError::Differs(figures)) => Some(figures.overall.max_relative),
        _ => None,
    }
}
