//! The report of a conversion.

use std::path::PathBuf;

use bcosc_ir::{Graph, Model};
use bcosc_passes::analysis::linearity::Verdict;
use bcosc_passes::pipeline::Step;
use serde::Serialize;

use crate::{Options, Proof};

/// The report of a conversion, as written by `--report`. Equal models and options give equal
/// reports.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of bcosc.
    pub bcosc: &'static str,
    /// The model file; `null` for a model in memory.
    pub model: Option<PathBuf>,
    /// Path of the converted model; `null` until it is written.
    pub output: Option<PathBuf>,
    /// Path of the explanation graph, if written.
    pub explanation: Option<PathBuf>,
    /// The recipe used.
    pub recipe: &'static str,
    /// The options.
    pub options: Options,
    /// Version of the standard operator set of the result.
    pub opset: Option<i64>,
    /// The original.
    pub before: Size,
    /// The result.
    pub after: Size,
    /// The outcome of each pass, in order.
    pub passes: Vec<Step>,
    /// Warnings.
    pub warnings: Vec<String>,
    /// For each output of the result, whether it is dynamic linear, with constant terms or the nodes that break it.
    pub linearity: Vec<Verdict>,
    /// The comparison with the original; `null` if verification is off.
    pub proof: Option<Proof>,
}

impl Report {
    /// A report before the conversion, for a model of this size on disk.
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

/// The size of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Number of operators in the main graph.
    pub nodes: usize,
    /// Number of floating-point weights in the main graph.
    pub parameters: u64,
    /// Bytes on disk, external data included; `null` for a model in memory.
    pub bytes: Option<u64>,
}

impl Size {
    /// The size of a model with `bytes` on disk.
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
