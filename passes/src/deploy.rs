//! The deploy form: exact rewrites of B-cos layers for fast inference on the CPU with ONNX Runtime.
//!
//! The rules apply at B = 2, where a B-cos layer is a signed square over a norm; other layers are left to
//! [`crate::bcos::lower`]. They choose what is fastest on one target, and `target.rs` has all that they assume of it.

pub mod accumulate;
mod blocks;
mod energy;
pub mod fold_doubling;
pub mod fold_norms;
pub mod keep_blocked_layout;
pub mod lower;
pub mod merge_scales;
mod power;
mod rectifier;
pub mod scale_inputs;
pub mod signed_square;
pub mod square_relu;
pub mod target;
#[cfg(test)]
mod testing;

use bcosc_ir::{Graph, Model, NodeId, Patch};

use crate::analysis::weights::WeightError;
use crate::{Context, Outcome, PassError};

/// Tries a rule at every operator in topological order. A rule returns `None` for other operators, a patch,
/// or the reason why it does not apply.
pub(crate) fn everywhere(
    model: &mut Model,
    cx: &Context<'_>,
    change: &str,
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
                outcome.changed(graph.label(node), change);
                model.graph.apply(patch)?;
            }
            Some(Err(error)) => error.skip_or_fail(graph, node, &mut outcome)?,
        }
    }
    Ok(outcome)
}
