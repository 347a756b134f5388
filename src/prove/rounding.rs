//! How far a network amplifies rounding, which bounds what a comparison can ask.
//!
//! A network whose outputs move by m when its inputs do so by one rounding cannot be computed to better than a few m by
//! anyone: every layer rounds. Where a comparison fails, m is measured on the reference, and differences of up to 10 m
//! are granted; but no more than ten times the tolerance, so that a wrong result of an unsteady network stays one.

use bcosc_engine::{Outputs, ProofError, ProofFigures, compare, nudged};

use super::Task;
use super::claim::Rewrite;
use crate::plan;

/// What is granted, in movements of the outputs.
const MOVEMENTS: f64 = 10.0;

/// What is granted at most, in tolerances.
const TOLERANCES: f64 = 10.0;

impl Task<'_> {
    /// Compares what a rewrite computes with what is found; says so where rounding needed more than the tolerance.
    pub(super) fn agree(
        &self,
        reference: &Rewrite,
        expected: &[Outputs],
        found: &[Outputs],
    ) -> Result<(ProofFigures, Option<String>), ProofError> {
        let rtol = self.verification.rtol;
        let error = match compare(expected, found, rtol) {
            Ok(figures) => return Ok((figures, None)),
            Err(error) => error,
        };
        let ProofError::Differs(figures) = &error else {
            return Err(error);
        };
        let most = TOLERANCES * rtol;
        if !(figures.overall.finite && figures.overall.max_relative <= most) {
            return Err(error);
        }
        let Some(moves) = self.movement(reference, expected) else {
            return Err(error);
        };
        let granted = (MOVEMENTS * moves).min(most);
        if granted <= rtol {
            return Err(error);
        }
        let figures = compare(expected, found, granted)?;
        let doubt = format!(
            "the network amplifies rounding: its outputs move by {moves:.1e} when its inputs are a rounding away, so \
             differences of up to {granted:.1e} were accepted"
        );
        Ok((figures, Some(doubt)))
    }

    /// By how much outputs move, relative to the largest, when inputs do so by a rounding.
    pub(super) fn movement(&self, rewrite: &Rewrite, outputs: &[Outputs]) -> Option<f64> {
        let model = self.rewrite(rewrite).ok()?;
        let contract = plan::contract(&rewrite.passes, rewrite.settings.input);
        let samples = nudged(&self.samples(&model, contract).ok()?).ok()?;
        let found = self.run_on(&model, &samples).ok()?;
        let moved = match compare(outputs, &found, self.verification.rtol) {
            Ok(figures) => figures.overall,
            Err(ProofError::Differs(figures)) => figures.overall,
            Err(_) => return None,
        };
        moved.finite.then_some(moved.max_relative)
    }
}
