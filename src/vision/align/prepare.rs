//! What an alignment works on: the model, its original, and the images.

use bcosc_autodiff::training::{Exponent, Segment};
use bcosc_ir::Model;
use bcosc_passes::Biases;
use bcosc_passes::bcos::norms::remeasure::REMEASURE_NORMS;

use super::choose::chosen;
use super::events::{AlignEvent, Tell};
use super::options::{AlignOptions, Method};
use super::pictures::Pictures;
use crate::checked::checked;
use crate::data::{Loader, LoaderOptions, Unreadable};
use crate::load::File;
use crate::probabilities::before_probabilities;
use crate::training::{Frozen, prepare, segments_of};
use crate::vision::images::free_side;
use crate::vision::predict::Predictor;
use crate::{
    Calibration, CalibrationFiles, Error, InputShape, Intake, Metadata, PredictOptions, Source,
    convert_with, places,
};

/// Everything before the first step.
pub(super) struct Prepared {
    /// The options, with a method for this network.
    pub options: AlignOptions,
    /// The converted model, in the form whose constants training names.
    pub model: Model,
    /// The model's name in messages.
    pub label: String,
    /// The original, with logits as its output.
    pub original: Model,
    /// How the original is run.
    pub teacher: Predictor,
    /// The segments, in the order of the model, with the parameters that are not frozen.
    pub segments: Vec<Segment>,
    pub frozen: Frozen,
    /// B of the model.
    pub b: f64,
    pub pictures: Pictures,
    /// Height and width of images.
    pub size: [usize; 2],
    /// How images enter the model.
    pub intake: Intake,
    /// Whether the norms have the statistics of the original, and B grows from 1: training starts at what the original computes then,
    /// if biases are not removed.
    pub starts_exact: bool,
}

impl Prepared {
    /// Reads, and where needed converts, the model; lists the images.
    pub fn of(source: Source, options: &AlignOptions, tell: Tell<'_>) -> Result<Self, Error> {
        let frozen = Frozen::new(&options.freeze)?;
        let _ = tell(AlignEvent::Preparing("reading the model"));
        let read = |source: Source, shapes: &[InputShape]| {
            checked(File::open(source)?, shapes, &options.conversion.outputs)
        };
        let shapes = &options.predict.input_shapes[..];
        let of_given = if options.teacher.is_none() {
            shapes
        } else {
            &[]
        };
        let (given, label) = read(source.clone(), of_given)?;
        let converted = Metadata::read(&given, &label)?.is_some();
        let (mut original, original_label) = match (&options.teacher, converted) {
            (Some(teacher), _) => read(teacher.clone(), shapes)?,
            (None, false) => (given.clone(), label.clone()),
            (None, true) => {
                return Err(Error::Input {
                    model: label,
                    problem:
                        "is a converted model; give the model it was converted from with --teacher"
                            .to_owned(),
                });
            }
        };
        let ending = before_probabilities(&mut original);
        let (options, why) = chosen(options.clone(), &original.graph, converted)?;
        let options = &options;
        if let Some(why) = why {
            let _ = tell(AlignEvent::Grows(why));
        }
        check_decay(options, converted)?;
        let predict = of_original(&options.predict);
        let teacher = Predictor::of(&original, original_label, &predict, ending)?;
        let pictures = Pictures::list(options, &teacher)?;
        let mut model = match converted {
            true => {
                let mut given = given;
                places::restore(&mut given, &label)?;
                given
            }
            false => convert(source, options, &pictures, tell)?,
        };
        let _ = tell(AlignEvent::Preparing("cutting the model into segments"));
        prepare(&mut model, Exponent::Fixed, &label)?;
        let metadata = Metadata::read(&model, &label)?;
        let has_biases = metadata
            .as_ref()
            .is_none_or(|m| m.biases_kept || m.biases_carried);
        if options.bias_decay.is_some() && !has_biases {
            return Err(Error::Input {
                model: label,
                problem: "has no biases that could decay".to_owned(),
            });
        }
        let b = metadata.map_or(1.0, |metadata| metadata.b);
        let mut logits = model.clone();
        let ending = before_probabilities(&mut logits);
        let student = Predictor::of(
            &logits,
            label.clone(),
            &of_converted(&options.predict),
            ending,
        )?;
        if student.classes != teacher.classes {
            return Err(Error::Input {
                model: label,
                problem: format!(
                    "has {} outputs per image, but its original has {}",
                    student.classes, teacher.classes
                ),
            });
        }
        let mut segments = segments_of(&logits, &original, options.segments, &label)?;
        freeze(&mut segments, &frozen, &label)?;
        let sides = [&student.intake, &teacher.intake];
        let fixed = |side: fn(&Intake) -> Option<usize>| sides.into_iter().find_map(side);
        let size = match (fixed(|i| i.height), fixed(|i| i.width)) {
            (Some(height), Some(width)) => [height, width],
            (height, width) => {
                let skip = options.unreadable == Unreadable::Skip;
                let side = free_side(&pictures.train.pictures, skip)?;
                [height.unwrap_or(side), width.unwrap_or(side)]
            }
        };
        Ok(Prepared {
            starts_exact: !converted && options.from_one(),
            options: options.clone(),
            model,
            label,
            original,
            teacher,
            segments,
            frozen,
            b,
            pictures,
            size,
            intake: student.intake,
        })
    }

    /// Images per step, but no more than there are. Steps of the whole model on large images take fewer by default, for their memory.
    pub fn batch_size(&self) -> usize {
        let [height, width] = self.size;
        let is_whole = self.options.method != Method::Blocks || self.options.then_train > 0;
        let usual = match is_whole && height * width > 64 * 64 {
            true => 16,
            false => 128,
        };
        let asked = self.options.batch_size.unwrap_or(usual);
        asked.min(self.pictures.train.len())
    }

    /// Batches of training images, for both models.
    pub fn loader(&self) -> Result<Loader, Error> {
        let options = &self.options;
        let loading = LoaderOptions {
            augmentation: options.augmentation,
            seed: options.seed,
            workers: options.workers,
            unreadable: options.unreadable,
            ..LoaderOptions::train(self.batch_size())
        };
        let samples = self.pictures.train.clone();
        Loader::with_teacher(
            samples,
            &self.intake,
            &self.teacher.intake,
            self.size,
            loading,
        )
    }
}

/// An error if biases are to decay that are removed, or where no phase lets them.
fn check_decay(options: &AlignOptions, is_converted: bool) -> Result<(), Error> {
    if options.bias_decay.is_none() {
        return Ok(());
    }
    let fail = |problem: &str| Err(Error::Options(problem.to_owned()));
    if !is_converted && options.conversion.settings.biases() == Biases::Remove {
        return fail("biases that decay must be kept or carried in the conversion");
    }
    if options.method == Method::Blocks || options.growing() >= options.joint_steps() {
        return fail("biases decay in joint steps at the final B, and there are none");
    }
    if options.then_train > 0 {
        return fail("biases that have decayed would be trained again by end-to-end steps");
    }
    Ok(())
}

/// Takes frozen parameters out of segments.
fn freeze(segments: &mut [Segment], frozen: &Frozen, label: &str) -> Result<(), Error> {
    let names = segments.iter().flat_map(|segment| &segment.parameters);
    frozen.check(names.map(String::as_str), label)?;
    for segment in &mut *segments {
        segment.parameters.retain(|name| !frozen.contains(name));
    }
    match segments.iter().all(|segment| segment.parameters.is_empty()) {
        true => Err(Error::Options("all parameters are frozen".to_owned())),
        false => Ok(()),
    }
}

/// How images enter the original: options about the converted model's input are not about it.
pub(super) fn of_original(options: &PredictOptions) -> PredictOptions {
    PredictOptions {
        input: None,
        logit_bias: None,
        ..options.clone()
    }
}

/// How images enter the converted model, whose shapes are those of the original already.
pub(super) fn of_converted(options: &PredictOptions) -> PredictOptions {
    PredictOptions {
        input_shapes: Vec::new(),
        ..options.clone()
    }
}

/// Converts a model; norms are calibrated on training images.
fn convert(
    source: Source,
    options: &AlignOptions,
    pictures: &Pictures,
    tell: Tell<'_>,
) -> Result<Model, Error> {
    let _ = tell(AlignEvent::Preparing("converting the model"));
    let mut conversion = options.conversion.clone();
    let name = REMEASURE_NORMS.name.to_owned();
    let passes = &mut conversion.passes;
    let chosen = passes.only.as_ref();
    if options.from_one() && chosen.is_none_or(|only| only.contains(&name)) {
        passes.skip.push(name);
    }
    if conversion.calibration.is_none() {
        conversion.calibration = Some(Calibration::Files(CalibrationFiles {
            images: options.calibration_images,
            among: pictures.train.pictures.clone(),
            skip_unreadable: options.unreadable == Unreadable::Skip,
            ..CalibrationFiles::new(&pictures.train.path)
        }));
    }
    Ok(convert_with(source, &conversion, &|_| {})?.model)
}
