//! Operators that return their input.
//!
//! ```text
//! Identity (x)                      = x
//! Dropout (x)                       = x     when not training
//! Concat (x)                        = x     likewise Sum, Mean, Max, Min of one
//! Slice <every step 1> (x)          = x     where the shape stays
//! Expand (x, s)                     = x     where the shape stays
//! ```

use bcosc_ir::{Dim, Graph, Patch, Shape, Value};

use crate::Reason;
use crate::canonical::constants;
use crate::canonical::worklist::Site;

pub(super) fn identity(site: &Site<'_>) -> Result<Patch, Reason> {
    site.bypass(site.input(0)?)
}

pub(super) fn dropout(site: &Site<'_>) -> Result<Patch, Reason> {
    let Site { graph, node, .. } = *site;
    if let Some(mode) = graph.input(node, 2) {
        let training = constants::integer(graph, mode);
        if training.is_none_or(|training| training != 0) {
            return Err(Reason::Training);
        }
    }
    if graph.output_count(node) > 1 {
        let mask = graph.output(node, 1);
        if !graph.uses(mask).is_empty() {
            return Err(Reason::UsedElsewhere(graph.value_name(mask).to_owned()));
        }
    }
    site.bypass(site.input(0)?)
}

pub(super) fn one_input(site: &Site<'_>) -> Result<Patch, Reason> {
    match site.graph.inputs_of(site.node)[..] {
        [Some(x)] => site.bypass(x),
        _ => Err(Reason::Needed("it has several inputs")),
    }
}

pub(super) fn slice(site: &Site<'_>) -> Result<Patch, Reason> {
    let x = site.input(0)?;
    keeps_shape(site.graph, x, site.output())?;
    // A step of -1 keeps the shape but reverses the axis.
    let steps = constants::list(site.graph, site.node, "steps", 4)?;
    if steps.is_some_and(|steps| steps.iter().any(|&step| step != 1)) {
        return Err(Reason::Needed("it changes the order"));
    }
    site.bypass(x)
}

pub(super) fn expand(site: &Site<'_>) -> Result<Patch, Reason> {
    let x = site.input(0)?;
    keeps_shape(site.graph, x, site.output())?;
    site.bypass(x)
}

/// Whether every dimension of two values is known to be the same.
pub(super) fn keeps_shape(graph: &Graph, x: Value, y: Value) -> Result<(), Reason> {
    let (before, after) = (shape_of(graph, x)?, shape_of(graph, y)?);
    let same = before
        .iter()
        .zip(&after)
        .all(|(a, b)| a == b && *a != Dim::Unknown);
    if before.len() == after.len() && same {
        return Ok(());
    }
    Err(Reason::Needed("it changes the shape"))
}

pub(super) fn shape_of(graph: &Graph, value: Value) -> Result<Shape, Reason> {
    let shape = graph.value_type(value).and_then(|t| t.shape);
    shape.ok_or_else(|| Reason::UnknownShape(graph.value_name(value).to_owned()))
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{Attribute, DataType, ModelBuilder, Tensor};

    use super::super::{RULES, SIMPLIFY};
    use super::*;
    use crate::testing::{apply, model, reasons, refusal, rewritten, text};

    fn start() -> ModelBuilder {
        ModelBuilder::new(17).input("x", DataType::Float, "batch,4")
    }

    fn end(builder: ModelBuilder, from: &str) -> bcosc_ir::Model {
        model(
            builder
                .op("Relu", &[from], "y", [])
                .output_as("y", DataType::Float, "batch,4"),
        )
    }

    #[test]
    fn operators_that_pass_on_go() {
        let before = start()
            .param(
                "no",
                Tensor::from_bytes(DataType::Bool, &[], vec![0].into()),
            )
            .param("zero", Tensor::i64_vec(&[0]))
            .param("end", Tensor::i64_vec(&[i64::MAX]))
            .param("ones", Tensor::i64_vec(&[1, 1]))
            .op("Identity", &["x"], "a", [])
            .op("Dropout", &["a", "", "no"], "b,mask", [])
            .op("Concat", &["b"], "c", [Attribute::int("axis", 1)])
            .op("Slice", &["c", "zero", "end"], "d", [])
            .op("Expand", &["d", "ones"], "e", [])
            .op("Max", &["e"], "f", []);
        insta::assert_snapshot!(text(&rewritten(&SIMPLIFY, &end(before, "f"))), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,4] x) => (float[batch,4] y) {
           y = Relu (x)
        }
        "#);
    }

    #[test]
    fn an_output_takes_its_name_along() {
        let before = start()
            .op("Relu", &["x"], "a", [])
            .op("Identity", &["a"], "y", []);
        let before = model(before.output_as("y", DataType::Float, "batch,4"));
        insta::assert_snapshot!(text(&rewritten(&SIMPLIFY, &before)), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,4] x) => (float[batch,4] y) {
           y = Relu (x)
        }
        "#);
    }

    #[test]
    fn an_output_that_repeats_an_input_or_an_output_stays() {
        let model_of = |builder: ModelBuilder| {
            let builder = builder
                .op("Identity", &["x"], "y", [])
                .op("Relu", &["x"], "r", []);
            let builder = builder.op("Identity", &["r"], "s", []);
            let outputs = ["y", "r", "s"].into_iter();
            model(outputs.fold(builder, |b, name| {
                b.output_as(name, DataType::Float, "batch,4")
            }))
        };
        let mut model = model_of(start());
        let outcome = apply(&SIMPLIFY, &mut model);
        assert_eq!(outcome.changes, []);
        let names = ["y", "s"].map(|name| Reason::OutputName(name.to_owned()));
        assert_eq!(reasons(outcome), names);
    }

    #[test]
    fn dropout_that_drops_stays() {
        let yes = Tensor::from_bytes(DataType::Bool, &[], vec![1].into());
        let model = end(
            start()
                .param("yes", yes)
                .op("Dropout", &["x", "", "yes"], "d", []),
            "d",
        );
        assert_eq!(refusal(RULES, &model, "Dropout"), Reason::Training);
    }

    #[test]
    fn dropout_whose_mask_is_used_stays() {
        let builder = start().op("Dropout", &["x"], "d,mask", []).output_as(
            "mask",
            DataType::Bool,
            "batch,4",
        );
        assert_eq!(
            refusal(RULES, &end(builder, "d"), "Dropout"),
            Reason::UsedElsewhere("mask".to_owned())
        );
    }

    #[test]
    fn a_slice_that_turns_an_axis_round_stays() {
        let number = |n| Tensor::i64_vec(&[n]);
        let builder = start()
            .param("from", number(-1))
            .param("to", number(i64::MIN))
            .param("axis", number(1))
            .param("step", number(-1))
            .op("Slice", &["x", "from", "to", "axis", "step"], "s", []);
        assert_eq!(
            refusal(RULES, &end(builder, "s"), "Slice"),
            Reason::Needed("it changes the order")
        );
    }

    #[test]
    fn an_expand_that_repeats_stays() {
        let builder = ModelBuilder::new(17)
            .input("x", DataType::Float, "batch,1")
            .param("s", Tensor::i64_vec(&[1, 4]))
            .op("Expand", &["x", "s"], "e", []);
        assert_eq!(
            refusal(RULES, &end(builder, "e"), "Expand"),
            Reason::Needed("it changes the shape")
        );
    }
}
