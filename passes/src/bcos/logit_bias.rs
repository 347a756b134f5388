//! Adds a constant to class logits, so that training with BCE starts from sensible probabilities.
//!
//! With logits near zero, a sigmoid gives 1/2 for every class. Adding `-ln(K-1)` for K classes gives
//! 1/K. Altering; comparisons and explanations ignore the constant.
//!
//! ```text
//! logits = Add (y, -ln (K - 1))
//! ```

use std::collections::BTreeSet;

use bcosc_ir::{DataType, Dim, Graph, Model, Op, Patch, Value};

use crate::analysis::weights;
use crate::{Context, Effect, LogitBias, Outcome, Pass, PassError, Reason};

/// Key of the model metadata that holds the constant.
pub const LOGIT_BIAS: &str = "bcosc.logit_bias";

/// The pass.
pub static ADD_LOGIT_BIAS: Pass = Pass {
    name: "logit-bias",
    summary: "add -ln(K-1) to the logits of K classes",
    effect: Effect::Altering,
    requires: &[],
    run,
};

fn run(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
    let mut outcome = Outcome::default();
    if cx.settings.logit_bias == LogitBias::None {
        return Ok(outcome);
    }
    let outputs: BTreeSet<Value> = model.graph.outputs().iter().map(|o| o.value).collect();
    for logits in outputs {
        let name = model.graph.value_name(logits).to_owned();
        let bias = match bias(&model.graph, logits, cx.settings.logit_bias) {
            Ok(bias) => bias,
            Err(reason) => {
                outcome.skipped(name, reason);
                continue;
            }
        };
        let dtype = model.graph.value_type(logits);
        let dtype = dtype.map_or(DataType::Float, |t| t.dtype);
        let mut patch = Patch::at(logits.node);
        let constant = patch.parameter("logit_bias", weights::tensor(dtype, &[], &[bias]));
        let sum = patch.op(
            Op::new("", "Add").named("logits"),
            &[logits.into(), constant],
        );
        patch.replace(logits, sum);
        model.graph.apply(patch)?;
        model.set_metadata(LOGIT_BIAS, &bias.to_string());
        outcome.changed(name, format!("{bias:.4} added"));
    }
    Ok(outcome)
}

/// The constant for an output, if it is a vector of logits.
fn bias(graph: &Graph, logits: Value, wanted: LogitBias) -> Result<f64, Reason> {
    let (_, op) = graph.producer(logits).ok_or(Reason::NotLogits)?;
    let probability = ["Softmax", "LogSoftmax", "Sigmoid"];
    let found = graph.value_type(logits);
    let floating = found.as_ref().is_none_or(|t| t.dtype.is_float());
    if probability.iter().any(|p| op.is(p)) || !floating {
        return Err(Reason::NotLogits);
    }
    if let LogitBias::Value(bias) = wanted {
        return Ok(bias);
    }
    let unknown = || Reason::UnknownShape(graph.value_name(logits).to_owned());
    match &found.and_then(|t| t.shape).ok_or_else(unknown)?[..] {
        [_, Dim::Known(classes)] if *classes > 2 => Ok(-((classes - 1) as f64).ln()),
        [_, Dim::Symbol(_) | Dim::Unknown] => Err(unknown()),
        _ => Err(Reason::NotLogits),
    }
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{Attribute, ModelBuilder};

    use super::*;
    use crate::Settings;
    use crate::testing::{Layers, after, batch, image, model, outputs, passed, reasons, text};

    fn with(logit_bias: LogitBias) -> Settings {
        Settings {
            logit_bias,
            ..Settings::default()
        }
    }

    fn head(classes: u64) -> ModelBuilder {
        image("batch,3").matmul("x", "y", &[3, classes])
    }

    fn refusal(before: &Model, settings: &Settings) -> Vec<Reason> {
        match passed(&[&ADD_LOGIT_BIAS], before, settings, None) {
            Ok((_, outcome)) => {
                assert!(outcome.changes.is_empty());
                reasons(outcome)
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn the_prior_follows_the_number_of_classes() {
        let before = head(5).typed("y");
        let after = after(&[&ADD_LOGIT_BIAS], &before, &Settings::default());
        insta::assert_snapshot!(text(&after), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17],
           metadata_props: ["bcosc.logit_bias": "-1.3862943611198906"]
        >
        main (float[batch,3] x) => (y)
        <
           float[3,5] "y.w" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, ... 156079e8},
           float "y.logit_bias" = {-1.3862944}
        >
        {
           "y.before" = MatMul (x, "y.w")
           ["y.logits"] y = Add ("y.before", "y.logit_bias")  # from y
        }
        "#);
        let inputs = batch(&before);
        let mut expected = outputs(&before, &inputs).remove(0);
        expected.data.iter_mut().for_each(|y| *y -= 4f64.ln());
        outputs(&after, &inputs)[0].assert_close(&expected, 1e-6);
        let noted = after.metadata(LOGIT_BIAS).and_then(|b| b.parse().ok());
        assert_eq!(noted, Some(-(4f64.ln())));
    }

    #[test]
    fn a_number_can_be_given() {
        let before = head(2).typed("y");
        let after = after(&[&ADD_LOGIT_BIAS], &before, &with(LogitBias::Value(0.25)));
        assert_eq!(after.metadata(LOGIT_BIAS), Some("0.25"));
    }

    #[test]
    fn a_value_that_is_put_out_twice_gets_it_once() {
        let before = head(5).output("y").typed("y");
        let after = after(&[&ADD_LOGIT_BIAS], &before, &Settings::default());
        let added = after.graph.ops().into_iter();
        let added = added.filter(|&id| after.graph.op(id).is_some_and(|op| op.is("Add")));
        assert_eq!(added.count(), 1);
    }

    #[test]
    fn none_is_added_to_what_are_no_logits() {
        let prior = Settings::default();
        assert_eq!(refusal(&head(2).typed("y"), &prior), [Reason::NotLogits]);
        let softmax = || head(5).op("Softmax", &["y"], "p", []).typed("p");
        assert_eq!(refusal(&softmax(), &prior), [Reason::NotLogits]);
        let given = with(LogitBias::Value(1.0));
        assert_eq!(refusal(&softmax(), &given), [Reason::NotLogits]);
        let map = image("batch,3,4,4").conv("x", "y", &[5, 3, 1, 1], vec![]);
        assert_eq!(refusal(&map.typed("y"), &prior), [Reason::NotLogits]);
        let class = head(5).op("ArgMax", &["y"], "c", [Attribute::int("axis", 1)]);
        assert_eq!(refusal(&class.typed("c"), &given), [Reason::NotLogits]);
        let input = model(image("batch,3").output("x"));
        assert_eq!(refusal(&input, &prior), [Reason::NotLogits]);
        let unknown = model(image("batch,3").op("Relu", &["x"], "y", []).output("y"));
        let reason = Reason::UnknownShape("y".to_owned());
        assert_eq!(refusal(&unknown, &prior), [reason]);
    }

    #[test]
    fn none_is_added_when_none_is_wanted() {
        let before = head(5).typed("y");
        assert_eq!(refusal(&before, &with(LogitBias::None)), []);
    }
}
