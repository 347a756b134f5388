//! Batch norms lose their mean.
//!
//! With statistics fixed, `gamma * (x - mean) / sqrt(var + eps) + beta` is `s * x + (beta - mean * s)`
//! with `s = gamma / sqrt(var + eps)`. The mean moves into the bias, where bias removal finds it:
//!
//! ```text
//! y = BatchNormalization (x, gamma, beta, mean, var)
//! y = BatchNormalization (x, gamma, beta - mean * s, 0, var)
//! ```

use bcosc_ir::views::BatchNorm;
use bcosc_ir::{Graph, Model, NodeId, Patch};

use crate::weights::{self, WeightError};
use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

/// The pass.
pub struct UncentreNorms;

impl Pass for UncentreNorms {
    fn name(&self) -> &'static str {
        "uncentre-norms"
    }

    fn summary(&self) -> &'static str {
        "move the running mean of batch norms into their bias"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn ensures(&self) -> &'static str {
        "batch norms have mean 0"
    }

    fn run(&self, model: &mut Model, _: &Context<'_>) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        for node in model.graph.ops() {
            let graph = &model.graph;
            if !graph.op(node).is_some_and(|op| op.is("BatchNormalization")) {
                continue;
            }
            match uncentre(graph, node) {
                Ok(Some(patch)) => {
                    outcome.changed(graph.label(node), "mean moved into the bias");
                    model.graph.apply(patch)?;
                }
                Ok(None) => {}
                Err(error) => error.settle(graph, node, &mut outcome)?,
            }
        }
        Ok(outcome)
    }
}

/// `None` where the mean is zero already.
fn uncentre(graph: &Graph, node: NodeId) -> Result<Option<Patch>, WeightError> {
    let norm = BatchNorm::of(graph, node).ok_or(Reason::TrainingMode)?;
    let mean = weights::floats(graph, norm.mean)?;
    if mean.elements.iter().all(|&m| m == 0.0) {
        return Ok(None);
    }
    let scale = weights::floats(graph, norm.scale)?;
    let bias = weights::floats(graph, norm.bias)?;
    let var = weights::floats(graph, norm.var)?;
    let epsilon = f64::from(norm.epsilon);
    let shifted: Vec<f64> = (0..bias.elements.len())
        .map(|c| {
            bias.elements[c]
                - mean.elements[c] * scale.elements[c] / (var.elements[c] + epsilon).sqrt()
        })
        .collect();
    let zeros = vec![0.0; mean.elements.len()];
    let mut patch = Patch::at(node);
    let shifted = patch.parameter("bias", bias.with(&shifted));
    let zeros = patch.parameter("mean", mean.with(&zeros));
    patch.set_input(node, 2, Some(shifted));
    patch.set_input(node, 3, Some(zeros));
    Ok(Some(patch))
}
