//! How good a model and its explanations are, on pictures whose classes are known.

mod dataset;
mod perturbation;
mod plot;
mod pointing;
mod random;
mod reliability;
mod subject;
mod watch;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::load::{File, Read};
use crate::vision::predict::normalizes;
use crate::{Error, Intake, Metadata, PredictOptions, Probability, Source};
use dataset::Dataset;
use subject::Subject;
use watch::Watch;

pub use perturbation::{Curve, Perturbation, PerturbationOptions};
pub use pointing::{Pointing, PointingOptions};
pub use reliability::{Bin, Reliability};
pub use watch::{Progressed, Task};

/// What is measured, and on which pictures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvaluateOptions {
    /// How pictures enter the models. Of one model it goes before the model's metadata; of several, metadata
    /// goes before what it says of input and logit bias.
    pub predict: PredictOptions,
    /// A file with the names of the models' classes, one a line, in order; class folders are looked for among
    /// them.
    pub labels: Option<PathBuf>,
    /// How many pictures are used at most, spread evenly; all where it is not said.
    pub images: Option<usize>,
    /// Plays the grid pointing game.
    pub pointing: Option<PointingOptions>,
    /// Deletes and inserts pixels.
    pub perturbation: Option<PerturbationOptions>,
    /// Explains every picture, and sees whether contributions add up to the logit.
    pub completeness: bool,
    /// What random numbers are drawn from.
    pub seed: u64,
}

/// How good models are. As JSON it is what `bcosc eval --report` writes; it does not depend on the number of
/// threads.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Version of bcosc.
    pub bcosc: &'static str,
    /// The data set.
    pub data: PathBuf,
    /// Its class folders.
    pub folders: Vec<String>,
    /// How many of its pictures were used.
    pub images: usize,
    /// What random numbers were drawn from.
    pub seed: u64,
    /// How the grid pointing game was played, if it was.
    pub pointing: Option<PointingOptions>,
    /// The models, in the order in which they were given.
    pub models: Vec<Figures>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// How good one model is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// What it is called in tables: the file's name where that tells it from the others.
    pub name: String,
    /// The file, or what stands for it.
    pub model: String,
    /// How pictures entered it.
    pub intake: Intake,
    /// Height and width of pictures.
    pub size: [usize; 2],
    /// How many classes it tells apart.
    pub classes: usize,
    /// What it adds to every class logit.
    pub logit_bias: f64,
    /// How logits became probabilities.
    pub probability: Probability,
    /// The share of images whose true class has the highest logit.
    pub top1: f64,
    /// The share of images whose true class is among the five with the highest logits; `null` with five
    /// classes or fewer.
    pub top5: Option<f64>,
    /// Whether it knows how often it is right.
    pub reliability: Reliability,
    /// The grid pointing game, for each size of grids.
    pub pointing: Vec<Pointing>,
    /// Deletion and insertion of pixels.
    pub perturbation: Option<Perturbation>,
    /// Whether contributions add up.
    pub completeness: Option<Completeness>,
}

/// How much of the logit of the predicted class contributions leave unexplained:
/// `|logit - logit bias - sum of contributions| / |logit - logit bias|`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Completeness {
    /// On how many images: those where the logit is not the logit bias.
    pub images: usize,
    /// The largest.
    pub max: f64,
    /// The mean.
    pub mean: f64,
}

/// Evaluates models on a folder of pictures with one folder a class. What models are asked for is tried on each
/// before the first is evaluated. `tell` is called from many threads.
///
/// # Errors
/// Where a model cannot be read, run or (if explanations are asked for) explained, or has no classes; where
/// the folders cannot be matched with its classes; where a picture is damaged; and [`Error::Grid`] where a
/// model takes no grids.
pub fn evaluate(
    models: &[Source],
    data: &Path,
    options: &EvaluateOptions,
    tell: &(dyn Fn(Progressed<'_>) + Sync),
) -> Result<Evaluation, Error> {
    let dataset = Dataset::list(data, options.images)?;
    let mut warnings = dataset.notes.clone();
    let cells = cells(&dataset, options, &mut warnings)?;
    let mut subjects = Vec::new();
    for source in models {
        let file = File::open(source.clone())?;
        let predict = match models.len() {
            1 => options.predict.clone(),
            _ => beside_metadata(&file, &options.predict)?,
        };
        subjects.push(Subject::open(file, &predict, &dataset, options, &cells)?);
    }
    let mut evaluated = Vec::new();
    for (subject, name) in subjects.iter().zip(names(&subjects)) {
        let watch = Watch { tell, model: &name };
        let figures = subject.evaluate(&dataset, options, &watch)?;
        let asked = options.pointing.as_ref().map_or(0, |p| p.grids);
        for short in figures.pointing.iter().filter(|p| p.grids < asked) {
            warnings.push(format!(
                "{name}: only {} of {asked} {n}x{n} grids could be made of {} correctly and confidently classified pictures",
                short.grids,
                short.candidates,
                n = short.cells
            ));
        }
        evaluated.push(figures);
    }
    Ok(Evaluation {
        bcosc: env!("CARGO_PKG_VERSION"),
        data: data.to_owned(),
        folders: dataset.folders,
        images: dataset.items.len(),
        seed: options.seed,
        pointing: options.pointing.clone(),
        models: evaluated,
        warnings,
    })
}

/// Options for one of several models: what it says itself, or does itself, goes before them.
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

/// Sizes of grids. Those that are asked for must be possible; of the usual ones, those that are possible.
fn cells(
    dataset: &Dataset,
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
        "{n}x{n} grids need {} classes, and there are pictures of {filled}",
        n.saturating_mul(*n)
    );
    if pointing.cells.is_some() || possible.is_empty() {
        return Err(Error::Options(problem));
    }
    warnings.push(problem);
    Ok(possible)
}

/// Short names, or long ones where short ones are not different.
fn names(subjects: &[Subject]) -> Vec<String> {
    let short = |subject: &Subject| {
        let stem = Path::new(subject.label()).file_stem();
        stem.map_or_else(String::new, |s| s.to_string_lossy().into_owned())
    };
    let all: Vec<String> = subjects.iter().map(short).collect();
    let is_unique = |name: &String| all.iter().filter(|other| *other == name).count() == 1;
    all.iter()
        .zip(subjects)
        .map(|(name, subject)| match is_unique(name) {
            true => name.clone(),
            false => subject.label().to_owned(),
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
        let found = beside_metadata(&network("normalised", itself), &options).unwrap();
        assert_eq!(found.normalization, None);
        let found = beside_metadata(&network("x", input()), &options).unwrap();
        assert_eq!(found.normalization, options.normalization);
    }
}
