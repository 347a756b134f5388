//! The deploy form against the plain one.

use bcosc_engine::{Outputs, ProofError, ProofFigures, compare, nudged};
use bcosc_passes::{LogitBias, Settings};

use super::task::{Rewrite, Task};
use crate::Error;

const DEPLOYED: &str = "the deploy form against the plain form";

/// What the deploy form may differ by, in tolerances: squares double relative errors in every layer.
const TOLERANCE: f64 = 10.0;

/// Holds the deploy form against the plain one, at the model's own B: its rules say nothing at B = 1.
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
            Some(moves) => format!(
                "{error}; but the plain form itself moves by {moves:.1e} when its input is a rounding away: it \
                 amplifies rounding as it stands, so that no two ways to compute it agree; a smaller --b or \
                 --calibrate with its own images may steady it"
            ),
            None => error.to_string(),
        };
        task.failure(DEPLOYED, None, problem)
    })
}

/// By how much outputs move when inputs do so by a rounding, where that is more than the tolerance.
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
