//! Errors of ONNX Runtime, which name nodes in many ways.

use bcosc_ir::{Graph, Model, NodeId};
use ort::ErrorCode;

use crate::{EngineError, Unsupported};

/// What it says of operators that it does not know.
const UNKNOWN: [&str; 3] = [
    "is not a registered function/op",
    "No Op registered for",
    "No opset import for domain",
];

/// An error while a model is loaded.
pub(crate) fn loading(error: &ort::Error, model: &Model) -> EngineError {
    let graph = &model.graph;
    let reason = cleaned(error.message());
    let nodes = graph.ops().into_iter();
    let at_fault: Vec<NodeId> = nodes
        .filter(|&id| is_named(graph, id, error.message()))
        .collect();
    let is_unsupported = error.code() == ErrorCode::NotImplemented
        || UNKNOWN.iter().any(|text| reason.contains(text));
    if is_unsupported && !at_fault.is_empty() {
        let parts = at_fault.into_iter().map(|id| Unsupported {
            name: graph.label(id),
            op: operator(graph, id),
            reason: reason.clone(),
        });
        return EngineError::Unsupported(parts.collect());
    }
    let place = at_fault.first().map_or("the model".to_owned(), |&id| {
        let op = operator(graph, id).unwrap_or_default();
        format!("node `{}` ({op})", graph.label(id))
    });
    EngineError::Load { place, reason }
}

/// An error of a run.
pub(crate) fn running(error: &ort::Error) -> EngineError {
    let message = error.message();
    let node = between(message, "while running ", " node.").zip(between(message, "Name:'", "'"));
    let place = node.map_or("running the graph".to_owned(), |(op, name)| {
        format!("node `{name}` ({op})")
    });
    let reason = message.split_once("Status Message: ");
    EngineError::Run {
        place,
        reason: cleaned(reason.map_or(message, |(_, reason)| reason)),
    }
}

/// An error outside of any model.
pub(crate) fn elsewhere(error: &ort::Error) -> EngineError {
    EngineError::Run {
        place: super::NAME.to_owned(),
        reason: cleaned(error.message()),
    }
}

/// Whether a message is about a node, or about all nodes of its operator.
fn is_named(graph: &Graph, id: NodeId, message: &str) -> bool {
    let Some(op) = graph.op(id) else {
        return false;
    };
    let (name, op_type) = (graph.label(id), op.op_type());
    [
        format!("(\"{name}\", {op_type}, "),
        format!("Node ({name}) Op ({op_type})"),
        format!("in node ({name})"),
        format!("node with name '{name}'"),
        format!("Name:'{name}'"),
        format!("{}:{op_type}(", op.domain()),
    ]
    .iter()
    .any(|text| message.contains(text))
}

/// A node's operator, with its domain where that is not standard.
fn operator(graph: &Graph, id: NodeId) -> Option<String> {
    let op = graph.op(id)?;
    Some(match op.domain() {
        "" => op.op_type().to_owned(),
        domain => format!("{domain}.{}", op.op_type()),
    })
}

/// A message without its own prefix, and without the file and function in ONNX Runtime's source that it is from.
fn cleaned(message: &str) -> String {
    let message = message.trim();
    let message = message
        .strip_prefix("This is an invalid model. ")
        .unwrap_or(message);
    let at_source = message
        .starts_with('/')
        .then(|| message.split_once(" was false. "));
    let message = at_source.flatten().map_or(message, |(_, said)| said);
    message.trim().to_owned()
}

fn between<'m>(message: &'m str, start: &str, end: &str) -> Option<&'m str> {
    let (_, rest) = message.split_once(start)?;
    Some(rest.split_once(end)?.0)
}
