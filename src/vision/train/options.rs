//! Options of a training run.

use std::io;
use std::ops::Deref;
use std::path::PathBuf;

use bcosc_engine::{Engine, default_engine};

use crate::data::{Augmentation, SplitOptions, Unreadable};
use crate::{Error, Options, PointingOptions, PredictOptions, Ramp, Shape, TrainingOptions};

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

impl EngineChoice {
    /// The engine.
    ///
    /// # Errors
    /// [`Error::Run`] if ONNX Runtime is asked for and cannot be loaded.
    pub(in crate::vision) fn open(self) -> Result<Opened, Error> {
        #[cfg(feature = "ort")]
        if self != EngineChoice::Tract {
            match bcosc_engine::onnx_runtime(bcosc_engine::Device::Cpu) {
                Ok(engine) => return Ok(Opened::Loaded(engine)),
                Err(source) if self == EngineChoice::Ort => {
                    return Err(Error::Run {
                        what: "the training step".to_owned(),
                        source: source.into(),
                    });
                }
                Err(_) => {}
            }
        }
        Ok(Opened::BuiltIn(default_engine()))
    }
}

/// An engine that is ready.
pub(in crate::vision) enum Opened {
    BuiltIn(&'static dyn Engine),
    #[cfg(feature = "ort")]
    Loaded(Box<dyn Engine>),
}

impl Deref for Opened {
    type Target = dyn Engine;

    fn deref(&self) -> &Self::Target {
        match self {
            Opened::BuiltIn(engine) => *engine,
            #[cfg(feature = "ort")]
            Opened::Loaded(engine) => engine.as_ref(),
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

/// What runs the training step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum EngineChoice {
    /// ONNX Runtime if it is installed, otherwise tract
    #[default]
    Auto,
    /// tract, which is built in
    Tract,
    /// An installed ONNX Runtime
    #[cfg(feature = "ort")]
    Ort,
}
