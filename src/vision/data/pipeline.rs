//! From files to one batch.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bcosc_ir::Tensor;
use rand::seq::SliceRandom;

use super::cache::Cache;
use super::encoder::Encoder;
use super::{LoaderOptions, Samples, Targets, Unreadable, mixup};
use crate::Error;
use crate::vision::images::{self, Frame, Pixels, bad};
use crate::vision::random::rng;

/// Purposes of random numbers: the order of an epoch, and the changes of a picture.
const ORDER: u64 = 2;
const PICTURE: u64 = 3;

/// Pictures and their targets, as a model takes them.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its number in the epoch.
    pub index: usize,
    /// Numbers of its pictures in the samples.
    pub samples: Vec<usize>,
    /// The pictures in the model's input format: `[N, C, H, W]`, or `[N, H, W, C]` if the model takes that.
    pub images: Tensor,
    /// The same pictures in the input format of the teacher, if there is one.
    pub teacher_images: Option<Tensor>,
    /// The targets, see [`Targets`]; none if the samples have no classes.
    pub targets: Option<Tensor>,
}

/// Everything that batches are made from.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub samples: Samples,
    pub options: LoaderOptions,
    pub frame: Frame,
    pub encoder: Encoder,
    pub teacher: Option<Encoder>,
    pub cache: Cache,
    /// Skipped pictures, and why.
    pub unreadable: Mutex<BTreeMap<usize, String>>,
}

impl Pipeline {
    /// Batches in an epoch.
    pub fn batches(&self) -> usize {
        let (count, size) = (self.samples.len(), self.options.batch_size);
        match self.options.drop_last {
            true => count / size,
            false => count.div_ceil(size),
        }
    }

    /// The pictures in the order of an epoch.
    pub fn order(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.samples.len()).collect();
        if self.options.shuffle {
            order.shuffle(&mut rng(self.options.seed, &[ORDER, epoch]));
        }
        order
    }

    /// One batch of an epoch with this order; `None` if `stop` is set before it is ready. The batch may be empty if
    /// pictures are skipped.
    ///
    /// # Errors
    /// [`Error::Image`] for a picture that cannot be read.
    pub fn batch(
        &self,
        epoch: u64,
        index: usize,
        order: &[usize],
        stop: &AtomicBool,
    ) -> Result<Option<Batch>, Error> {
        let size = self.options.batch_size;
        let numbers = order.iter().skip(index.saturating_mul(size)).take(size);
        let frame_size = [self.frame.height, self.frame.width];
        let encoders: Vec<&Encoder> = [&self.encoder].into_iter().chain(&self.teacher).collect();
        let lengths: Vec<usize> = encoders.iter().map(|e| e.length(frame_size)).collect();
        let mut encoded: Vec<Vec<f32>> = lengths
            .iter()
            .map(|length| Vec::with_capacity(length * numbers.len()))
            .collect();
        let mut samples = Vec::with_capacity(numbers.len());
        for &number in numbers {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let Some((sample, pixels)) = self.picture(epoch, number)? else {
                continue;
            };
            samples.push(sample);
            for (encoder, encoded) in encoders.iter().zip(&mut encoded) {
                encoder.append(&pixels, encoded);
            }
        }
        let share = self.options.augmentation.mixup_alpha;
        let share = share.map(|alpha| mixup::share(alpha, self.options.seed, epoch, index as u64));
        if let Some(share) = share {
            for (length, encoded) in lengths.iter().zip(&mut encoded) {
                mixup::mix(encoded, *length, share);
            }
        }
        let targets = self.targets(&samples, share)?;
        let tensors = encoders.iter().zip(encoded);
        let mut tensors = tensors.map(|(encoder, encoded)| encoder.tensor(frame_size, encoded));
        let Some(images) = tensors.next().transpose()? else {
            return Ok(None);
        };
        Ok(Some(Batch {
            index,
            samples,
            images,
            teacher_images: tensors.next().transpose()?,
            targets,
        }))
    }

    fn targets(&self, samples: &[usize], share: Option<f64>) -> Result<Option<Tensor>, Error> {
        let Some(labels) = &self.samples.labels else {
            return Ok(None);
        };
        let labels = samples.iter().map(|sample| labels[*sample]);
        let (classes, on, off) = match self.options.targets {
            Targets::Labels => {
                let labels: Vec<i64> = labels.map(|label| label as i64).collect();
                return Ok(Some(Tensor::i64_vec(&labels)));
            }
            Targets::Probabilities { classes, on, off } => (classes, on as f32, off as f32),
        };
        let row = |label| (0..classes).map(move |class| if class == label { on } else { off });
        let mut rows: Vec<f32> = labels.flat_map(row).collect();
        if let Some(share) = share {
            mixup::mix(&mut rows, classes, share);
        }
        self.encoder.targets(classes, rows).map(Some)
    }

    /// The picture that stands at `number`, and its own number; `None` if it is skipped.
    fn picture(&self, epoch: u64, number: usize) -> Result<Option<(usize, Pixels)>, Error> {
        let count = self.samples.len();
        let places = match (self.options.unreadable, self.options.drop_last) {
            (Unreadable::Fail, _) => {
                let pixels = self.augmented(epoch, number, number)?;
                return Ok(Some((number, pixels)));
            }
            (Unreadable::Skip, false) => 1,
            (Unreadable::Skip, true) => count,
        };
        for sample in (0..places).map(|ahead| (number + ahead) % count) {
            if self.skipped().contains_key(&sample) {
                continue;
            }
            match self.augmented(epoch, number, sample) {
                Ok(pixels) => return Ok(Some((sample, pixels))),
                Err(Error::Image { problem, .. }) => {
                    self.skipped().insert(sample, problem);
                }
                Err(other) => return Err(other),
            }
        }
        match self.options.drop_last {
            false => Ok(None),
            true => Err(Error::Images {
                path: self.samples.path.clone(),
                problem: format!("none of the {count} pictures can be read"),
            }),
        }
    }

    /// Pictures that could not be read so far.
    pub fn skipped(&self) -> MutexGuard<'_, BTreeMap<usize, String>> {
        self.unreadable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A picture, changed with the random numbers of place `number`.
    fn augmented(&self, epoch: u64, number: usize, sample: usize) -> Result<Pixels, Error> {
        let path = &self.samples.pictures[sample];
        let augmentation = &self.options.augmentation;
        let prepared: Arc<Pixels> = self.cache.get(sample, || {
            let decoded = images::decode(path, self.frame.channels)?;
            augmentation
                .prepare(decoded, self.frame)
                .map_err(|problem| bad(path, problem))
        })?;
        let rng = &mut rng(self.options.seed, &[PICTURE, epoch, number as u64]);
        augmentation
            .apply(&prepared, self.frame, rng)
            .map_err(|problem| bad(path, problem))
    }
}
