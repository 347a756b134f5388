//! `remove-dead`: operators and parameters that nothing uses go.
//!
//! ```text
//! main (float[1,3] x) => (y) { y = Relu (x)  unused = Sin (x) }
//! main (float[1,3] x) => (y) { y = Relu (x) }
//! ```

use bcosc_ir::Model;

use crate::{Context, Effect, Outcome, Pass, PassError};

/// Removes what nothing uses.
pub struct RemoveDead;

impl Pass for RemoveDead {
    fn name(&self) -> &'static str {
        "remove-dead"
    }

    fn summary(&self) -> &'static str {
        "remove operators and parameters that nothing uses"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn ensures(&self) -> &'static str {
        "every operator and parameter leads to an output"
    }

    fn run(&self, model: &mut Model, _: &Context<'_>) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let before: Vec<_> = model
            .graph
            .nodes()
            .into_iter()
            .map(|id| (id, model.graph.label(id)))
            .collect();
        if model.graph.remove_dead() > 0 {
            for (id, label) in before {
                if !model.graph.contains(id) {
                    outcome.changed(label, "removed: nothing uses it");
                }
            }
        }
        Ok(outcome)
    }
}
