//! Class logits get a constant, so that training with BCE starts from sensible probabilities.
//!
//! With K classes and logits near zero, a sigmoid says 1/2 for every class. Adding `-ln(K-1)` makes
//! it 1/K. Departing; comparisons and explanations leave the constant out.
//!
//! ```text
//! logits = Add (y, -ln (K - 1))
//! ```

use std::collections::BTreeSet;

use bcosc_ir::{DataType, Dim, Graph, Model, Op, Patch, Value};

use crate::{Context, Effect, LogitBias, Outcome, Pass, PassError, Reason, weights};

/// The pass.
pub struct AddLogitBias;

/// Key of the model metadata that holds the constant.
pub const LOGIT_BIAS: &str = "bcosc.logit_bias";

impl Pass for AddLogitBias {
    fn name(&self) -> &'static str {
        "logit-bias"
    }

    fn summary(&self) -> &'static str {
        "add -ln(K-1) to the logits of K classes"
    }

    fn effect(&self) -> Effect {
        Effect::Departing
    }

    fn ensures(&self) -> &'static str {
        "logits carry the prior"
    }

    fn run(&self, model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
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
}

/// What to add to an output, if it is logits.
fn bias(graph: &Graph, logits: Value, wanted: LogitBias) -> Result<f64, Reason> {
    let (_, op) = graph.producer(logits).ok_or(Reason::NotLogits)?;
    let probability = ["Softmax", "LogSoftmax", "Sigmoid"];
    let found = graph.value_type(logits);
    let floating = found.as_ref().is_none_or(|t| weights::is_floating(t.dtype));
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
