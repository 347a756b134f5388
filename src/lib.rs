//! Compiles pretrained ONNX models into B-cos models.
//!
//! [`convert`] takes a model file or its bytes, runs the passes of a recipe over it, and proves
//! that the result computes the same function where it must. It does not print and never exits.
//!
//! ```
//! use bcosc::{Options, Preset, convert};
//!
//! let mut options = Options::default();
//! options.settings.b = 2.0;
//! options.settings.normalization = Some(Preset::Imagenet.normalization());
//!
//! # let folder = tempfile::tempdir()?;
//! # let output = folder.path().join("resnet_tiny.bcos.onnx");
//! let mut converted = convert("fixtures/resnet_tiny/model.folded.onnx", &options)?;
//! converted.write(&output, &Default::default())?;
//! println!("{} operators became {}", converted.report.before.nodes, converted.report.after.nodes);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod calibration;
mod canonical;
mod checked;
mod compare;
mod contract;
mod convert;
#[cfg(feature = "cuda")]
mod cuda_folder;
mod engines;
mod error;
mod explanation;
mod inspect;
mod load;
mod metadata;
mod normalization;
mod options;
mod outputs;
mod places;
mod plan;
mod probabilities;
mod probability;
mod progress;
mod proof;
mod prove;
mod replace;
mod report;
mod samples;
mod soundness;
mod support;
mod training;
#[cfg(feature = "vision")]
mod vision;
mod weights;

pub use bcosc_autodiff as autodiff;
pub use bcosc_engine as engine;
pub use bcosc_ir as ir;
pub use bcosc_onnx as onnx;
pub use bcosc_passes as passes;

pub use compare::{Comparison, compare_models, compare_models_on};
pub use contract::Images;
pub use convert::{Converted, convert, convert_with};
#[cfg(feature = "cuda")]
pub use cuda_folder::{cuda_path, write_cuda_folder};
pub use engines::DeviceChoice;
#[cfg(feature = "vision")]
pub use engines::EngineChoice;
pub use error::{Error, RunError, UnsupportedOp};
pub use explanation::{ExplainOptions, explanation_graph, explanation_path, write_model};
pub use inspect::{
    Composites, Inspection, Norms, PassSummary, Port, RecipePreview, Unrecognised, inspect,
};
pub use metadata::Metadata;
#[cfg(feature = "vision")]
pub use options::CalibrationFiles;
pub use options::{
    Calibration, InputShape, Options, Preset, Recipe, Selection, Source, Verification, Verify,
};
pub use plan::all_passes;
pub use probability::Probability;
pub use progress::{Event, Stage};
pub use proof::{Failure, Proof};
pub use report::{Report, Size};
pub use training::{
    Batch, METRICS, Metrics, Numbers, Ramp, STATE, Schedule, Shape, Stepped, Trainer,
    TrainingOptions, TrainingStep, state_path, step_path, training_step,
};
#[cfg(feature = "vision")]
pub use vision::align::{
    Agreement, AlignEvent, AlignOptions, Aligned, Growth, Method, Phased, Planned, TrainOn, align,
    plan_alignment,
};
#[cfg(feature = "vision")]
pub use vision::data;
#[cfg(feature = "vision")]
pub use vision::evaluate::{
    Bin, Completeness, Curve, EvaluateOptions, Evaluation, Figures, Perturbation,
    PerturbationOptions, Pointing, PointingOptions, Progressed, Reliability, Task, evaluate,
};
#[cfg(feature = "vision")]
pub use vision::explain::{
    Choice, Explained, Explainer, Explanation, SizedExplainer, encoded_png, raw, sheet,
};
#[cfg(feature = "vision")]
pub use vision::images::pictures;
#[cfg(feature = "vision")]
pub use vision::labels::Labels;
#[cfg(feature = "vision")]
pub use vision::predict::{Intake, PredictOptions, Predictor, SizedPredictor};
#[cfg(feature = "vision")]
pub use vision::train::{
    EvaluateEvery, Evaluated, Measured, TrainEvent, TrainOptions, Trained, train,
};
pub use weights::{Merged, Weights, extract_weights, merge_weights};
