//! What a conversion tells while it runs.

use bcosc_ir::Model;
use bcosc_passes::pipeline::Step;

/// A moment of a conversion.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Something begins that may take a while.
    Stage(Stage),
    /// The model is read, and no pass has run yet.
    Imported {
        /// The original.
        model: &'a Model,
    },
    /// A pass of the final conversion has run.
    Pass {
        /// What it did.
        step: &'a Step,
        /// The model after it.
        model: &'a Model,
        /// Its place in the list, from 0.
        index: usize,
    },
}

/// A part of a conversion.
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
    /// What is being done, in a few words.
    pub fn describe(self) -> &'static str {
        match self {
            Stage::Read => "reading the model",
            Stage::Images => "reading calibration images",
            Stage::Passes => "converting",
            Stage::Proof => "comparing with the original",
        }
    }
}
