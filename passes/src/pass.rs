//! What a pass is: a named rewrite of a model that says what it did and what it left alone.

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
    /// At B = 1 the function stays the same, to rounding.
    Exact,
    /// The function changes on purpose.
    Altering,
}

/// One rewrite of a model.
#[derive(Debug)]
pub struct Pass {
    /// Name on the command line, such as `restore-norms`.
    pub name: &'static str,
    /// What it does, in one line.
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
        passes.iter().any(|pass| *pass == self)
    }
}

impl PartialEq for Pass {
    /// Names are unique.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Pass {}

/// What passes share: the user's settings and a way to run graphs.
pub struct Context<'a> {
    /// What the user asked for.
    pub settings: &'a Settings,
    /// Runs and analyses graphs.
    pub interpreter: &'a dyn Interpreter,
    /// Images to measure norm statistics on, by input name: one batch.
    pub calibration: Option<&'a Tensors>,
}

impl Context<'_> {
    /// Infers the types of all values, records them in the graph, and returns what is known.
    pub fn infer(&self, model: &mut Model) -> Result<Facts, PassError> {
        let limit = self.settings.largest_constant;
        Ok(self.interpreter.infer(model, limit)?)
    }
}

/// What a pass did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// Changes, in the order they were made.
    pub changes: Vec<Change>,
    /// Places that were looked at and left, with the reason.
    pub skips: Vec<Skip>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The node of the model, by the name users know.
    pub node: String,
    /// What happened to it.
    pub what: String,
}

/// One place that a pass left alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Skip {
    /// The node of the model, by the name users know.
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

    /// Records a place left alone.
    pub fn skipped(&mut self, node: impl Into<String>, reason: Reason) {
        self.skips.push(Skip {
            node: node.into(),
            reason,
        });
    }
}

/// Why a pass could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassError {
    /// The model has something that the pass cannot convert.
    #[error("{op} node \"{node}\" (opset {opset}): {reason}")]
    Unsupported {
        /// The node's name.
        node: String,
        /// Its operator.
        op: String,
        /// Version of the operator set it belongs to.
        opset: i64,
        /// What is the matter, and what to do.
        reason: Reason,
    },
    /// An input of the model is not what the pass needs.
    #[error("input \"{input}\": {reason}")]
    Input {
        /// The input's name.
        input: String,
        /// What is the matter, and what to do.
        reason: Reason,
    },
    /// The model as a whole is not what the pass needs.
    #[error("{0}")]
    Model(Reason),
    /// A rule made a patch that does not fit: a defect of bcosc.
    #[error("internal error: {0}")]
    Patch(#[from] PatchError),
    /// A part of the graph could not be taken out.
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
