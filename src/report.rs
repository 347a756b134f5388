//! What a conversion did, for people and programs.

use std::path::PathBuf;

use bcosc_ir::{Graph, Model};
use bcosc_passes::analysis::linearity::Verdict;
use bcosc_passes::pipeline::Step;
use serde::Serialize;

use crate::{Options, Proof};

/// The record of a conversion. As JSON it is what `--report` writes; equal models and options give
/// equal records.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of bcosc.
    pub bcosc: &'static str,
    /// The model file; `null` for a model in memory.
    pub model: Option<PathBuf>,
    /// Where the converted model was written; `null` until it is.
    pub output: Option<PathBuf>,
    /// Where its explanation graph was written, if it was.
    pub explanation: Option<PathBuf>,
    /// The recipe that ran.
    pub recipe: &'static str,
    /// What was asked for.
    pub options: Options,
    /// Version of the standard operator set of the result.
    pub opset: Option<i64>,
    /// The original.
    pub before: Size,
    /// The result.
    pub after: Size,
    /// What each pass did, in order.
    pub passes: Vec<Step>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// For each output of the result, whether it is dynamic linear, and what adds to it or breaks it.
    pub linearity: Vec<Verdict>,
    /// How the result compares with the original; `null` where nothing was compared.
    pub proof: Option<Proof>,
}

impl Report {
    /// The record of a conversion that is about to begin, of a model that takes so many bytes on disk.
    pub(crate) fn new(
        path: Option<PathBuf>,
        options: &Options,
        original: &Model,
        bytes: u64,
    ) -> Self {
        Report {
            bcosc: env!("CARGO_PKG_VERSION"),
            model: path,
            output: None,
            explanation: None,
            recipe: options.recipe.name(),
            options: options.clone(),
            opset: original.opset(""),
            before: Size::of(original, Some(bytes)),
            after: Size::of(original, None),
            passes: Vec::new(),
            warnings: Vec::new(),
            linearity: Vec::new(),
            proof: None,
        }
    }
}

/// How large a model is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Number of operators in the main graph.
    pub nodes: usize,
    /// Number of floating-point weights in the main graph.
    pub parameters: u64,
    /// Bytes on disk, external data included; `null` where the model was not read from a file or
    /// not written yet.
    pub bytes: Option<u64>,
}

impl Size {
    /// The size of a model; `bytes` is what it takes on disk.
    pub fn of(model: &Model, bytes: Option<u64>) -> Self {
        Size {
            nodes: model.graph.op_count(),
            parameters: count_parameters(&model.graph),
            bytes,
        }
    }
}

fn count_parameters(graph: &Graph) -> u64 {
    let constants = graph
        .unordered()
        .map(|id| graph.output(id, 0))
        .filter_map(|value| graph.constant(value));
    constants
        .filter(|t| t.dtype().is_float())
        .fold(0, |sum, t| sum.saturating_add(t.len()))
}
