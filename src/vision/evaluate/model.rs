//! The evaluation of one model.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::perturbation::{Perturbation, curves};
use super::pointing::GridExplainer;
use super::progress::{ProgressReporter, Task};
use super::reliability::{Prediction, Reliability, top};
use super::{Completeness, EvaluateOptions, Figures};
use crate::load::File;
use crate::vision::data::{ImageFolder, Item, Unreadable};
use crate::vision::images::{self, Frame, free_side};
use crate::vision::predict::run_error;
use crate::{
    Error, Explainer, Explanation, Labels, PredictOptions, Predictor, Probability, RunError,
};

/// A model prepared for evaluation.
pub(super) struct EvaluatedModel {
    predictor: Predictor,
    /// Where grids are explained, for each size.
    grid_explainers: Vec<GridExplainer>,
    /// Where pictures are explained.
    explainer: Option<Explainer>,
    probability: Probability,
    /// What is taken of every picture.
    frame: Frame,
    /// The class of each folder of the data set.
    classes: Vec<usize>,
}

/// What is seen of each picture; those that are skipped are left out.
#[derive(Default)]
struct Predicted {
    items: Vec<Item>,
    predictions: Vec<Prediction>,
    completeness: Option<Completeness>,
    skipped: Vec<PathBuf>,
}

impl EvaluatedModel {
    /// Prepares a model for all requested metrics, and checks it against the data set.
    pub fn open(
        file: File,
        predict: &PredictOptions,
        dataset: &ImageFolder,
        options: &EvaluateOptions,
        cells: &[usize],
    ) -> Result<Self, Error> {
        let explains = options.completeness.is_some() || options.perturbation.is_some();
        let explainer = match explains {
            true => Some(Explainer::from_file(file.clone(), predict)?),
            false => None,
        };
        let predictor = match &explainer {
            Some(explainer) => explainer.predictor.clone(),
            None => Predictor::from_file(file.clone(), predict)?,
        };
        let label = &predictor.label;
        let Some(probability) = predictor.probability else {
            return Err(Error::Input {
                model: label.clone(),
                problem: "outputs embeddings, but evaluation requires class logits".to_owned(),
            });
        };
        if predictor.classes < 2 {
            return Err(Error::Input {
                model: label.clone(),
                problem:
                    "outputs one number per picture, but evaluation requires a logit per class"
                        .to_owned(),
            });
        }
        let labels = options.labels.as_ref();
        let labels = labels.map(|path| Labels::read(path, predictor.classes));
        let labels = labels.transpose()?;
        let classes = dataset.classes(label, predictor.classes, labels.as_ref())?;
        let intake = &predictor.intake;
        let (height, width) = match (intake.height, intake.width) {
            (Some(height), Some(width)) => (height, width),
            (height, width) => {
                let paths: Vec<PathBuf> = dataset.items.iter().map(|i| i.path.clone()).collect();
                let side = free_side(&paths, options.unreadable == Unreadable::Skip)?;
                (height.unwrap_or(side), width.unwrap_or(side))
            }
        };
        let frame = intake.framed(height, width);
        let grid_explainers = cells
            .iter()
            .map(|&cells| GridExplainer::set_up(&file, predict, &predictor, frame, cells))
            .collect::<Result<_, _>>()?;
        Ok(EvaluatedModel {
            grid_explainers,
            frame,
            predictor,
            explainer,
            probability,
            classes,
        })
    }

    /// The name of the model in messages.
    pub fn label(&self) -> &str {
        &self.predictor.label
    }

    /// Computes all requested metrics.
    pub fn evaluate(
        &self,
        dataset: &ImageFolder,
        options: &EvaluateOptions,
        progress: &ProgressReporter<'_>,
    ) -> Result<Figures, Error> {
        let Predicted {
            items,
            predictions,
            completeness,
            skipped,
        } = self.predict(&dataset.items, options, progress)?;
        let mut pointing = Vec::new();
        if let Some(game) = &options.pointing {
            for explainer in &self.grid_explainers {
                let rules = (game.smooth, options.seed);
                pointing.push(explainer.play(&items, &predictions, game.grids, rules, progress)?);
            }
        }
        let perturbation = match (&options.perturbation, &self.explainer) {
            (Some(chosen), Some(explainer)) => {
                let indices: Vec<usize> = (0..items.len()).collect();
                let indices = images::spread(&indices, chosen.images);
                let pictures = (&items[..], &predictions[..], &indices[..]);
                Some(self.perturb(explainer, pictures, options, progress)?)
            }
            _ => None,
        };
        let Predictor {
            intake,
            classes,
            logit_bias,
            label,
            ..
        } = &self.predictor;
        Ok(Figures {
            name: progress.model.to_owned(),
            model: label.clone(),
            intake: intake.clone(),
            size: [self.frame.height, self.frame.width],
            classes: *classes,
            logit_bias: *logit_bias,
            probability: self.probability,
            top1: top(1, &predictions),
            top5: (*classes > 5).then(|| top(5, &predictions)),
            reliability: Reliability::of(&predictions),
            pointing,
            perturbation,
            completeness,
            skipped,
        })
    }

    /// Classifies every picture that can be read, and explains some of them.
    fn predict(
        &self,
        items: &[Item],
        options: &EvaluateOptions,
        progress: &ProgressReporter<'_>,
    ) -> Result<Predicted, Error> {
        let Frame { height, width, .. } = self.frame;
        let predictor = self.predictor.at(height, width)?;
        let indices: Vec<usize> = (0..items.len()).collect();
        let explained: BTreeSet<usize> = match options.completeness {
            Some(limit) => images::spread(&indices, limit).into_iter().collect(),
            None => BTreeSet::new(),
        };
        let explainer = self.explainer.as_ref().filter(|_| !explained.is_empty());
        let explainer = explainer.map(|e| e.at(height, width)).transpose()?;
        let seen = progress.each(Task::Predict, items, |index, item| {
            let picture = match images::read(&item.path, self.frame) {
                Err(Error::Image { .. }) if options.unreadable == Unreadable::Skip => {
                    return Ok(None);
                }
                picture => picture?,
            };
            let logits = predictor.logits(&picture)?;
            let truth = self.classes[item.folder];
            let finite = logits.iter().all(|z| z.is_finite());
            let prediction = Prediction::of(&logits, truth, self.probability);
            let prediction = prediction.filter(|_| finite).ok_or_else(|| {
                let picture = item.path.display();
                let problem = format!("logits for {picture} are not finite");
                run_error(self.label(), RunError::Values(problem))
            })?;
            let explainer = explainer.as_ref().filter(|_| explained.contains(&index));
            let explanation = explainer.map(|e| e.explain(&picture, Some(prediction.class)));
            let residual = explanation.transpose()?.and_then(|e| Residual::of(&e));
            Ok(Some((prediction, residual)))
        })?;
        let mut predicted = Predicted::default();
        let mut residuals = Vec::new();
        for (item, seen) in items.iter().zip(seen) {
            let Some((prediction, residual)) = seen else {
                predicted.skipped.push(item.path.clone());
                continue;
            };
            predicted.items.push(item.clone());
            predicted.predictions.push(prediction);
            residuals.extend(residual);
        }
        if predicted.items.is_empty() {
            return Err(Error::Images {
                path: items.first().map_or_else(PathBuf::new, |i| i.path.clone()),
                problem: format!("none of the {} pictures can be read", items.len()),
            });
        }
        let explained = options.completeness.is_some();
        predicted.completeness = explained.then(|| completeness(&residuals));
        Ok(predicted)
    }

    fn perturb(
        &self,
        explainer: &Explainer,
        (items, predictions, indices): (&[Item], &[Prediction], &[usize]),
        options: &EvaluateOptions,
        progress: &ProgressReporter<'_>,
    ) -> Result<Perturbation, Error> {
        let Frame { height, width, .. } = self.frame;
        let predictor = self.predictor.at(height, width)?;
        let explainer = explainer.at(height, width)?;
        let Predictor {
            intake, original, ..
        } = &self.predictor;
        let noted = original.as_ref().or(intake.normalization.as_ref());
        let colour = noted.or(options.predict.normalization.as_ref());
        let all = progress.each(Task::Perturb, indices, |_, &index| {
            let picture = images::read(&items[index].path, self.frame)?;
            let class = predictions[index].class;
            let explanation = explainer.explain(&picture, Some(class))?;
            let probability = |image: &_| {
                let logits = predictor.logits(image)?;
                Ok(self.probability.of_logits(&logits)[class])
            };
            let seeds = [options.seed, index as u64];
            curves(&picture, &explanation, colour, seeds, probability)
        })?;
        Ok(Perturbation::mean(&all))
    }
}

/// What contributions do not account for in one picture.
struct Residual {
    size: f64,
    share: f64,
}

impl Residual {
    /// `None` if the logit equals the logit bias.
    fn of(explanation: &Explanation) -> Option<Self> {
        let logit = explanation.logit - explanation.logit_bias;
        (logit != 0.0).then(|| Residual {
            size: explanation.residual.abs(),
            share: (explanation.residual / logit).abs(),
        })
    }
}

fn completeness(residuals: &[Residual]) -> Completeness {
    let images = residuals.len();
    let mean =
        |of: fn(&Residual) -> f64| residuals.iter().map(of).sum::<f64>() / images.max(1) as f64;
    Completeness {
        images,
        max: residuals.iter().map(|r| r.share).fold(0.0, f64::max),
        mean: mean(|r| r.share),
        residual: mean(|r| r.size),
    }
}
