//! Explanation graphs.

use std::path::{Path, PathBuf};

use bcosc_autodiff::explanation::{self, Kind};
use bcosc_engine::default_interpreter;
use bcosc_ir::Model;
use bcosc_onnx::{WriteOptions, Written};
use bcosc_passes::pipeline::PipelineError;
use bcosc_passes::{Context, Settings};

use crate::checked::checked;
use crate::load::File;
use crate::probabilities::before_probabilities;
use crate::{Error, InputShape, Metadata, Source, plan};

/// The minimum opset of explanation graphs.
const OLDEST: i64 = 13;

/// Options of an explanation graph.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExplainOptions {
    /// New shapes of inputs.
    pub input_shapes: Vec<InputShape>,
    /// The output to explain, by name; by default the first floating-point output.
    pub output: Option<String>,
}

/// The explanation graph of a model: one that bcosc converted, a B-cos model from elsewhere, or any other
/// model whose output is dynamic linear.
///
/// Its inputs are the model's and `target` `[N]`, the class to explain of each image; -1 is the class that
/// the model predicts, and of an embedding the entry of the largest magnitude. Its outputs are `logits`,
/// `class` `[N]`, `weights` W(x) `[N, 2C, H, W]` and `contributions` `[N, H, W]`. A target that is not a class
/// is explained by zeros. A model that ends in a softmax or a sigmoid is explained by its logits.
///
/// # Errors
/// [`Error::Explain`] if the output is not dynamic linear, or an operator has no backward rule.
pub fn explanation_graph(
    source: impl Into<Source>,
    options: &ExplainOptions,
) -> Result<Model, Error> {
    let wanted: Vec<String> = options.output.iter().cloned().collect();
    let file = File::open(source.into())?;
    let (mut model, label) = checked(file, &options.input_shapes, &wanted)?;
    before_probabilities(&mut model);
    explain_model(model, &label)
}

/// The explanation graph of a model in memory.
pub(crate) fn explain_model(mut model: Model, label: &str) -> Result<Model, Error> {
    let metadata = Metadata::read(&model, label)?;
    let embeds = metadata.is_some_and(|m| m.recipe == "clip") || plan::is_embedding(&model.graph);
    let kind = match embeds {
        true => Kind::Embedding,
        false => Kind::Logits,
    };
    let settings = Settings {
        // Backward rules expect operators that take sizes as inputs.
        opset: model.opset("").filter(|&o| o < OLDEST).map(|_| OLDEST),
        ..Settings::default()
    };
    let context = Context {
        settings: &settings,
        interpreter: default_interpreter(),
        calibration: None,
    };
    explanation::explanation(&mut model, kind, &context).map_err(|source| Error::Explain {
        model: label.to_owned(),
        source: Box::new(PipelineError {
            pass: "explanation",
            source: Box::new(source),
        }),
    })?;
    Ok(model)
}

/// The path of the explanation graph of a model: `net.explain.onnx` for `net.onnx`.
pub fn explanation_path(model: &Path) -> PathBuf {
    model.with_extension("explain.onnx")
}

/// Writes a model atomically.
///
/// # Errors
/// [`Error::Write`] if the output cannot be written.
pub fn write_model(model: &Model, path: &Path, options: &WriteOptions) -> Result<Written, Error> {
    Ok(bcosc_onnx::write(&model.to_proto(), path, options)?)
}
