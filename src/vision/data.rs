//! Training data: folders of pictures, augmentation, and batches made in parallel.
//!
//! ```text
//! files -> decoded (and cached) -> augmented -> encoded for the model -> batches, mixed up
//! ```
//!
//! Every random number comes from a generator of its own for (seed, epoch, picture), or for (seed, epoch, batch) in
//! mixup, so a batch depends on nothing but its place: not on the number of workers, on time, or on the batches before.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use bcosc::data::{Augmentation, Loader, LoaderOptions, Split, Targets};
//! use bcosc::{PredictOptions, Predictor};
//!
//! let predictor = Predictor::open("net.onnx", &PredictOptions::default())?;
//! let split = Split::open(Path::new("cifar10"), &Default::default(), "net.onnx", predictor.classes, None)?;
//! let options = LoaderOptions {
//!     augmentation: Augmentation::shift(4),
//!     targets: Targets::Labels,
//!     ..LoaderOptions::train(128)
//! };
//! let loader = Loader::new(split.train, &predictor.intake, [32, 32], options)?;
//! for epoch in 0..10 {
//!     for batch in loader.epoch(epoch) {
//!         let batch = batch?;
//!         println!("{:?} {:?}", batch.images, batch.targets);
//!     }
//! }
//! # Ok::<(), bcosc::Error>(())
//! ```

mod augment;
mod cache;
mod encoder;
mod epoch;
mod folder;
mod loader;
mod mixup;
mod options;
mod pipeline;
mod samples;
mod split;

#[cfg(test)]
mod tests;

pub use augment::{Augmentation, Crop, Distance, Padding};
pub use epoch::Epoch;
pub use folder::{ImageFolder, Item};
pub use loader::{Loader, Skipped};
pub use options::{LoaderOptions, Targets, Unreadable};
pub use pipeline::Batch;
pub use samples::Samples;
pub use split::{Split, SplitOptions};
