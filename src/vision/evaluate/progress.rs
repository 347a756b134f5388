//! Parallel work over pictures, with progress.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::Error;

/// A part of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Task {
    /// Classifying all pictures, with explanations if completeness is measured.
    Predict,
    /// Grids of `cells` x `cells` pictures are explained.
    Point {
        /// Pictures along a side.
        cells: usize,
    },
    /// Pixels are deleted and inserted.
    Perturb,
}

impl Task {
    /// A short description.
    pub fn describe(self) -> String {
        match self {
            Task::Predict => "predicting".to_owned(),
            Task::Point { cells } => format!("grid pointing game, {cells}x{cells}"),
            Task::Perturb => "deleting and inserting pixels".to_owned(),
        }
    }
}

/// A progress event of an evaluation.
#[derive(Clone, Copy, Debug)]
pub struct Progressed<'a> {
    /// Name of the model.
    pub model: &'a str,
    /// The current part.
    pub task: Task,
    /// Number of finished items.
    pub done: usize,
    /// Total number of items.
    pub of: usize,
}

/// Reports progress while it maps a function over items.
pub(super) struct ProgressReporter<'a> {
    pub tell: &'a (dyn Fn(Progressed<'_>) + Sync),
    pub model: &'a str,
}

impl ProgressReporter<'_> {
    /// Maps `work` over all items in parallel. Results are in the order of the items; of several errors, the first
    /// in that order is returned.
    pub fn each<T: Sync, R: Send>(
        &self,
        task: Task,
        items: &[T],
        work: impl Fn(usize, &T) -> Result<R, Error> + Sync,
    ) -> Result<Vec<R>, Error> {
        let (done, of) = (AtomicUsize::new(0), items.len());
        let failed = AtomicUsize::new(usize::MAX);
        let tell = |done| {
            (self.tell)(Progressed {
                model: self.model,
                task,
                done,
                of,
            });
        };
        tell(0);
        let results = items.par_iter().enumerate().map(|(i, item)| {
            // Items after an error are skipped; items before it may still fail.
            if i > failed.load(Ordering::Relaxed) {
                return None;
            }
            let result = work(i, item);
            if result.is_err() {
                failed.fetch_min(i, Ordering::Relaxed);
            }
            tell(done.fetch_add(1, Ordering::Relaxed) + 1);
            Some(result)
        });
        let results: Vec<Option<Result<R, Error>>> = results.collect();
        results.into_iter().flatten().collect()
    }
}
