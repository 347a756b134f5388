//! What a run tells and records.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;

use bcosc_ir::Model;
use serde::Serialize;

use super::measure::Measured;

/// What happens in a training run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TrainEvent<'a> {
    /// A part of the preparation begins.
    Preparing(&'static str),
    /// The first step follows.
    Started {
        /// The step to start from.
        step: u64,
        /// All steps.
        steps: u64,
        /// Steps in an epoch.
        per_epoch: u64,
        /// Training and validation images.
        images: [usize; 2],
        /// The engine.
        engine: &'a str,
        /// Warnings about the data.
        notes: &'a [String],
    },
    /// A step was done.
    Step {
        /// Its number, from 1.
        step: u64,
        /// The loss before it.
        loss: f64,
        /// Images per second since the step before.
        rate: f64,
    },
    /// The model was evaluated.
    Evaluated(&'a Evaluated),
    /// A checkpoint was written.
    Checkpoint(u64),
}

/// An evaluation during a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluated {
    /// Steps done.
    pub step: u64,
    /// Mean loss of the steps since the evaluation before.
    pub train_loss: Option<f64>,
    /// The metrics on the validation images.
    pub measured: Measured,
}

/// The outcome of a run.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The tuned model.
    pub model: Model,
    /// Steps done; fewer than planned if the run was interrupted.
    pub steps: u64,
    /// Whether the run was interrupted. A checkpoint was written.
    pub interrupted: bool,
    /// The evaluation before the first step.
    pub before: Option<Measured>,
    /// The last evaluation.
    pub after: Option<Measured>,
    /// The best [`score`](Measured::score) in the run.
    pub best: Option<f64>,
    /// Images that could not be read, of training and of validation.
    pub skipped: BTreeSet<PathBuf>,
}

/// One line of the metrics of a step.
#[derive(Serialize)]
pub(super) struct StepLine {
    pub step: u64,
    pub epoch: u64,
    pub loss: f64,
    pub learning_rate: f64,
    pub images_per_second: f64,
}

/// One line of the metrics of an evaluation.
#[derive(Serialize)]
pub(super) struct EvaluationLine<'a> {
    pub step: u64,
    #[serde(flatten)]
    pub measured: &'a Measured,
}

/// Hears of events; a break stops the run.
pub(super) type Tell<'t> = &'t mut dyn FnMut(TrainEvent<'_>) -> ControlFlow<()>;
