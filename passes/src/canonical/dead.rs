//! `remove-dead`: removes unused operators and parameters.
//!
//! ```text
//! main (float[1,3] x) => (y) { y = Relu (x)  unused = Sin (x) }
//! main (float[1,3] x) => (y) { y = Relu (x) }
//! ```

use bcosc_ir::Model;

use crate::{Context, Effect, Outcome, Pass, PassError};

/// The pass.
pub static REMOVE_DEAD: Pass = Pass {
    name: "remove-dead",
    summary: "remove unused operators and parameters",
    effect: Effect::Exact,
    requires: &[],
    run,
};

fn run(model: &mut Model, _: &Context<'_>) -> Result<Outcome, PassError> {
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
                outcome.changed(label, "removed: unused");
            }
        }
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{DataType, ModelBuilder};

    use super::*;
    use crate::testing::{apply, model, rewritten, text, weight};

    fn with_dead_branch() -> ModelBuilder {
        ModelBuilder::new(20)
            .input("x", DataType::Float, "batch,3")
            .param("w", weight(1, &[3]))
            .param("unused", weight(2, &[3]))
            .op("Mul", &["x", "w"], "y", [])
            .op("Sin", &["y"], "s", [])
            .op("Cos", &["s"], "c", [])
    }

    #[test]
    fn chains_that_lead_nowhere_go() {
        let before = model(with_dead_branch().output_as("y", DataType::Float, "batch,3"));
        insta::assert_snapshot!(text(&rewritten(&REMOVE_DEAD, &before)), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 20]
        >
        main (float[batch,3] x) => (float[batch,3] y)
        <
           float[3] w = {-0.14761274, -0.20840575, -0.4877265}
        >
        {
           y = Mul (x, w)
        }
        "#);
    }

    #[test]
    fn what_leads_to_an_output_stays() {
        let mut model = model(with_dead_branch().output_as("c", DataType::Float, "batch,3"));
        let outcome = apply(&REMOVE_DEAD, &mut model);
        let gone: Vec<&str> = outcome.changes.iter().map(|c| c.node.as_str()).collect();
        assert_eq!(gone, ["unused"]);
        assert_eq!(model.graph.ops().len(), 3);
    }
}
