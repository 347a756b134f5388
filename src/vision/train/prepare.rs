//! What a training run works on: the model, its training step, and the images.

use std::ops::ControlFlow;
use std::path::Path;

use bcosc_autodiff::training::{self, Loss};
use bcosc_ir::Model;
use serde::Serialize;

use super::events::{Tell, TrainEvent};
use super::measure::Validation;
use super::options::TrainOptions;
use crate::checked::checked;
use crate::data::{Loader, LoaderOptions, Samples, Split, Targets, Unreadable};
use crate::load::File;
use crate::probabilities::before_probabilities;
use crate::training::{Schedule, prepare, step_of};
use crate::vision::images::{free_side, spread};
use crate::vision::predict::{Predictor, Reference};
use crate::{
    Batch, Calibration, CalibrationFiles, Error, EvaluateOptions, Explainer, Intake, Labels,
    Metadata, Options, Ramp, Source, TrainingStep, convert_with,
};

/// Everything before the first step.
pub(super) struct Prepared {
    /// The model, with all its outputs, in the form whose constants training names.
    pub model: Model,
    /// The model's name in messages.
    pub label: String,
    /// How it was converted, if it was not before.
    conversion: Option<Options>,
    /// The training step.
    pub step: TrainingStep,
    /// Images for validation.
    pub val: Validation,
    /// Warnings about the data.
    pub notes: Vec<String>,
    /// How B grows.
    pub growth: Option<Ramp>,
    /// Whether the model can be explained.
    pub explains: bool,
    predictor: Predictor,
    /// How images enter the teacher.
    teacher: Option<Intake>,
    train: Samples,
    /// Names of the class folders.
    folders: Vec<String>,
    /// Height and width of images.
    pub size: [usize; 2],
}

impl Prepared {
    /// Reads, and where needed converts, the model; lists the images. The training step keeps gradients of convolutions whole for
    /// engines that compute them.
    pub fn of(
        source: Source,
        options: &TrainOptions,
        whole_gradients: bool,
        tell: Tell<'_>,
    ) -> Result<Self, Error> {
        let _ = tell(TrainEvent::Preparing("reading the model"));
        let training = &options.training;
        let wanted: Vec<String> = training.output.iter().cloned().collect();
        let file = File::open(source.clone())?;
        let (mut model, label) = checked(file, &training.input_shapes, &wanted)?;
        let conversion = match Metadata::read(&model, &label)? {
            Some(_) => None,
            None => options.conversion.clone(),
        };
        if let Some(conversion) = &conversion {
            model = converted(source, conversion, options, tell)?;
        }
        let metadata = Metadata::read(&model, &label)?;
        let growth = options.growth.map(|growth| Ramp {
            to: metadata.map_or(growth.to, |metadata| metadata.b),
            ..growth
        });
        let _ = tell(TrainEvent::Preparing("building the training step"));
        prepare(&mut model, options.training.step.exponent, &label)?;
        let mut logits = model.clone();
        let ending = before_probabilities(&mut logits);
        let predictor = Predictor::of(&logits, label.clone(), &options.predict, ending)?;
        let mut notes = Vec::new();
        let explains = match options.completeness + options.sheet {
            0 => false,
            _ => explains(&model, &label, options, &mut notes)?,
        };
        let mut training = options.training.clone();
        training.step.whole_gradients = whole_gradients;
        let step = step_of(logits, &training, &label)?;

        let teacher = options.training.teacher.clone();
        let teacher = teacher.map(|source| Predictor::open(source, &options.predict));
        let teacher = teacher.transpose()?;
        let (split, judge) = images(options, &predictor, teacher.as_ref(), &mut notes)?;
        let sides = || [Some(&predictor), teacher.as_ref()].into_iter().flatten();
        let height = sides().find_map(|side| side.intake.height);
        let width = sides().find_map(|side| side.intake.width);
        let size = match (height, width) {
            (Some(height), Some(width)) => [height, width],
            (height, width) => {
                let skip = options.unreadable == Unreadable::Skip;
                let side = free_side(&split.train.pictures, skip)?;
                [height.unwrap_or(side), width.unwrap_or(side)]
            }
        };
        notes.extend(split.notes);
        let most = options.val_images.unwrap_or(usize::MAX);
        let val = match judge {
            Some(teacher) => {
                let _ = tell(TrainEvent::Preparing("running the teacher"));
                let pictures = spread(&split.val.pictures, most);
                let reference = Reference::of(teacher, pictures, size, options.unreadable)?;
                Validation::Teacher(reference)
            }
            None => {
                let folder = split.val.into_folder(predictor.classes);
                Validation::Classes(folder.limited(most))
            }
        };
        Ok(Prepared {
            model,
            label,
            conversion,
            step,
            val,
            notes,
            folders: split.folders,
            growth,
            explains,
            predictor,
            teacher: teacher.map(|teacher| teacher.intake),
            train: split.train,
            size,
        })
    }

    /// What an evaluation measures.
    pub fn evaluation(&self, options: &TrainOptions, points: bool) -> EvaluateOptions {
        let explained = Some(options.completeness).filter(|&count| self.explains && count > 0);
        EvaluateOptions {
            predict: options.predict.clone(),
            pointing: options.pointing.clone().filter(|_| points),
            completeness: explained,
            unreadable: options.unreadable,
            seed: options.seed,
            ..EvaluateOptions::default()
        }
    }

    /// Batches of training images.
    pub fn loader(&self, options: &TrainOptions) -> Result<Loader, Error> {
        let classes = self.predictor.classes;
        let targets = match options.training.step.targets {
            training::Targets::Labels => Targets::Labels,
            _ => {
                let (on, off) = numbers(options.training.step.loss, classes);
                Targets::Probabilities { classes, on, off }
            }
        };
        let loading = LoaderOptions {
            augmentation: options.augmentation,
            targets,
            seed: options.seed,
            workers: options.workers,
            unreadable: options.unreadable,
            ..LoaderOptions::train(options.batch_size)
        };
        let (samples, intake) = (self.train.clone(), &self.predictor.intake);
        match &self.teacher {
            Some(teacher) => Loader::with_teacher(samples, intake, teacher, self.size, loading),
            None => Loader::new(samples, intake, self.size, loading),
        }
    }

    /// The name of a class, where its folder says it.
    pub fn class_name(&self, class: usize) -> String {
        let all = self.folders.len() == self.predictor.classes;
        let name = self.folders.get(class).filter(|_| all);
        name.cloned().unwrap_or_else(|| class.to_string())
    }

    /// The shapes of a batch.
    pub fn batch(&self, options: &TrainOptions) -> Batch {
        let images = options.batch_size as u64;
        let targets = match options.training.step.targets {
            _ if self.teacher.is_some() => None,
            training::Targets::Labels => Some(vec![images]),
            _ => Some(vec![images, self.predictor.classes as u64]),
        };
        let dims = |intake: &Intake| intake.batch_dims(images, self.size);
        Batch {
            input: self.predictor.intake.name.clone(),
            images: dims(&self.predictor.intake),
            targets,
            teacher: self.teacher.as_ref().map(dims),
        }
    }

    /// What the result of a run depends on, by name.
    pub fn settings(&self, options: &TrainOptions, schedule: &Schedule) -> Vec<(String, String)> {
        let training = &options.training;
        let entries = [
            ("--batch-size", options.batch_size.to_string()),
            ("--precision", format!("{:?}", options.precision)),
            ("the number of steps", schedule.steps.to_string()),
            ("--lr", schedule.rate.to_string()),
            ("--warmup", schedule.warmup.to_string()),
            ("--lr-schedule", format!("{:?}", schedule.shape)),
            ("--b-from and --b-steps", format!("{:?}", self.growth)),
            ("--bias-decay", format!("{:?}", options.bias_decay)),
            ("--seed", options.seed.to_string()),
            ("the number of images", self.train.len().to_string()),
            ("the image size", format!("{:?}", self.size)),
            ("the augmentation", format!("{:?}", options.augmentation)),
            (
                "the training step",
                format!(
                    "{:?} {:?} {:?} {:?} {:?} {:?} {} {} {:?} {} {:?} {:?}",
                    training.step.loss,
                    training.step.targets,
                    training.step.optimiser,
                    training.step.exponent,
                    training.step.clip,
                    training.step.norm_statistics,
                    training.step.norm_momentum,
                    training.step.accumulate,
                    training.step.average,
                    training.weight_decay,
                    training.norm_weight_decay,
                    training.freeze,
                ),
            ),
        ];
        let entries = entries.map(|(name, value)| (name.to_owned(), value));
        let mut entries = entries.to_vec();
        entries.extend(self.of_conversion(options));
        let inputs = [
            ("the model", Some(&self.predictor.intake)),
            ("the teacher", self.teacher.as_ref()),
        ];
        entries
            .extend(inputs.map(|(name, intake)| (format!("the input of {name}"), plain(&intake))));
        entries
    }

    /// The same for the conversion, if the run begins with one.
    fn of_conversion(&self, options: &TrainOptions) -> Vec<(String, String)> {
        let Some(conversion) = &self.conversion else {
            return vec![("a conversion".to_owned(), "none".to_owned())];
        };
        let settings = serde_json::to_value(&conversion.settings).unwrap_or_default();
        let settings = settings.as_object().into_iter().flatten();
        let settings =
            settings.map(|(name, value)| (format!("--{}", name.replace('_', "-")), plain(value)));
        let others = [
            ("a conversion", "yes".to_owned()),
            ("--recipe", conversion.recipe.name().to_owned()),
            ("the passes", plain(&conversion.passes)),
            ("--calibrate-images", options.calibration_images.to_string()),
        ];
        let others = others.map(|(name, value)| (name.to_owned(), value));
        others.into_iter().chain(settings).collect()
    }
}

/// Lists the images. Also returns the teacher if it judges the model: labels do not where the model outputs embeddings, or images
/// have no classes.
fn images<'t>(
    options: &TrainOptions,
    model: &Predictor,
    teacher: Option<&'t Predictor>,
    notes: &mut Vec<String>,
) -> Result<(Split, Option<&'t Predictor>), Error> {
    let embeds = model.probability.is_none();
    let labelled = || {
        let labels = options.labels.as_ref();
        let labels = labels.map(|path| Labels::read(path, model.classes));
        let (data, split) = (&options.data, &options.split);
        let labels = labels.transpose()?;
        Split::open(data, split, &model.label, model.classes, labels.as_ref())
    };
    let Some(teacher) = teacher else {
        return match embeds {
            false => Ok((labelled()?, None)),
            true => Err(Error::Input {
                model: model.label.clone(),
                problem: "outputs embeddings, which labels say nothing about; give a model to learn from with --teacher"
                    .to_owned(),
            }),
        };
    };
    if !embeds {
        match labelled() {
            Ok(split) => return Ok((split, None)),
            Err(error) if options.labels.is_some() => return Err(error),
            Err(error) => notes.push(format!("images are used without classes: {error}")),
        }
    }
    if options.pointing.is_some() {
        notes.push(
            "GridPG is left out: it requires class logits and images with classes".to_owned(),
        );
    }
    let [train, val] = Split::unlabelled(&options.data, &options.split)?;
    let split = Split {
        train,
        val,
        folders: Vec::new(),
        notes: Vec::new(),
    };
    Ok((split, Some(teacher)))
}

/// A setting as text: JSON, and names without quotes.
fn plain(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// The targets of a label and of other classes, as a loss has them.
fn numbers(loss: Loss, classes: usize) -> (f64, f64) {
    match loss {
        Loss::BinaryCrossEntropy { off_label } => (1.0, off_label.unwrap_or(1.0 / classes as f64)),
        Loss::CrossEntropy { label_smoothing } => {
            let share = label_smoothing / classes as f64;
            (1.0 - label_smoothing + share, share)
        }
        _ => (1.0, 0.0),
    }
}

/// Converts a model; norms are calibrated on training images.
fn converted(
    source: Source,
    conversion: &Options,
    options: &TrainOptions,
    tell: Tell<'_>,
) -> Result<Model, Error> {
    let _: ControlFlow<()> = tell(TrainEvent::Preparing("converting the model"));
    let mut conversion = conversion.clone();
    if conversion.calibration.is_none() {
        let train = options.data.join("train");
        let folder: &Path = if train.is_dir() {
            &train
        } else {
            &options.data
        };
        conversion.calibration = Some(Calibration::Files(CalibrationFiles {
            images: options.calibration_images,
            skip_unreadable: options.unreadable == Unreadable::Skip,
            ..CalibrationFiles::new(folder)
        }));
    }
    Ok(convert_with(source, &conversion, &|_| {})?.model)
}

/// Whether a model can be explained; a note says why not.
fn explains(
    model: &Model,
    label: &str,
    options: &TrainOptions,
    notes: &mut Vec<String>,
) -> Result<bool, Error> {
    match Explainer::from_file(File::of(model, label), &options.predict) {
        Ok(_) => Ok(true),
        Err(error @ Error::Explain { .. }) => {
            notes.push(format!("the model cannot be explained: {error}"));
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
