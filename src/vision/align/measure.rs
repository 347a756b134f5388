//! How far a model decides as its original does.

use std::path::PathBuf;

use rayon::prelude::*;
use serde::Serialize;

use super::options::AlignOptions;
use super::pictures::Pictures;
use super::prepare::{Prepared, of_original};
use crate::data::{Item, Unreadable};
use crate::load::File;
use crate::vision::evaluate::evaluate_folder;
use crate::vision::images;
use crate::vision::predict::Predictor;
use crate::{Error, EvaluateOptions, Figures, PredictOptions};

/// A comparison with the original on images that were not trained on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// Number of images.
    pub images: usize,
    /// Share of images whose class is the same; of embeddings, their mean cosine.
    pub top1: f64,
    /// Share of images whose class in the original is among the five highest; `null` with five classes or fewer, and for
    /// embeddings.
    pub top5: Option<f64>,
    /// The metrics on the same images, where they have labels.
    pub figures: Option<Figures>,
}

/// What the original outputs for the images that are held out.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    /// None for an image that cannot be read.
    outputs: Vec<Option<Vec<f32>>>,
}

impl Reference {
    /// Runs the original.
    pub fn of(prepared: &Prepared, unreadable: Unreadable) -> Result<Self, Error> {
        let outputs = outputs(prepared, &prepared.teacher, unreadable)?;
        Ok(Reference { outputs })
    }

    /// The images that cannot be read.
    pub fn skipped<'p>(&self, pictures: &'p Pictures) -> impl Iterator<Item = &'p PathBuf> {
        let pairs = pictures.held_out.iter().zip(&self.outputs);
        let unread = pairs.filter(|(_, outputs)| outputs.is_none());
        unread.map(|(path, _)| path)
    }

    /// Some of the images, each with the class that the original sees in it.
    pub fn items(&self, original: &Predictor, pictures: &Pictures, count: usize) -> Vec<Item> {
        let pairs = pictures.held_out.iter().zip(&self.outputs);
        let items = pairs.filter_map(|(path, outputs)| {
            Some(Item {
                path: path.clone(),
                folder: *original.ranked(outputs.as_ref()?).first()?,
            })
        });
        images::spread(&items.collect::<Vec<_>>(), count)
    }
}

/// Compares a model with its original.
pub(super) fn agreement(
    prepared: &Prepared,
    reference: &Reference,
    model: &bcosc_ir::Model,
    options: &AlignOptions,
) -> Result<Agreement, Error> {
    let file = File::of(model, &prepared.label);
    let predictor = Predictor::from_file(file.clone(), &options.predict)?;
    let found = outputs(prepared, &predictor, options.unreadable)?;
    let pairs = reference.outputs.iter().zip(&found);
    let pairs: Vec<(&Vec<f32>, &Vec<f32>)> = pairs
        .filter_map(|(original, found)| original.as_ref().zip(found.as_ref()))
        .collect();
    let count = pairs.len().max(1) as f64;
    let (top1, top5) = match predictor.probability {
        None => {
            let cosines = pairs.iter().map(|(a, b)| cosine(a, b));
            (cosines.sum::<f64>() / count, None)
        }
        Some(_) => {
            let ranks: Vec<usize> = pairs
                .iter()
                .map(|(original, found)| {
                    let class = predictor.ranked(original).first().copied();
                    let ranked = predictor.ranked(found);
                    let place = ranked.iter().position(|other| Some(*other) == class);
                    place.unwrap_or(usize::MAX)
                })
                .collect();
            let share = |most: usize| {
                let hits = ranks.iter().filter(|rank| **rank < most);
                hits.count() as f64 / count
            };
            (share(1), (predictor.classes > 5).then(|| share(5)))
        }
    };
    let figures = match (&prepared.pictures.labelled, predictor.probability) {
        (Some(folder), Some(_)) => {
            let evaluation = evaluation(options, options.predict.clone());
            Some(evaluate_folder(file, folder, &evaluation)?)
        }
        _ => None,
    };
    Ok(Agreement {
        images: pairs.len(),
        top1,
        top5,
        figures,
    })
}

/// The metrics of the original, where images have labels; without the pointing game if it cannot be explained.
pub(super) fn original(
    prepared: &Prepared,
    options: &AlignOptions,
) -> Result<Option<Figures>, Error> {
    let Some(folder) = &prepared.pictures.labelled else {
        return Ok(None);
    };
    if prepared.teacher.probability.is_none() {
        return Ok(None);
    }
    let file = || File::of(&prepared.original, &prepared.teacher.label);
    let predict = of_original(&options.predict);
    let evaluation = evaluation(options, predict);
    match evaluate_folder(file(), folder, &evaluation) {
        Err(Error::Explain { .. }) => {
            let evaluation = EvaluateOptions {
                pointing: None,
                ..evaluation
            };
            evaluate_folder(file(), folder, &evaluation).map(Some)
        }
        found => found.map(Some),
    }
}

fn evaluation(options: &AlignOptions, predict: PredictOptions) -> EvaluateOptions {
    EvaluateOptions {
        predict,
        pointing: options.pointing.clone(),
        unreadable: options.unreadable,
        seed: options.seed,
        ..EvaluateOptions::default()
    }
}

/// The outputs for each image that is held out.
fn outputs(
    prepared: &Prepared,
    predictor: &Predictor,
    unreadable: Unreadable,
) -> Result<Vec<Option<Vec<f32>>>, Error> {
    let [height, width] = prepared.size;
    let sized = predictor.at(height, width)?;
    let frame = predictor.intake.framed(height, width);
    let found = prepared.pictures.held_out.par_iter().map(|path| {
        let image = match images::read(path, frame) {
            Err(Error::Image { .. }) if unreadable == Unreadable::Skip => return Ok(None),
            read => read?,
        };
        sized.logits(&image).map(Some)
    });
    found.collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    match lengths > 0.0 {
        true => dot(a, b) / lengths,
        false => 0.0,
    }
}
