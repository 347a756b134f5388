//! Fine-tuning on a folder of images.
//!
//! ```text
//! model -> converted, if it is not -> training step -> epochs of batches -> tuned model
//! ```
//!
//! A run has a folder for what it keeps: checkpoints (`last.safetensors`, `best.safetensors`), metrics, and a sheet of
//! explanations before and after. A checkpoint is all that a run depends on, so a run that goes on from one ends with the same bytes, on the CPU.

mod checkpoint;
mod events;
mod measure;
mod options;
mod prepare;
mod run;

pub use events::{Evaluated, TrainEvent, Trained};
pub use measure::Measured;
pub use options::{EvaluateEvery, TrainOptions};
pub use run::train;
