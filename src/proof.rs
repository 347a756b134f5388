//! The results of a proof.

use bcosc_engine::{ProofFigures, Sensitivity};
use serde::Serialize;

/// The comparison of a converted model with its original.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Proof {
    /// The exact passes at B = 1 against the original.
    pub exact: ProofFigures,
    /// All passes at B = 1 against the altered original; `null` if there are no altering passes.
    pub altered: Option<ProofFigures>,
    /// The deploy form against the plain form, at the model's B; `null` without `--deploy`, and if outputs do not
    /// depend on the input.
    pub deployed: Option<ProofFigures>,
    /// Whether the outputs of the converted model depend on its input.
    pub sensitivity: Sensitivity,
    /// Seed of the inputs.
    pub seed: u64,
}

/// A proof that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{model}: the proof failed for {what}{}: {problem}{advice}", culprit(.pass))]
pub struct Failure {
    /// The model file.
    pub model: String,
    /// The comparison that failed.
    pub what: &'static str,
    /// The first pass after which the comparison fails, if found.
    pub pass: Option<&'static str>,
    /// What is wrong.
    pub problem: String,
    /// What can be done; begins with punctuation.
    pub advice: &'static str,
}

fn culprit(pass: &Option<&'static str>) -> String {
    pass.map(|pass| format!(", starting with pass `{pass}`"))
        .unwrap_or_default()
}
