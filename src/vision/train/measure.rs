//! What an evaluation during a run measures.

use std::path::PathBuf;

use bcosc_ir::Model;
use serde::{Deserialize, Serialize};

use super::options::TrainOptions;
use super::prepare::Prepared;
use crate::data::{ImageFolder, Item};
use crate::load::File;
use crate::vision::evaluate::evaluate_folder;
use crate::vision::images;
use crate::vision::predict::{Predictor, Reference, mean_cosine};
use crate::{Error, Figures};

/// What validation images say about a model.
pub(super) enum Validation {
    /// Their classes; folder i is class i.
    Classes(ImageFolder),
    /// The outputs of the teacher, whatever the images show.
    Teacher(Reference),
}

impl Validation {
    /// Number of images.
    pub fn len(&self) -> usize {
        match self {
            Validation::Classes(folder) => folder.items.len(),
            Validation::Teacher(reference) => reference.len(),
        }
    }

    /// Some of the images, each with the class to explain.
    pub fn items(&self, count: usize) -> Vec<Item> {
        match self {
            Validation::Classes(folder) => images::spread(&folder.items, count),
            Validation::Teacher(reference) => reference.items(count),
        }
    }
}

/// The metrics of an evaluation. Those that were not measured are `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measured {
    /// The share of images whose class has the highest logit.
    #[serde(rename = "val_top1", skip_serializing_if = "Option::is_none")]
    pub top1: Option<f64>,
    /// The share of images whose class is among the five with the highest logits, of more than five classes.
    #[serde(rename = "val_top5", skip_serializing_if = "Option::is_none")]
    pub top5: Option<f64>,
    /// The mean negative logarithm of the probability of the class.
    #[serde(rename = "val_nll", skip_serializing_if = "Option::is_none")]
    pub nll: Option<f64>,
    /// The mean cosine between the outputs of the model and those of the teacher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cosine: Option<f64>,
    /// The mean size of what contributions do not account for, in logits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub residual: Option<f64>,
    /// The images that were explained for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub residual_images: Option<usize>,
    /// The grid pointing game.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gridpg: Option<f64>,
}

impl Measured {
    /// What says which model is best: the accuracy, or the cosine.
    pub fn score(&self) -> Option<f64> {
        self.top1.or(self.cosine)
    }

    /// Evaluates a model. Also returns the images that could not be read.
    pub(super) fn of(
        model: &Model,
        prepared: &Prepared,
        options: &TrainOptions,
        points: bool,
    ) -> Result<(Self, Vec<PathBuf>), Error> {
        let file = File::of(model, &prepared.label);
        match &prepared.val {
            Validation::Classes(folder) => {
                let figures = evaluate_folder(file, folder, &prepared.evaluation(options, points))?;
                Ok((Self::from(&figures), figures.skipped))
            }
            Validation::Teacher(reference) => {
                let predictor = Predictor::from_file(file, &options.predict)?;
                let measured = Measured {
                    cosine: Some(mean_cosine(&reference.beside(&predictor)?)),
                    ..Measured::default()
                };
                Ok((measured, reference.skipped().cloned().collect()))
            }
        }
    }
}

impl From<&Figures> for Measured {
    fn from(figures: &Figures) -> Self {
        Measured {
            top1: Some(figures.top1),
            top5: figures.top5,
            nll: Some(figures.reliability.nll),
            cosine: None,
            residual: figures.completeness.map(|c| c.residual),
            residual_images: figures.completeness.map(|c| c.images),
            gridpg: figures.pointing.first().and_then(|pointing| pointing.score),
        }
    }
}
