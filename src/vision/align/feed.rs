//! What the steps of a phase take.

use std::collections::BTreeSet;
use std::path::Path;

use bcosc_autodiff::training::{TARGETS, TEACHER_IMAGES};
use bcosc_engine::InputShapes;
use bcosc_ir::Tensors;

use super::features::Features;
use crate::Error;
use crate::data::{Batch, Loader};
use crate::training::TrainingStep;

/// The inputs of the steps of a phase.
pub(super) struct Feed<'f> {
    source: Source<'f>,
    /// The model's input for images.
    images: &'f str,
    /// What a step takes.
    names: BTreeSet<String>,
}

/// Where they come from.
pub(super) enum Source<'f> {
    /// Features of a segment, which are kept.
    Segment(&'f Features<'f>, usize),
    /// Images, for both models.
    Images(
        Box<dyn Iterator<Item = Result<Batch, Error>> + 'f>,
        &'f Path,
    ),
}

impl<'f> Source<'f> {
    /// The images from a batch on, counted over all epochs.
    pub fn images(loader: &'f Loader, from: u64) -> Self {
        let per_epoch = loader.batches().max(1) as u64;
        let first = (from % per_epoch) as usize;
        let batches = loader.endless(from / per_epoch, first);
        Source::Images(Box::new(batches), &loader.samples().path)
    }
}

impl<'f> Feed<'f> {
    pub fn new(source: Source<'f>, step: &TrainingStep, images: &'f str) -> Self {
        let graph = &step.model.graph;
        let names = graph.inputs().into_iter();
        let names = names.map(|value| graph.value_name(value).to_owned());
        Feed {
            names: names.collect(),
            source,
            images,
        }
    }

    /// The inputs of a step, by name.
    pub fn inputs(&mut self, step: u64) -> Result<Tensors, Error> {
        let mut inputs = match &mut self.source {
            Source::Segment(features, index) => {
                let mut inputs = features.inputs(*index, step);
                inputs.insert(self.images.to_owned(), features.images(step));
                inputs
            }
            Source::Images(batches, folder) => {
                let batch = batches.next().unwrap_or_else(|| Err(no_images(folder)))?;
                let named = [
                    (self.images, Some(batch.images)),
                    (TEACHER_IMAGES, batch.teacher_images),
                    (TARGETS, batch.targets),
                ];
                let named = named.into_iter();
                let named = named.filter_map(|(name, images)| Some((name.to_owned(), images?)));
                named.collect()
            }
        };
        inputs.retain(|name, _| self.names.contains(name));
        Ok(inputs)
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
