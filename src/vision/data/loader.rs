//! Batches of a data set.

use std::iter;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use super::cache::Cache;
use super::encoder::Encoder;
use super::pipeline::Pipeline;
use super::{Batch, Epoch, LoaderOptions, Samples};
use crate::{Error, Intake};

/// Makes the batches of a data set. Clones share decoded pictures.
#[derive(Clone, Debug)]
pub struct Loader {
    pub(super) pipeline: Arc<Pipeline>,
}

/// A picture that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

impl Loader {
    /// A loader of pictures of one size, height and width, for a model that takes them as `intake` says.
    ///
    /// # Errors
    /// [`Error::Options`] if options are out of range or do not fit the samples, or the model takes another size.
    pub fn new(
        samples: Samples,
        intake: &Intake,
        size: [usize; 2],
        options: LoaderOptions,
    ) -> Result<Self, Error> {
        Self::build(samples, intake, None, size, options)
    }

    /// As [`Loader::new`]; batches hold the same pictures in the input format of another model too.
    ///
    /// # Errors
    /// As [`Loader::new`], for either model.
    pub fn with_teacher(
        samples: Samples,
        intake: &Intake,
        teacher: &Intake,
        size: [usize; 2],
        options: LoaderOptions,
    ) -> Result<Self, Error> {
        Self::build(samples, intake, Some(teacher), size, options)
    }

    fn build(
        samples: Samples,
        intake: &Intake,
        teacher: Option<&Intake>,
        size: [usize; 2],
        options: LoaderOptions,
    ) -> Result<Self, Error> {
        options.check(samples.len(), samples.labels.as_deref(), size)?;
        let [height, width] = size;
        for model in [intake].into_iter().chain(teacher) {
            let differs = |fixed: Option<usize>, side| fixed.is_some_and(|fixed| fixed != side);
            if differs(model.height, height) || differs(model.width, width) {
                return Err(Error::Options(format!(
                    "input `{}` does not take pictures of {height} x {width}",
                    model.name
                )));
            }
            if model.channels != intake.channels {
                return Err(Error::Options(format!(
                    "input `{}` takes pictures of {} channels, and input `{}` of {}",
                    intake.name, intake.channels, model.name, model.channels
                )));
            }
        }
        let pipeline = Pipeline {
            frame: intake.framed(height, width),
            encoder: Encoder::new(intake)?,
            teacher: teacher.map(Encoder::new).transpose()?,
            cache: Cache::new(samples.len(), options.cache),
            unreadable: Mutex::default(),
            samples,
            options,
        };
        Ok(Loader {
            pipeline: Arc::new(pipeline),
        })
    }

    /// The samples.
    pub fn samples(&self) -> &Samples {
        &self.pipeline.samples
    }

    /// The options.
    pub fn options(&self) -> &LoaderOptions {
        &self.pipeline.options
    }

    /// Number of batches in an epoch.
    pub fn batches(&self) -> usize {
        self.pipeline.batches()
    }

    /// All batches of an epoch, made ahead by the workers.
    pub fn epoch(&self, epoch: u64) -> Epoch {
        self.resume(epoch, 0)
    }

    /// The batches of an epoch from number `first` on.
    pub fn resume(&self, epoch: u64, first: usize) -> Epoch {
        Epoch::start(Arc::clone(&self.pipeline), epoch, first)
    }

    /// The batches from number `first` of an epoch on, and those of all later epochs. It ends after an error, and behind an epoch
    /// that has none.
    pub fn endless(
        &self,
        mut epoch: u64,
        first: usize,
    ) -> impl Iterator<Item = Result<Batch, Error>> {
        let loader = self.clone();
        let mut batches = Some(self.resume(epoch, first));
        iter::from_fn(move || {
            let current = batches.as_mut()?;
            let next = current.next().or_else(|| {
                epoch += 1;
                *current = loader.resume(epoch, 0);
                current.next()
            });
            if !matches!(next, Some(Ok(_))) {
                batches = None;
            }
            next
        })
    }

    /// One batch of an epoch, made here; `None` after the last. It is the same as that of [`Loader::epoch`], which is faster
    /// for several: the order of the epoch is made for each call. Where pictures are skipped a batch may be empty.
    ///
    /// # Errors
    /// [`Error::Image`] if a picture cannot be read.
    pub fn batch(&self, epoch: u64, index: usize) -> Result<Option<Batch>, Error> {
        if index >= self.batches() {
            return Ok(None);
        }
        let order = self.pipeline.order(epoch);
        self.pipeline
            .batch(epoch, index, &order, &AtomicBool::new(false))
    }

    /// The pictures that could not be read so far, with [`Unreadable::Skip`](super::Unreadable::Skip).
    pub fn skipped(&self) -> Vec<Skipped> {
        let skipped = self.pipeline.skipped();
        let named = skipped.iter().map(|(sample, problem)| Skipped {
            path: self.pipeline.samples.pictures[*sample].clone(),
            problem: problem.clone(),
        });
        named.collect()
    }
}
