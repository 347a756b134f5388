//! What a run of an alignment tells, and its outcome.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;

use bcosc_ir::Model;
use serde::{Deserialize, Serialize};

use super::measure::Agreement;
use super::phases::Planned;

/// What happens in an alignment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AlignEvent<'a> {
    /// A part of the preparation begins.
    Preparing(&'static str),
    /// The method is [`Method::Grow`](super::Method::Grow), for this reason, since none was asked for.
    Grows(&'static str),
    /// The first step follows.
    Started {
        /// What will be trained.
        phases: &'a [Planned],
        /// Training images, and images held out.
        images: [usize; 2],
        /// Images in a step.
        batch_size: usize,
        /// The engine.
        engine: &'a str,
        /// Warnings about the data.
        notes: &'a [String],
        /// Steps done before, where an alignment goes on.
        done: u64,
    },
    /// A step was done.
    Step {
        /// The number of the phase, from 0.
        phase: usize,
        /// Steps done in the phase.
        step: u64,
        /// Steps of the phase.
        steps: u64,
        /// The sum of the errors of its taps.
        loss: f64,
        /// Images per second since the step before.
        rate: f64,
    },
    /// A phase is done.
    Phase(&'a Phased),
    /// The model was compared with its original.
    Measured(&'a Agreement),
}

/// A phase that is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phased {
    /// What was trained.
    pub name: String,
    /// Its steps.
    pub steps: u64,
    /// Seconds that it took, features included.
    pub seconds: f64,
    /// Mean error of its taps in its first step, before the update; the loss, if it has none.
    pub before: f64,
    /// The same over its last five steps.
    pub after: f64,
}

/// The outcome of an alignment.
#[derive(Clone, Debug)]
pub struct Aligned {
    /// The aligned model.
    pub model: Model,
    /// Whether it was interrupted. A checkpoint was written.
    pub interrupted: bool,
    /// What was done.
    pub phases: Vec<Phased>,
    /// The original, on images that have labels.
    pub original: Option<crate::Figures>,
    /// The converted model compared with its original.
    pub before: Option<Agreement>,
    /// The aligned model compared with its original.
    pub after: Option<Agreement>,
    /// Images that could not be read.
    pub skipped: BTreeSet<PathBuf>,
}

/// Hears of events; a break stops the run.
pub(super) type Tell<'t> = &'t mut dyn FnMut(AlignEvent<'_>) -> ControlFlow<()>;
