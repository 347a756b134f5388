//! Models that end in probabilities are explained by the logits before them.

use bcosc_autodiff::scores::explained;
use bcosc_engine::default_interpreter;
use bcosc_ir::ops::Trait;
use bcosc_ir::{Graph, Interpreter, Model, NodeId, Patch, Value};

use crate::Probability;

/// Removes a final softmax, log-softmax or sigmoid, so that the model outputs logits. Returns which one it was. Operators
/// that only reshape or cast may follow it. Of several outputs, only the explained one is kept; if that is not a
/// probability, the model does not change.
pub(crate) fn before_probabilities(model: &mut Model) -> Option<Probability> {
    let output = chosen(model)?;
    let graph = &model.graph;
    let declared = graph.outputs().iter().find(|found| found.value == output)?;
    let name = declared.info.name.clone().unwrap_or_default();
    let ending = Ending::of(graph, output)?;
    let logits = graph.input(ending.first, 0)?;
    if ending.result == output {
        // Probabilities have the shape of their logits, which inference may not know.
        let known = |value| {
            graph
                .value_type(value)
                .filter(|found| found.shape.is_some())
        };
        if known(logits).is_none()
            && let Some(found) = known(output)
        {
            model.graph.set_value_type(logits, found);
        }
        model.graph.set_outputs(&[(logits, name)]);
    } else {
        let mut patch = Patch::at(ending.first);
        patch.replace(ending.result, logits);
        model.graph.apply(patch).ok()?;
        model.graph.set_outputs(&[(output, name)]);
    }
    model.graph.remove_dead();
    Some(ending.kind)
}

/// The output that is explained. Types are inferred only where the file leaves them out.
fn chosen(model: &Model) -> Option<Value> {
    let outputs = model.graph.outputs();
    let untyped = |value| model.graph.value_type(value).is_none();
    if outputs.len() < 2 || !outputs.iter().any(|output| untyped(output.value)) {
        return explained(&model.graph);
    }
    // Values keep their ids in a copy.
    let mut typed = model.clone();
    default_interpreter().infer(&mut typed, 0).ok()?;
    explained(&typed.graph)
}

/// The operators that compute probabilities from logits.
struct Ending {
    kind: Probability,
    /// The operator that reads the logits.
    first: NodeId,
    /// The probabilities.
    result: Value,
}

impl Ending {
    /// Looks for it at an output, and before operators that only reshape or cast.
    fn of(graph: &Graph, output: Value) -> Option<Self> {
        let standard = |value| {
            graph
                .producer(value)
                .filter(|(_, op)| op.domain().is_empty())
        };
        let kind = |value| {
            let (node, op) = standard(value)?;
            let kind = match op.op_type() {
                "Softmax" | "LogSoftmax" => Probability::Softmax,
                "Sigmoid" => Probability::Sigmoid,
                _ => return None,
            };
            Some((kind, node))
        };
        let mut result = output;
        loop {
            if let Some((kind, first)) = kind(result) {
                return Some(Ending {
                    kind,
                    first,
                    result,
                });
            }
            let (node, op) = standard(result)?;
            let before = graph.input(node, 0)?;
            if op.is("Log") {
                let (kind, first) = kind(before)?;
                return Some(Ending {
                    kind,
                    first,
                    result,
                });
            }
            if !op.has_any(&[Trait::View, Trait::Copy, Trait::Cast]) {
                return None;
            }
            result = before;
        }
    }
}

#[cfg(test)]
mod tests;
