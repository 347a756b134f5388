//! How far a model decides as its original does.

use serde::Serialize;

use super::options::AlignOptions;
use super::prepare::{Prepared, of_converted, of_original};
use crate::load::File;
use crate::vision::evaluate::evaluate_folder;
use crate::vision::predict::{Predictor, Reference, mean_cosine};
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

/// Compares a model with its original.
pub(super) fn agreement(
    prepared: &Prepared,
    reference: &Reference,
    model: &bcosc_ir::Model,
    options: &AlignOptions,
) -> Result<Agreement, Error> {
    let file = File::of(model, &prepared.label);
    let predictor = Predictor::from_file(file.clone(), &of_converted(&options.predict))?;
    let pairs = reference.beside(&predictor)?;
    let count = pairs.len().max(1) as f64;
    let (top1, top5) = match predictor.probability {
        None => (mean_cosine(&pairs), None),
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
            let evaluation = evaluation(options, of_converted(&options.predict));
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
