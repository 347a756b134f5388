//! Progress events of a conversion.

use bcosc_ir::Model;
use bcosc_passes::pipeline::Step;

/// A progress event.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A stage begins.
    Stage(Stage),
    /// The model was imported; no pass has run yet.
    Imported {
        /// The original.
        model: &'a Model,
    },
    /// A pass of the final conversion has run.
    Pass {
        /// Its outcome.
        step: &'a Step,
        /// The model after it.
        model: &'a Model,
        /// Its place in the list, from 0.
        index: usize,
    },
}

/// A stage of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// The model is read.
    Read,
    /// Calibration images are decoded.
    Images,
    /// Passes rewrite the model.
    Passes,
    /// The result is compared with the original.
    Proof,
}

impl Stage {
    /// A short description.
    pub fn describe(self) -> &'static str {
        match self {
            Stage::Read => "reading the model",
            Stage::Images => "reading calibration images",
            Stage::Passes => "converting",
            Stage::Proof => "comparing with the original",
        }
    }
}
