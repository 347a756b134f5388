//! Comparison of the deploy form with the plain form.

use bcosc_engine::{Outputs, ProofError, ProofFigures, compare};
use bcosc_passes::{LogitBias, Settings};

use super::rounding::movement;
use super::task::{Rewrite, Task};
use crate::Error;

const DEPLOYED: &str = "the deploy form against the plain form";

/// The tolerance is larger by this factor: squaring doubles relative errors in every layer.
const TOLERANCE: f64 = 10.0;

const UNDERFLOW: &str = "activations are so small that their squares underflow in single precision; --calibrate the norms with \
    images of the network's own task";

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
        let problem = match &error {
            ProofError::Differs(figures) if underflows(figures, &expected, &found) => {
                format!("{error}; {UNDERFLOW}")
            }
            _ => match movement(task, Some(&plain), &expected) {
                Some(change) if change > tolerance => format!(
                    "{error}; but the outputs of the plain form change by {change:.1e} when its input changes by a \
                     rounding error: the model is numerically unstable; try a smaller --b, or --calibrate"
                ),
                _ => error.to_string(),
            },
        };
        task.failure(DEPLOYED, None, problem)
    })
}

/// Whether squares of the fast form underflowed: outputs became zero or NaN, or are so small that their squares
/// underflow.
fn underflows(figures: &ProofFigures, expected: &[Outputs], found: &[Outputs]) -> bool {
    let numbers = |outputs: &[Outputs]| -> Vec<f64> {
        let tensors = outputs.iter().flatten();
        tensors
            .filter_map(|(_, tensor)| tensor.to_f64s().ok())
            .flatten()
            .collect()
    };
    let (plain, fast) = (numbers(expected), numbers(found));
    let largest = plain.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
    let gone = |(plain, fast): (&f64, &f64)| *plain != 0.0 && (*fast == 0.0 || fast.is_nan());
    let lost = plain.iter().zip(&fast).filter(|pair| gone(*pair)).count();
    let small = largest < f64::from(f32::MIN_POSITIVE).sqrt();
    small || (lost > 0 && (!figures.overall.finite || 2 * lost > plain.len()))
}
