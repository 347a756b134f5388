//! Alignment: a converted model learns from unlabelled images to compute what its original computes.
//!
//! ```text
//! model -> converted -> segments -> phases of steps -> aligned model
//! ```
//!
//! A phase is a training step that runs for some steps: the parameters of one segment against the values that leave it
//! (blocks), all parameters against the values of a few places (joint), or the original's decisions or labels (end to end).

mod budget;
mod choose;
mod events;
mod features;
mod feed;
mod lines;
mod measure;
mod numbers;
mod options;
mod phases;
mod pictures;
mod place;
mod prepare;
mod run;
mod store;

pub use events::{AlignEvent, Aligned, Phased};
pub use measure::Agreement;
pub use options::{AlignOptions, Growth, Method, TrainOn};
pub use phases::Planned;
pub use run::{align, plan_alignment};
