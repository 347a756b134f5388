//! What the steps of a phase take.

use std::path::Path;

use bcosc_autodiff::training::TEACHER_IMAGES;
use bcosc_engine::InputShapes;
use bcosc_ir::Tensors;

use super::features::Features;
use crate::Error;
use crate::data::{Batch, Loader};
use crate::training::TrainingStep;

/// Where the inputs of steps come from.
pub(super) enum Feed<'f> {
    /// Features of a segment, which are kept.
    Segment {
        features: &'f Features<'f>,
        index: usize,
        /// The input for images, if the step has one.
        images: Option<&'f str>,
    },
    /// Images, for both models.
    Images {
        batches: Box<dyn Iterator<Item = Result<Batch, Error>> + 'f>,
        images: &'f str,
        folder: &'f Path,
    },
}

impl<'f> Feed<'f> {
    /// Features of a segment for a step; the model's images have a name.
    pub fn of_segment(
        features: &'f Features<'f>,
        index: usize,
        step: &TrainingStep,
        images: &'f str,
    ) -> Self {
        let graph = &step.model.graph;
        let is_images = |&value: &_| graph.value_name(value) == images;
        Feed::Segment {
            features,
            index,
            images: graph.inputs().iter().any(is_images).then_some(images),
        }
    }

    /// The images from a batch on, counted over all epochs.
    pub fn of_images(loader: &'f Loader, from: u64, images: &'f str) -> Self {
        let per_epoch = loader.batches().max(1) as u64;
        let first = (from % per_epoch) as usize;
        Feed::Images {
            batches: Box::new(loader.endless(from / per_epoch, first)),
            images,
            folder: &loader.samples().path,
        }
    }

    /// The inputs of a step, by name.
    pub fn inputs(&mut self, step: u64) -> Result<Tensors, Error> {
        match self {
            Feed::Segment {
                features,
                index,
                images,
            } => {
                let mut inputs = features.inputs(*index, step);
                inputs.extend(images.map(|name| (name.to_owned(), features.images(step))));
                Ok(inputs)
            }
            Feed::Images {
                batches,
                images,
                folder,
            } => {
                let batch = batches.next().unwrap_or_else(|| Err(no_images(folder)))?;
                let named = [
                    (*images, Some(batch.images)),
                    (TEACHER_IMAGES, batch.teacher_images),
                ];
                let named = named.into_iter();
                let named = named.filter_map(|(name, images)| Some((name.to_owned(), images?)));
                Ok(named.collect())
            }
        }
    }
}

/// The error where no image of a folder can be read.
pub(super) fn no_images(folder: &Path) -> Error {
    Error::Images {
        path: folder.to_owned(),
        problem: "has no image that can be read".to_owned(),
    }
}

/// The shapes of inputs.
pub(super) fn shapes(inputs: &Tensors) -> InputShapes {
    let shapes = inputs.iter();
    shapes
        .map(|(name, tensor)| (name.clone(), tensor.dims()))
        .collect()
}
