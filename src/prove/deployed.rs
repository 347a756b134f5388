//! The deploy form against the plain one.

use bcosc_engine::{Outputs, ProofError, ProofFigures, compare};
use bcosc_passes::{LogitBias, Settings};

use super::Task;
use super::claim::Rewrite;
use crate::Error;

const DEPLOYED: &str = "the deploy form at the model's own B, against the plain form";

/// What the deploy form may differ by, in tolerances: squares double relative errors in every layer.
const TOLERANCE: f64 = 10.0;

const UNDERFLOW: &str = "the signal is so weak that squares leave the range of single precision: --calibrate with the \
    network's own images gives its norms the statistics that keep it up";

impl Task<'_> {
    /// Holds the deploy form against the plain one, at the model's own B: its rules say nothing at B = 1.
    pub(super) fn deployed(&self) -> Result<ProofFigures, Error> {
        let form = |deploy| Rewrite {
            passes: self.passes.clone(),
            settings: Settings {
                deploy,
                logit_bias: LogitBias::None,
                ..self.settings.clone()
            },
        };
        let (plain, fast) = (form(false), form(true));
        let (expected, found) = rayon::join(
            || self.outputs(&plain, DEPLOYED),
            || self.outputs(&fast, DEPLOYED),
        );
        let (expected, found) = (expected?, found?);
        let tolerance = TOLERANCE * self.verification.rtol;
        compare(&expected, &found, tolerance).map_err(|error| {
            let problem = match &error {
                ProofError::Differs(figures) if underflows(figures, &expected, &found) => {
                    format!("{error}; {UNDERFLOW}")
                }
                _ => match self.movement(&plain, &expected) {
                    Some(moves) if moves > tolerance => format!(
                        "{error}; but the plain form itself moves by {moves:.1e} when its input is a rounding away: it \
                         amplifies rounding as it stands, so that no two ways to compute it agree; a smaller --b or \
                         --calibrate with its own images may steady it"
                    ),
                    _ => error.to_string(),
                },
            };
            self.failure(DEPLOYED, None, problem)
        })
    }
}

/// Whether the squares of the fast form were too small for their precision: outputs that the plain form has are zero or
/// no numbers, or so small that their squares are.
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
