//! Options of a training run.

use std::io;
use std::path::PathBuf;

use bcosc_engine::Precision;

use crate::data::{Augmentation, SplitOptions, Unreadable};
use crate::{
    DeviceChoice, EngineChoice, Error, Options, PointingOptions, PredictOptions, Ramp, Shape,
    TrainingOptions,
};

/// Options of a training run.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// How a model that is not converted is converted first, calibrated on training images; with `None` it is trained
    /// as it is.
    pub conversion: Option<Options>,
    /// Images that norms are calibrated on.
    pub calibration_images: usize,
    /// The training step.
    pub training: TrainingOptions,
    /// How images enter the model.
    pub predict: PredictOptions,
    /// The folder of images: with `train/` and `val/`, or one that is split.
    pub data: PathBuf,
    /// How one folder is split.
    pub split: SplitOptions,
    /// A file with class names, one per line, in the order of the logits.
    pub labels: Option<PathBuf>,
    /// Images per step.
    pub batch_size: usize,
    /// Passes over the training images.
    pub epochs: u64,
    /// The largest number of steps.
    pub steps: Option<u64>,
    /// The largest learning rate.
    pub rate: f64,
    /// Steps in which the learning rate rises.
    pub warmup: u64,
    /// How the learning rate falls.
    pub shape: Shape,
    /// How B grows, with [`Exponent::Input`](bcosc_autodiff::training::Exponent::Input) in the training step.
    /// It grows to that of the model, whatever [`Ramp::to`] says.
    pub growth: Option<Ramp>,
    /// Steps in which kept biases decay to nothing, with
    /// [`scale_biases`](bcosc_autodiff::training::StepOptions::scale_biases) in the training step.
    pub bias_decay: Option<u64>,
    /// Random changes of images.
    pub augmentation: Augmentation,
    /// Threads that prepare images.
    pub workers: usize,
    /// What happens if an image cannot be read.
    pub unreadable: Unreadable,
    /// When the model is evaluated, besides before the first step and at the end.
    pub eval_every: EvaluateEvery,
    /// Validation images that are explained in each evaluation, to measure whether contributions add up to the logit; 0 for none.
    pub completeness: usize,
    /// Measure the grid pointing game at the end, and before the first step.
    pub pointing: Option<PointingOptions>,
    /// Validation images that are explained before and after, in one picture in the folder of the run; 0 for none.
    pub sheet: usize,
    /// Most validation images.
    pub val_images: Option<usize>,
    /// Seed of all random numbers.
    pub seed: u64,
    /// The folder for checkpoints and metrics.
    pub work_dir: PathBuf,
    /// Go on from the last checkpoint in the folder.
    pub resume: bool,
    /// What runs the training step.
    pub engine: EngineChoice,
    /// Where it runs; [`PredictOptions::device`] is where evaluations do.
    pub device: DeviceChoice,
    /// How products are rounded in steps; [`PredictOptions::precision`] is for evaluations.
    pub precision: Precision,
    /// Threads of the engine.
    pub threads: usize,
}

impl TrainOptions {
    /// The error for a file in the folder of the run.
    pub(super) fn failed(&self, source: io::Error) -> Error {
        Error::File {
            path: self.work_dir.clone(),
            source,
        }
    }
}

/// When a model is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvaluateEvery {
    /// At the end of every epoch whose number is a multiple of this.
    Epochs(u64),
    /// After every step whose number is a multiple of this.
    Steps(u64),
}
