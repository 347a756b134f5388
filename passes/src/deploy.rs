//! The deploy form: exact rewrites of B-cos layers that make inference fast.
//!
//! The rules speak of B = 2, at which a B-cos layer is a signed square over a norm, and leave other
//! layers to [`crate::bcos::lower`].

pub mod accumulate;
pub mod chunks;
mod energy;
pub mod fold_doubling;
pub mod fold_norms;
mod layout;
pub mod lower;
pub mod merge;
pub mod narrow;
mod power;
mod rectifier;
pub mod signed_square;
pub mod square_relu;
pub mod stay_in_blocks;
#[cfg(test)]
mod testing;

use bcosc_ir::{Graph, Model, NodeId, Patch};

use crate::analysis::weights::WeightError;
use crate::{Context, Outcome, PassError};

/// Tries a rule at every operator, producers first. A rule gives `None` where there is nothing to look at,
/// a patch, or the reason why it does not apply.
pub(crate) fn everywhere(
    model: &mut Model,
    cx: &Context<'_>,
    what: &str,
    rule: impl Fn(&Graph, NodeId) -> Option<Result<Patch, WeightError>>,
) -> Result<Outcome, PassError> {
    let mut outcome = Outcome::default();
    if !cx.settings.deploy {
        return Ok(outcome);
    }
    for node in model.graph.ops() {
        let graph = &model.graph;
        if !graph.contains(node) {
            continue;
        }
        match rule(graph, node) {
            None => {}
            Some(Ok(patch)) => {
                outcome.changed(graph.label(node), what);
                model.graph.apply(patch)?;
            }
            Some(Err(error)) => error.skip_or_fail(graph, node, &mut outcome)?,
        }
    }
    Ok(outcome)
}
