//! Errors. Messages name the location, and a remedy if there is one.

use std::fmt;
use std::io;
use std::path::PathBuf;

use bcosc_engine::{EngineError, SampleError};
use bcosc_ir::{ImportError, InterpreterError, SurgeryError};
use bcosc_onnx::{ReadError, WriteError};
use bcosc_passes::pipeline::PipelineError;

use crate::engines::DeviceChoice;
use crate::proof::Failure;

/// Why a conversion, a comparison or an inspection failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option is out of range, or options conflict.
    #[error("{0}")]
    Options(String),
    /// The device cannot be used.
    #[error(
        "cannot compute on {device}: {source}; with --device cpu, everything runs on the processor"
    )]
    Device {
        /// What was asked for.
        device: DeviceChoice,
        /// What is missing.
        source: EngineError,
    },
    /// The engine, or the device, does not compute in the precision.
    #[error("{source}; --device chooses another device, --precision fp32 works on all of them")]
    Precision {
        /// Which, and why not.
        source: EngineError,
    },
    /// The model cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The graph of the model is invalid.
    #[error("{model}: {source}")]
    Import {
        /// The file, or a description of a model in memory.
        model: String,
        /// What is wrong.
        source: Box<ImportError>,
    },
    /// The model is already converted.
    #[error(
        "{model} is already a B-cos model (made with bcosc {version}, B = {b}); convert the original model instead"
    )]
    AlreadyConverted {
        /// The file.
        model: String,
        /// Version of bcosc that made it.
        version: String,
        /// Its B.
        b: f64,
    },
    /// The operator set is not supported.
    #[error("{model}: {problem}")]
    Opset {
        /// The file.
        model: String,
        /// What is wrong with its operator set, and what to do.
        problem: String,
    },
    /// The model has operators that no recipe can convert.
    #[error("{model}: {}", list_ops(.ops, .advice))]
    UnsupportedOps {
        /// The file.
        model: String,
        /// All of them.
        ops: Vec<UnsupportedOp>,
        /// What to do.
        advice: String,
    },
    /// A weight is invalid.
    #[error(
        "{model}: the weight \"{weight}\" {problem}; export the model again, or train it again if it diverged"
    )]
    Weights {
        /// The file.
        model: String,
        /// The weight.
        weight: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An operator is in training mode.
    #[error(
        "{model}: {op} node \"{node}\" was exported in training mode; export the model after .eval()"
    )]
    Training {
        /// The file.
        model: String,
        /// The node.
        node: String,
        /// Its operator.
        op: &'static str,
    },
    /// No pass has this name.
    #[error("there is no pass `{name}` in {place}{}", did_you_mean(.similar))]
    UnknownPass {
        /// The name.
        name: String,
        /// The list that was searched.
        place: String,
        /// A name that is close.
        similar: Option<&'static str>,
    },
    /// A pass would run without another that it requires.
    #[error("pass `{pass}` requires `{requires}` before it")]
    MissingPass {
        /// The pass.
        pass: &'static str,
        /// What it needs.
        requires: &'static str,
    },
    /// An option does not match an input of the model.
    #[error("{model}: {problem}")]
    Input {
        /// The file.
        model: String,
        /// What does not fit.
        problem: String,
    },
    /// A pass failed.
    #[error("cannot convert {model}")]
    Pass {
        /// The file.
        model: String,
        /// Which, and why.
        source: Box<PipelineError>,
    },
    /// A model cannot be explained.
    #[error("cannot explain {model}")]
    Explain {
        /// The file.
        model: String,
        /// Why.
        source: Box<PipelineError>,
    },
    /// A model cannot be trained.
    #[error("cannot train {model}")]
    Train {
        /// The file.
        model: String,
        /// Why.
        source: Box<PipelineError>,
    },
    /// The loss or a weight is not a number.
    #[error(
        "training diverged at step {step}: {problem}; use a lower --lr, a --warmup or --agc{}",
        kept(.checkpoint)
    )]
    Diverged {
        /// The step, from 1.
        step: u64,
        /// What is not a number.
        problem: String,
        /// The last checkpoint before it.
        checkpoint: Option<PathBuf>,
    },
    /// A file with weights cannot be used.
    #[error("weights {}: {problem}", .path.display())]
    WeightFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// An image cannot be used.
    #[error("image {}: {problem}", .path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A folder of images cannot be used.
    #[error("images {}: {problem}", .path.display())]
    Images {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A model cannot explain grids of pictures.
    #[error(
        "{model} cannot explain {cells}x{cells} grids of {height} x {width} pixels: {problem}\n\
         The grid pointing game requires a network that works on larger pictures (the file may still declare a fixed \
         size); leave out --gridpg for this model"
    )]
    Grid {
        /// The model.
        model: String,
        /// Pictures along a side.
        cells: usize,
        /// Height of a grid.
        height: usize,
        /// Width of a grid.
        width: usize,
        /// Why.
        problem: String,
    },
    /// The calibration source cannot be used.
    #[error("calibration source {}: {problem}", .path.display())]
    Calibration {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A model cannot be run.
    #[error("cannot run {what}")]
    Run {
        /// Which model.
        what: String,
        /// Why.
        source: RunError,
    },
    /// The converted model fails the proof.
    #[error(transparent)]
    Proof(Box<Failure>),
    /// A bcosc metadata entry is invalid.
    #[error("{model}: metadata `{key}` is `{value}`, which is not {expected}")]
    Metadata {
        /// The file.
        model: String,
        /// The entry's key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// The model cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A file with names of classes cannot be used.
    #[error("labels {}: {problem}", .path.display())]
    Labels {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A result cannot be encoded.
    #[error("cannot encode {what}: {problem}")]
    Encode {
        /// The form, such as `png`.
        what: &'static str,
        /// Why.
        problem: String,
    },
    /// A file other than the model cannot be written.
    #[error("cannot write {}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl Error {
    /// A failure to encode something as `what`.
    pub(crate) fn encode(what: &'static str, problem: impl fmt::Display) -> Error {
        Error::Encode {
            what,
            problem: problem.to_string(),
        }
    }
}

/// Why a model cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The engine cannot run it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// No inputs can be generated for it.
    #[error(transparent)]
    Samples(#[from] SampleError),
    /// Its B-cos operators cannot be written as standard ONNX.
    #[error(transparent)]
    Lower(#[from] Box<PipelineError>),
    /// The types of its values cannot be inferred.
    #[error(transparent)]
    Types(#[from] InterpreterError),
    /// It cannot be cut into parts.
    #[error(transparent)]
    Parts(#[from] SurgeryError),
    /// An input or output has an unexpected form.
    #[error("{0}")]
    Values(String),
}

/// An operator that cannot be converted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsupportedOp {
    /// Name of the node, or of its first output.
    pub node: String,
    /// The operator, with its domain where that is not standard ONNX.
    pub op: String,
    /// Version of the operator set it belongs to.
    pub opset: i64,
}

impl fmt::Display for UnsupportedOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} node \"{}\" (opset {})",
            self.op, self.node, self.opset
        )
    }
}

/// Number of operators that a message names; further ones are counted.
const NAMED: usize = 5;

fn list_ops(ops: &[UnsupportedOp], advice: &str) -> String {
    let named: Vec<String> = ops
        .iter()
        .take(NAMED)
        .map(UnsupportedOp::to_string)
        .collect();
    let more = match ops.len().saturating_sub(NAMED) {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    format!(
        "unsupported operators: {}{more}; {advice}",
        named.join(", ")
    )
}

fn kept(checkpoint: &Option<PathBuf>) -> String {
    let path = checkpoint.as_ref().map(|path| path.display());
    path.map_or_else(String::new, |path| format!(" ({path} is from before)"))
}

fn did_you_mean(similar: &Option<&'static str>) -> String {
    similar
        .map(|name| format!("; did you mean `{name}`?"))
        .unwrap_or_default()
}
