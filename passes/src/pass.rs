//! Passes: named rewrites of a model that report what they changed and skipped.

use bcosc_ir::{
    Facts, Interpreter, InterpreterError, Model, NodeId, PatchError, SurgeryError, TensorError,
    Tensors,
};
use serde::Serialize;

use crate::{Reason, Settings};

/// Whether a pass keeps the function that the network computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Keeps the function at B = 1, up to rounding.
    Exact,
    /// Changes the function on purpose.
    Altering,
}

/// One rewrite of a model.
#[derive(Debug)]
pub struct Pass {
    /// Name on the command line, such as `restore-norms`.
    pub name: &'static str,
    /// One-line description.
    pub summary: &'static str,
    /// Whether it keeps the function.
    pub effect: Effect,
    /// Passes that must have run before.
    pub requires: &'static [&'static Pass],
    /// Rewrites the model.
    pub run: fn(&mut Model, &Context<'_>) -> Result<Outcome, PassError>,
}

impl Pass {
    /// Whether a list has this pass.
    pub fn is_in(&self, passes: &[&Pass]) -> bool {
        passes.contains(&self)
    }
}

impl PartialEq for Pass {
    /// Names are unique.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Pass {}

/// Context of a pass: settings and an interpreter.
pub struct Context<'a> {
    /// Settings of the conversion.
    pub settings: &'a Settings,
    /// Runs and analyses graphs.
    pub interpreter: &'a dyn Interpreter,
    /// Images to measure norm statistics on, by input name: one batch.
    pub calibration: Option<&'a Tensors>,
}

impl Context<'_> {
    /// Infers the types of all values, stores them in the graph, and returns the facts.
    pub fn infer(&self, model: &mut Model) -> Result<Facts, PassError> {
        let limit = self.settings.largest_constant;
        Ok(self.interpreter.infer(model, limit)?)
    }
}

/// The outcome of a pass.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// Changes, in order.
    pub changes: Vec<Change>,
    /// Skipped nodes, with reasons.
    pub skips: Vec<Skip>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The name of the node in the original model.
    pub node: String,
    /// The change.
    pub what: String,
}

/// One skipped node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Skip {
    /// The name of the node in the original model.
    pub node: String,
    /// Why.
    pub reason: Reason,
}

impl Outcome {
    /// Records a change.
    pub fn changed(&mut self, node: impl Into<String>, what: impl Into<String>) {
        self.changes.push(Change {
            node: node.into(),
            what: what.into(),
        });
    }

    /// Records a skipped node.
    pub fn skipped(&mut self, node: impl Into<String>, reason: Reason) {
        self.skips.push(Skip {
            node: node.into(),
            reason,
        });
    }
}

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassError {
    /// The pass cannot convert a node.
    #[error("{op} node \"{node}\" (opset {opset}): {reason}")]
    Unsupported {
        /// The node's name.
        node: String,
        /// Its operator.
        op: String,
        /// Version of the operator set it belongs to.
        opset: i64,
        /// The problem, and a remedy if there is one.
        reason: Reason,
    },
    /// An input of the model does not meet the requirements of the pass.
    #[error("input \"{input}\": {reason}")]
    Input {
        /// The input's name.
        input: String,
        /// The problem, and a remedy if there is one.
        reason: Reason,
    },
    /// The model does not meet the requirements of the pass.
    #[error("{0}")]
    Model(Reason),
    /// A rule built an invalid patch (a bug in bcosc).
    #[error("internal error: {0}")]
    Patch(#[from] PatchError),
    /// A part of the graph cannot be extracted.
    #[error("internal error: {0}")]
    Surgery(#[from] SurgeryError),
    /// Running or analysing the graph failed.
    #[error(transparent)]
    Interpreter(#[from] InterpreterError),
    /// A weight could not be read.
    #[error("weight of {node}: {source}")]
    Weight {
        /// The node that uses it.
        node: String,
        /// What is wrong.
        source: TensorError,
    },
}

impl PassError {
    /// The error for a node that cannot be converted.
    pub fn unsupported(model: &Model, node: NodeId, reason: Reason) -> Self {
        let name = model.graph.label(node);
        match model.graph.op(node) {
            Some(op) => PassError::Unsupported {
                node: name,
                op: op.kind(),
                opset: model.opset(op.domain()).unwrap_or(0),
                reason,
            },
            None => PassError::Input {
                input: name,
                reason,
            },
        }
    }
}
