//! `drop-default-inputs`: converts initializers that are also inputs to constants.
//!
//! Early ONNX required every initializer to be an input too, and some exporters still do this. Such a weight is an
//! input with a default value, so its value would not be known to later passes.
//!
//! ```text
//! main (float[1,3] x, float[3] w) => (y) <float[3] w = {1, 2, 3}> { y = Add (x, w) }
//! main (float[1,3] x) => (y) <float[3] w = {1, 2, 3}> { y = Add (x, w) }
//! ```

use std::collections::BTreeSet;

use bcosc_ir::Model;

use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

/// The first version of the file format in which an initializer need not be an input.
const FREE_INITIALIZERS: i64 = 4;

/// The pass.
pub static DROP_DEFAULT_INPUTS: Pass = Pass {
    name: "drop-default-inputs",
    summary: "convert initializers that are also inputs to constants",
    effect: Effect::Exact,
    requires: &[],
    run,
};

fn run(model: &mut Model, _: &Context<'_>) -> Result<Outcome, PassError> {
    let mut outcome = Outcome::default();
    let parameters = model.graph.parameters().into_iter();
    let names: BTreeSet<String> = parameters
        .filter(|(_, parameter)| parameter.as_input.is_some())
        .map(|(id, _)| model.graph.label(id))
        .collect();
    if names.is_empty() {
        return Ok(outcome);
    }
    let mut proto = model.to_proto();
    if let Some(graph) = &mut proto.graph {
        graph.input.retain(|input| !names.contains(input.name()));
    }
    proto.ir_version = Some(proto.ir_version().max(FREE_INITIALIZERS));
    *model = model
        .read_anew(proto)
        .map_err(|e| PassError::Model(Reason::NotAGraph(e.to_string())))?;
    for name in names {
        outcome.changed(name, "now a constant, not an input with a default value");
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{DataType, ModelBuilder};

    use super::*;
    use crate::testing::{apply, model, rewritten, text, weight};

    fn scaled() -> ModelBuilder {
        ModelBuilder::new(9)
            .input("x", DataType::Float, "batch,3")
            .param("w", weight(1, &[3]))
            .op("Mul", &["x", "w"], "y", [])
            .output_as("y", DataType::Float, "batch,3")
    }

    #[test]
    fn an_initializer_that_is_an_input_becomes_a_constant() {
        let before = model(scaled().input("w", DataType::Float, "3"));
        insta::assert_snapshot!(text(&rewritten(&DROP_DEFAULT_INPUTS, &before)), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 9]
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
    fn files_that_need_the_inputs_are_raised_to_a_format_that_does_not() {
        let mut old = model(scaled().input("w", DataType::Float, "3"));
        old.set_ir_version(3);
        apply(&DROP_DEFAULT_INPUTS, &mut old);
        assert_eq!(old.ir_version(), FREE_INITIALIZERS);
    }

    #[test]
    fn inputs_without_a_default_stay() {
        let mut model = model(scaled());
        assert_eq!(apply(&DROP_DEFAULT_INPUTS, &mut model), Outcome::default());
        assert_eq!(model.graph.inputs().len(), 1);
    }
}
