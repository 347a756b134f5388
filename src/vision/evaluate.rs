//! Evaluation of models and their explanations on labelled pictures.

mod model;
mod perturbation;
mod plot;
mod pointing;
mod progress;
mod reliability;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::load::{File, Read};
use crate::vision::data::{ImageFolder, Unreadable};
use crate::vision::predict::normalizes;
use crate::{Error, Intake, Metadata, PredictOptions, Probability, Source};
use model::EvaluatedModel;
use progress::ProgressReporter;

pub use perturbation::{Curve, Perturbation, PerturbationOptions};
pub use pointing::{Pointing, PointingOptions};
pub use progress::{Progressed, Task};
pub use reliability::{Bin, Reliability};

/// Options of an evaluation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvaluateOptions {
    /// Preprocessing. For a single model, it takes precedence over metadata; for several, metadata takes precedence
    /// for input format and logit bias.
    pub predict: PredictOptions,
    /// A file with class names, one per line, in the order of the logits; class folders are matched by name.
    pub labels: Option<PathBuf>,
    /// Maximum number of pictures, spread evenly; all by default.
    pub images: Option<usize>,
    /// Measure the grid pointing game.
    pub pointing: Option<PointingOptions>,
    /// Measure pixel deletion and insertion.
    pub perturbation: Option<PerturbationOptions>,
    /// Explain so many pictures, spread evenly, and measure whether contributions add up to the logit; by default none.
    pub completeness: Option<usize>,
    /// What happens if a picture cannot be read.
    pub unreadable: Unreadable,
    /// Seed for random numbers.
    pub seed: u64,
}

/// The result of an evaluation, as written by `bcosc eval --report`. It does not depend on the number of
/// threads.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Version of bcosc.
    pub bcosc: &'static str,
    /// The data set.
    pub data: PathBuf,
    /// Its class folders.
    pub folders: Vec<String>,
    /// Number of pictures used.
    pub images: usize,
    /// Seed for random numbers.
    pub seed: u64,
    /// Options of the grid pointing game, if measured.
    pub pointing: Option<PointingOptions>,
    /// The models, in the order in which they were given.
    pub models: Vec<Figures>,
    /// Warnings.
    pub warnings: Vec<String>,
}

/// The metrics of one model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Name in tables: the file name if unique, otherwise the path.
    pub name: String,
    /// The file, or a description of a model in memory.
    pub model: String,
    /// Preprocessing.
    pub intake: Intake,
    /// Height and width of pictures.
    pub size: [usize; 2],
    /// Number of classes.
    pub classes: usize,
    /// The constant added to every class logit.
    pub logit_bias: f64,
    /// How logits became probabilities.
    pub probability: Probability,
    /// The share of images whose true class has the highest logit.
    pub top1: f64,
    /// The share of images whose true class is among the five with the highest logits; `null` with five
    /// classes or fewer.
    pub top5: Option<f64>,
    /// Calibration of the confidence.
    pub reliability: Reliability,
    /// The grid pointing game, for each size of grids.
    pub pointing: Vec<Pointing>,
    /// Deletion and insertion of pixels.
    pub perturbation: Option<Perturbation>,
    /// Completeness of contributions.
    pub completeness: Option<Completeness>,
    /// Pictures that could not be read, and are left out of all metrics.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<PathBuf>,
}

/// What contributions do not account for: with the residual `r = logit - logit bias - sum of contributions` of the predicted
/// class, its size `|r|` in logits, and its share of the logit `|r| / |logit - logit bias|`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Completeness {
    /// Number of images, without those whose logit equals the logit bias.
    pub images: usize,
    /// The largest share.
    pub max: f64,
    /// The mean share.
    pub mean: f64,
    /// The mean size.
    pub residual: f64,
}

/// Evaluates models on a folder of pictures with one folder per class. All models are checked before the first is
/// evaluated. `tell` is called from many threads.
///
/// # Errors
/// If a model cannot be read, run or (if explanations are asked for) explained, or has no classes; where
/// the folders cannot be matched with its classes; where a picture is damaged; and [`Error::Grid`] if a
/// model takes no grids.
pub fn evaluate(
    models: &[Source],
    data: &Path,
    options: &EvaluateOptions,
    tell: &(dyn Fn(Progressed<'_>) + Sync),
) -> Result<Evaluation, Error> {
    let mut dataset = ImageFolder::open(data)?;
    if let Some(limit) = options.images {
        dataset = dataset.limited(limit);
    }
    let mut warnings = dataset.notes.clone();
    let cells = cells(&dataset, options, &mut warnings)?;
    let mut evaluated = Vec::new();
    for source in models {
        let file = File::open(source.clone())?;
        let predict = match models.len() {
            1 => options.predict.clone(),
            _ => beside_metadata(&file, &options.predict)?,
        };
        evaluated.push(EvaluatedModel::open(
            file, &predict, &dataset, options, &cells,
        )?);
    }
    let mut all_figures = Vec::new();
    for (model, name) in evaluated.iter().zip(names(&evaluated)) {
        let progress = ProgressReporter { tell, model: &name };
        let figures = model.evaluate(&dataset, options, &progress)?;
        let asked = options.pointing.as_ref().map_or(0, |p| p.grids);
        for short in figures.pointing.iter().filter(|p| p.grids < asked) {
            warnings.push(format!(
                "{name}: only {} of {asked} {n}x{n} grids could be made of {} correctly and confidently classified pictures",
                short.grids,
                short.candidates,
                n = short.cells
            ));
        }
        all_figures.push(figures);
    }
    // All models see the same files.
    let skipped = all_figures.first().map_or(&[][..], |f| &f.skipped);
    for path in skipped {
        warnings.push(format!("skipped {}, which cannot be read", path.display()));
    }
    Ok(Evaluation {
        bcosc: env!("CARGO_PKG_VERSION"),
        data: data.to_owned(),
        folders: dataset.folders,
        images: dataset.items.len() - skipped.len(),
        seed: options.seed,
        pointing: options.pointing.clone(),
        models: all_figures,
        warnings,
    })
}

/// The metrics of one model on the pictures of a folder.
pub(crate) fn evaluate_folder(
    file: File,
    folder: &ImageFolder,
    options: &EvaluateOptions,
) -> Result<Figures, Error> {
    let cells = cells(folder, options, &mut Vec::new())?;
    let model = EvaluatedModel::open(file, &options.predict, folder, options, &cells)?;
    let progress = ProgressReporter {
        tell: &|_| {},
        model: "",
    };
    model.evaluate(folder, options, &progress)
}

/// Options for one of several models: its metadata takes precedence.
fn beside_metadata(file: &File, options: &PredictOptions) -> Result<PredictOptions, Error> {
    let Read { model, label, .. } = file.clone().build(&options.input_shapes)?;
    let mut options = options.clone();
    if let Some(metadata) = Metadata::read(&model, &label)? {
        options.input = None;
        options.logit_bias = None;
        if metadata.normalization().is_some() {
            options.normalization = None;
        }
    }
    if normalizes(&model.graph) {
        options.normalization = None;
    }
    Ok(options)
}

/// Grid sizes. Requested sizes must be possible; default sizes are dropped if they are not.
fn cells(
    dataset: &ImageFolder,
    options: &EvaluateOptions,
    warnings: &mut Vec<String>,
) -> Result<Vec<usize>, Error> {
    let Some(pointing) = &options.pointing else {
        return Ok(Vec::new());
    };
    let filled: BTreeSet<usize> = dataset.items.iter().map(|i| i.folder).collect();
    let filled = filled.len();
    let usual = PointingOptions::CELLS.to_vec();
    let wanted = pointing.cells.clone().unwrap_or(usual);
    let (possible, impossible): (Vec<usize>, Vec<usize>) = wanted
        .into_iter()
        .partition(|n| n.saturating_mul(*n) <= filled);
    let Some(n) = impossible.first() else {
        return Ok(possible);
    };
    let problem = format!(
        "{n}x{n} grids need {} classes, but only {filled} have pictures",
        n.saturating_mul(*n)
    );
    if pointing.cells.is_some() || possible.is_empty() {
        return Err(Error::Options(problem));
    }
    warnings.push(problem);
    Ok(possible)
}

/// File stems, or full paths if stems are not unique.
fn names(models: &[EvaluatedModel]) -> Vec<String> {
    let short = |model: &EvaluatedModel| {
        let stem = Path::new(model.label()).file_stem();
        stem.map_or_else(String::new, |s| s.to_string_lossy().into_owned())
    };
    let all: Vec<String> = models.iter().map(short).collect();
    let is_unique = |name: &String| all.iter().filter(|other| *other == name).count() == 1;
    all.iter()
        .zip(models)
        .map(|(name, model)| match is_unique(name) {
            true => name.clone(),
            false => model.label().to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{DataType, ModelBuilder, Tensor};

    use super::*;
    use crate::Preset;

    fn network(x: &str, from: ModelBuilder) -> Source {
        let weights = (0..24).map(|i| i as f32 - 12.0).collect();
        let built = from
            .param("w", Tensor::f32s(&[2, 3, 2, 2], weights))
            .op("Conv", &[x, "w"], "scores", [])
            .op("GlobalAveragePool", &["scores"], "means", [])
            .op("Flatten", &["means"], "logits", [])
            .output("logits");
        Source::from(bcosc_onnx::encode(&built.proto()).unwrap())
    }

    #[test]
    fn flags_are_for_models_that_do_not_normalise_themselves() {
        let options = PredictOptions {
            normalization: Some(Preset::Imagenet.normalization()),
            ..PredictOptions::default()
        };
        let input = || ModelBuilder::new(17).input("x", DataType::Float, "batch,3,8,8");
        let numbers =
            |scale: f32| Tensor::f32s(&[1, 3, 1, 1], [0.4, 0.5, 0.6].map(|v| v * scale).to_vec());
        let itself = input()
            .param("mean", numbers(1.0))
            .op("Sub", &["x", "mean"], "centred", [])
            .param("std", numbers(0.5))
            .op("Div", &["centred", "std"], "normalised", []);
        let found = beside_metadata(
            &File::open(network("normalised", itself)).unwrap(),
            &options,
        )
        .unwrap();
        assert_eq!(found.normalization, None);
        let found = beside_metadata(&File::open(network("x", input())).unwrap(), &options).unwrap();
        assert_eq!(found.normalization, options.normalization);
    }
}
