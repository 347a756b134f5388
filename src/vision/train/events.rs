//! What a run tells and records.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;

use bcosc_ir::Model;
use serde::Serialize;

use crate::Figures;

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
    pub figures: Figures,
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
    pub before: Option<Figures>,
    /// The evaluation at the end.
    pub after: Option<Figures>,
    /// The best accuracy in the run.
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
pub(super) struct EvaluationLine {
    step: u64,
    val_top1: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    val_top5: Option<f64>,
    val_nll: f64,
    /// Mean size of the residual, in logits, and the number of images.
    #[serde(skip_serializing_if = "Option::is_none")]
    residual: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    residual_images: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gridpg: Option<f64>,
}

impl EvaluationLine {
    /// The metrics after a step.
    pub fn of(step: u64, figures: &Figures) -> Self {
        EvaluationLine {
            step,
            val_top1: figures.top1,
            val_top5: figures.top5,
            val_nll: figures.reliability.nll,
            residual: figures.completeness.map(|c| c.residual),
            residual_images: figures.completeness.map(|c| c.images),
            gridpg: figures.pointing.first().and_then(|pointing| pointing.score),
        }
    }
}

/// Hears of events; a break stops the run.
pub(super) type Tell<'t> = &'t mut dyn FnMut(TrainEvent<'_>) -> ControlFlow<()>;
