//! Class logits get a constant, so that training with BCE starts from sensible probabilities.
//!
//! With K classes and logits near zero, a sigmoid says 1/2 for every class. Adding `-ln(K-1)` makes
//! it 1/K. Departing; comparisons and explanations leave the constant out.
//!
//! ```text
//! logits = Add (y, -ln (K - 1))
//! ```

use bcosc_ir::{Dim, Graph, Model, Op, Patch, Value};

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
        let outputs: Vec<Value> = model.graph.outputs().iter().map(|o| o.value).collect();
        for logits in outputs {
            let name = model.graph.value_name(logits).to_owned();
            let bias = match (cx.settings.logit_bias, classes(&model.graph, logits)) {
                (LogitBias::None, _) => continue,
                (LogitBias::Value(bias), _) => bias,
                (LogitBias::Prior, Ok(classes)) => -((classes - 1) as f64).ln(),
                (LogitBias::Prior, Err(reason)) => {
                    outcome.skipped(name, reason);
                    continue;
                }
            };
            let dtype = model
                .graph
                .value_type(logits)
                .map_or(bcosc_ir::DataType::Float, |t| t.dtype);
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

/// Number of classes of an output [N, K] that is not a probability already.
fn classes(graph: &Graph, logits: Value) -> Result<u64, Reason> {
    let unknown = || Reason::UnknownShape(graph.value_name(logits).to_owned());
    let shape = graph
        .value_type(logits)
        .and_then(|t| t.shape)
        .ok_or_else(unknown)?;
    let probability = ["Softmax", "LogSoftmax", "Sigmoid"];
    if graph
        .producer(logits)
        .is_some_and(|(_, op)| probability.iter().any(|p| op.is(p)))
    {
        return Err(Reason::NotLogits);
    }
    match &shape[..] {
        [_, Dim::Known(classes)] if *classes > 2 => Ok(*classes),
        [_, Dim::Symbol(_) | Dim::Unknown] => Err(unknown()),
        _ => Err(Reason::NotLogits),
    }
}
