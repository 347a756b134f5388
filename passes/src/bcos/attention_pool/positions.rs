//! Removes the position embedding of an attention pool, like its biases.
//!
//! ```text
//! tokens = Concat (mean, features) + positions     ->     tokens = Concat (mean, features)
//! ```
//!
//! Altering. Other position embeddings stay.

use bcosc_ir::{Model, Patch, Value};

use crate::analysis::raise::attention_pool;
use crate::{Biases, Context, Effect, Outcome, Pass, PassError, Reason};

/// The pass.
pub static DROP_POOL_POSITIONS: Pass = Pass {
    name: "drop-pool-positions",
    summary: "remove the position embedding of attention pools",
    effect: Effect::Altering,
    requires: &[],
    run,
};

fn run(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
    let mut outcome = Outcome::default();
    for pool in attention_pool::all(&model.graph) {
        let Some((node, data)) = pool.positions else {
            continue;
        };
        let label = model.graph.label(node);
        if cx.settings.biases() != Biases::Remove {
            outcome.skipped(label, Reason::Kept("--biases"));
            continue;
        }
        let mut patch = Patch::at(node);
        patch.replace(Value { node, slot: 0 }, data);
        model.graph.apply(patch)?;
        outcome.changed(label, "position embedding of an attention pool removed");
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests;
