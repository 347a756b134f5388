//! Work that is done for many pictures at once, and how far it is.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::Error;

/// A part of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Task {
    /// All pictures are classified, and explained where completeness is asked for.
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
    /// What is being done, in a few words.
    pub fn describe(self) -> String {
        match self {
            Task::Predict => "predicting".to_owned(),
            Task::Point { cells } => format!("grid pointing game, {cells}x{cells}"),
            Task::Perturb => "deleting and inserting pixels".to_owned(),
        }
    }
}

/// How far an evaluation is.
#[derive(Clone, Copy, Debug)]
pub struct Progressed<'a> {
    /// Name of the model.
    pub model: &'a str,
    /// What is being done.
    pub task: Task,
    /// How much of it is done.
    pub done: usize,
    /// How much there is.
    pub of: usize,
}

/// Who is told.
pub(super) struct Watch<'a> {
    pub tell: &'a (dyn Fn(Progressed<'_>) + Sync),
    pub model: &'a str,
}

impl Watch<'_> {
    /// Does the work for every item, on all threads. Results come in the order of the items, whatever the
    /// number of threads; of several errors, the first in that order.
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
            // What comes after an error is not needed any more; what comes before may fail too.
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
