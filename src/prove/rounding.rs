//! How much a network amplifies rounding errors, which limits how well two computations of it can agree.
//!
//! If the outputs change by m when the inputs change by one rounding error, no computation of the network is better than
//! a few m: every layer rounds. If a comparison fails, m is measured on the reference, and differences up to 10 m
//! are accepted; but never more than ten times the tolerance, so that an unstable network does not hide a wrong result.

use bcosc_engine::{Outputs, ProofError, ProofFigures, nudged};
use bcosc_ir::Model;
use bcosc_passes::InputContract;

use super::task::{Rewrite, Task};

/// The largest accepted difference, relative to the change of the outputs.
const MOVEMENTS: f64 = 10.0;

/// The largest accepted difference, relative to the tolerance.
const TOLERANCES: f64 = 10.0;

/// Compares the outputs of a reference (`None` is the original) with those of a candidate. Returns a warning if rounding
/// needed more than the tolerance.
pub(super) fn compare(
    task: &Task<'_>,
    reference: Option<&Rewrite>,
    expected: &[Outputs],
    found: &[Outputs],
) -> Result<(ProofFigures, Option<String>), ProofError> {
    let rtol = task.verification.rtol;
    let error = match bcosc_engine::compare(expected, found, rtol) {
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
    let Some(change) = movement(task, reference, expected) else {
        return Err(error);
    };
    let accepted = (MOVEMENTS * change).min(most);
    if accepted <= rtol {
        return Err(error);
    }
    let figures = bcosc_engine::compare(expected, found, accepted)?;
    let warning = format!(
        "the network amplifies rounding errors: its outputs change by {change:.1e} when its inputs change by a rounding \
         error, so differences up to {accepted:.1e} were accepted"
    );
    Ok((figures, Some(warning)))
}

/// The change of the outputs, relative to the largest, when the inputs change by a rounding error.
pub(super) fn movement(
    task: &Task<'_>,
    reference: Option<&Rewrite>,
    outputs: &[Outputs],
) -> Option<f64> {
    match reference {
        Some(rewrite) => {
            let model = task.rewrite(rewrite).ok()?;
            change(task, &model, rewrite.contract(), outputs)
        }
        // The canonical form stands in for an original that cannot be run.
        None => change(task, task.original, InputContract::Same, outputs).or_else(|| {
            let canonical = &task.canonical.model;
            change(task, canonical, InputContract::Same, outputs)
        }),
    }
}

fn change(
    task: &Task<'_>,
    model: &Model,
    contract: InputContract,
    outputs: &[Outputs],
) -> Option<f64> {
    let samples = nudged(&task.samples(model, contract).ok()?).ok()?;
    let found = task.run_on(model, &samples).ok()?;
    let moved = match bcosc_engine::compare(outputs, &found, task.verification.rtol) {
        Ok(figures) => figures.overall,
        Err(ProofError::Differs(figures)) => figures.overall,
        Err(_) => return None,
    };
    moved.finite.then_some(moved.max_relative)
}
