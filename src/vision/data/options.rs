//! Options of a loader.

use super::Augmentation;
use crate::Error;

/// Options of a loader, named as in PyTorch's `DataLoader` where it has them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoaderOptions {
    /// Pictures in a batch.
    pub batch_size: usize,
    /// A new order in every epoch, otherwise that of the samples.
    pub shuffle: bool,
    /// Leave out the last pictures of an epoch if they do not fill a batch; otherwise the last batch is smaller.
    pub drop_last: bool,
    /// What is changed at random.
    pub augmentation: Augmentation,
    /// The form of targets.
    pub targets: Targets,
    /// Seed for random numbers.
    pub seed: u64,
    /// Threads that make batches; with 0, they are made when they are asked for.
    pub workers: usize,
    /// Batches that each worker makes ahead.
    pub prefetch_factor: usize,
    /// Bytes of decoded pictures that are kept in memory.
    pub cache: u64,
    /// What happens if a picture cannot be read.
    pub unreadable: Unreadable,
}

/// The form of targets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Targets {
    /// The class of each picture: int64 `[N]`.
    #[default]
    Labels,
    /// A number for each class: `[N, K]` in the type of the model's input, also under mixup.
    Probabilities {
        /// K.
        classes: usize,
        /// The target of the picture's class, such as 1.
        on: f64,
        /// The target of the others, such as 0, or 1/K as B-cos networks are trained with binary cross-entropy.
        off: f64,
    },
}

/// What happens if a picture cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unreadable {
    /// An error that names the file.
    #[default]
    Fail,
    /// It is skipped and listed, by a loader in [`Loader::skipped`](super::Loader::skipped). With
    /// [`drop_last`](LoaderOptions::drop_last), the next readable picture of the samples stands in for it, so that batches keep
    /// their size; otherwise the batch is smaller, so that nothing counts twice.
    Skip,
}

impl LoaderOptions {
    /// Default for [`cache`](LoaderOptions::cache): 1 GiB.
    pub const CACHE: u64 = 1 << 30;

    /// For training: shuffled, and the last incomplete batch is left out. No augmentation.
    pub fn train(batch_size: usize) -> Self {
        LoaderOptions {
            batch_size,
            shuffle: true,
            drop_last: true,
            augmentation: Augmentation::NONE,
            targets: Targets::Labels,
            seed: 0,
            workers: 1,
            prefetch_factor: 2,
            cache: Self::CACHE,
            unreadable: Unreadable::Fail,
        }
    }

    /// For evaluation: every picture once, in order.
    pub fn evaluation(batch_size: usize) -> Self {
        LoaderOptions {
            shuffle: false,
            drop_last: false,
            ..LoaderOptions::train(batch_size)
        }
    }

    /// Checks ranges, for this many pictures of one size.
    pub(super) fn check(
        &self,
        pictures: usize,
        labels: Option<&[usize]>,
        size: [usize; 2],
    ) -> Result<(), Error> {
        let fail = |problem: String| Err(Error::Options(problem));
        if pictures == 0 || size.contains(&0) {
            return fail("there are no pictures, or they have no pixels".to_owned());
        }
        if labels.is_some_and(|labels| labels.len() != pictures) {
            return fail(format!(
                "there are {pictures} pictures, but not as many classes"
            ));
        }
        if self.batch_size == 0 {
            return fail("the batch size is 0, and must be at least 1".to_owned());
        }
        if self.drop_last && self.batch_size > pictures {
            return fail(format!(
                "the batch size is {}, but there are only {pictures} pictures for training; use at most {pictures}",
                self.batch_size
            ));
        }
        if self.workers > 0 && self.prefetch_factor == 0 {
            return fail("workers make at least 1 batch ahead, not 0".to_owned());
        }
        match (self.targets, labels) {
            (Targets::Labels, Some(_)) if self.augmentation.mixup_alpha.is_some() => {
                return fail("mixup requires targets that are a number for each class".to_owned());
            }
            (Targets::Probabilities { classes, .. }, Some(labels)) => {
                if let Some(label) = labels.iter().find(|label| **label >= classes) {
                    return fail(format!(
                        "there are {classes} classes, but a picture has class {label}"
                    ));
                }
            }
            _ => {}
        }
        self.augmentation.check(size)
    }
}
