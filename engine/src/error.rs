//! Errors of engines.

use std::fmt;

use bcosc_ir::{DataType, TensorError, TensorType};

use crate::{Device, Precision};

/// Number of unsupported nodes that a message names; further ones are counted.
const NAMED: usize = 5;

/// An error of an engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The engine is not installed, or not in a version that can be used.
    #[error("{engine} is not available: {reason}")]
    Unavailable {
        /// The engine.
        engine: &'static str,
        /// What was looked for, and how to get it.
        reason: String,
    },
    /// The engine does not compute on this device.
    #[error("{engine} on {device} is not supported yet")]
    Device {
        /// The engine.
        engine: &'static str,
        /// The device.
        device: Device,
    },
    /// The engine, or the device, does not compute in this precision.
    #[error("{engine} does not compute in {precision}: {reason}")]
    Precision {
        /// The engine.
        engine: &'static str,
        /// The precision.
        precision: Precision,
        /// Why not, and what does.
        reason: String,
    },
    /// There is no precision of this name.
    #[error("there is no precision `{0}`; it can be `fp32`, `tf32` or `bf16`")]
    UnknownPrecision(String),
    /// There is no device of this name.
    #[error("there is no device `{0}`; it can be `cpu`, `cuda` or `cuda:N`")]
    UnknownDevice(String),
    /// The engine cannot compute parts of the model.
    #[error("{}", list(.0))]
    Unsupported(Vec<Unsupported>),
    /// A part of the model cannot be loaded.
    #[error("{place}: {reason}")]
    Load {
        /// The part.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A part of the network does not fit the shapes of the inputs.
    #[error("{place}: {reason}")]
    Shapes {
        /// The part.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A value is too large.
    #[error("node `{node}` computes {value}, which is too large")]
    TooLarge {
        /// The node that computes it.
        node: String,
        /// Its type and shape.
        value: String,
    },
    /// An input is not given.
    #[error("input `{0}` is missing")]
    MissingInput(String),
    /// There is no input of this name.
    #[error("the model has no input `{0}`")]
    UnknownInput(String),
    /// There is no output of this name.
    #[error("the model has no output `{0}`")]
    UnknownOutput(String),
    /// A run needs one value for each input.
    #[error("{given} inputs are given, not {expected}")]
    InputCount {
        /// Number of inputs.
        expected: usize,
        /// Number of given values.
        given: usize,
    },
    /// The model does not declare the type of an input, or the engine does not have it.
    #[error("input `{0}` is not a numeric tensor")]
    UntypedInput(String),
    /// An input is of another element type.
    #[error("input `{input}` is declared {declared}, given {given}")]
    InputType {
        /// The input.
        input: String,
        /// Its declared element type.
        declared: DataType,
        /// The element type of the given value.
        given: DataType,
    },
    /// An input is of another shape.
    #[error("input `{input}` is declared {declared}, given {given:?}")]
    InputShape {
        /// The input.
        input: String,
        /// Its declared type.
        declared: TensorType,
        /// The shape of the given value.
        given: Vec<u64>,
    },
    /// The engine does not compute with this element type.
    #[error("no arithmetic on {0}")]
    DataType(DataType),
    /// An output is not made of numbers.
    #[error("output `{0}` is not numeric")]
    Output(String),
    /// Running failed.
    #[error("{place}: {reason}")]
    Run {
        /// The operation.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// A tensor cannot be read.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// A part of a model that an engine cannot compute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// The node's name, or that of its first output; the name of a constant.
    pub name: String,
    /// The node's operator, with its domain where that is not standard ONNX; `None` for constants.
    pub op: Option<String>,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unsupported { name, op, reason } = self;
        match op {
            Some(op) => write!(f, "node `{name}` ({op}): {reason}"),
            None => write!(f, "constant `{name}`: {reason}"),
        }
    }
}

fn list(problems: &[Unsupported]) -> String {
    let shown = problems.iter().take(NAMED).map(Unsupported::to_string);
    let shown = shown.collect::<Vec<_>>().join("; ");
    match problems.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}
