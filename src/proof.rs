//! The figures of a proof, or how it failed.

use bcosc_engine::{ProofFigures, Sensitivity};
use serde::Serialize;

/// How a converted model compares with its original.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Proof {
    /// The exact passes at B = 1 against the original.
    pub exact: ProofFigures,
    /// All passes at B = 1 against the altered original; `null` where that is the same comparison.
    pub altered: Option<ProofFigures>,
    /// The deploy form against the plain one, at the model's own B; `null` without `--deploy`, and where
    /// outputs do not depend on the input.
    pub deployed: Option<ProofFigures>,
    /// Whether the converted model's outputs depend on its input, at its own B.
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
    /// What was looked at.
    pub what: &'static str,
    /// The first pass after which it is wrong, where that could be found.
    pub pass: Option<&'static str>,
    /// What is wrong.
    pub problem: String,
    /// What can be done; begins with punctuation.
    pub advice: &'static str,
}

fn culprit(pass: &Option<&'static str>) -> String {
    pass.map(|pass| format!(", from pass `{pass}` on"))
        .unwrap_or_default()
}
