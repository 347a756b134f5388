//! A conversion from bytes to a model that is proved.

use std::path::Path;

use bcosc_engine::Tract;
use bcosc_ir::Model;
use bcosc_onnx::{WriteOptions, Written};
use bcosc_passes::analysis::channel_axis::channel_axis;
use bcosc_passes::analysis::image::image_input;
use bcosc_passes::analysis::linearity::{Linearity, Verdict};
use bcosc_passes::bcos::biases::REMOVE_BIASES;
use bcosc_passes::bcos::layers::BCOS;
use bcosc_passes::pipeline::PipelineError;
use bcosc_passes::{Context, InputContract, Settings, pipeline};
use bytes::Bytes;

use crate::explanation::{explain_model, write_model};
use crate::load::{Read, read};
use crate::metadata::LOGIT_BIAS;
use crate::plan::Passes;
use crate::probabilities::before_probabilities;
use crate::progress::{Event, Stage};
use crate::report::Size;
use crate::{Error, Metadata, Options, Recipe, Report, Source, Verify};
use crate::{calibration, plan, prepare, prove, soundness, support};

/// A converted model and the record of how it came to be.
#[derive(Clone, Debug)]
pub struct Converted {
    /// The model. Weights that no pass rewrote still lie in the original's memory map.
    pub model: Model,
    /// What was done and how it compares.
    pub report: Report,
}

impl Converted {
    /// Writes the model, and notes in the report where and how large it is.
    ///
    /// The file gets its name when it is whole; see [`bcosc_onnx::write`].
    ///
    /// # Errors
    /// [`Error::Write`] if the output cannot be written.
    pub fn write(
        &mut self,
        path: impl AsRef<Path>,
        options: &WriteOptions,
    ) -> Result<Written, Error> {
        let path = path.as_ref();
        let written = bcosc_onnx::write(&self.model.to_proto(), path, options)?;
        self.report.after.bytes = Some(written.bytes);
        self.report.output = Some(path.to_owned());
        Ok(written)
    }

    /// The explanation graph of the model; see [`crate::explanation_graph`].
    ///
    /// # Errors
    /// [`Error::Explain`] where an output is not dynamic linear, or an operator cannot be gone back through.
    pub fn explanation_graph(&self) -> Result<Model, Error> {
        const LABEL: &str = "the converted model";
        // As it would be read again, so that the file is explained by the same bytes.
        let read = Model::from_proto(self.model.to_proto());
        let mut read = read.map_err(|source| Error::Import {
            model: LABEL.to_owned(),
            source: Box::new(source),
        })?;
        soundness::check_weights(&read, LABEL)?;
        before_probabilities(&mut read);
        explain_model(read, LABEL)
    }

    /// Writes the explanation graph, and notes in the report where.
    ///
    /// # Errors
    /// [`Error::Write`] if the file cannot be written.
    pub fn write_explanation(
        &mut self,
        graph: &Model,
        path: impl AsRef<Path>,
        options: &WriteOptions,
    ) -> Result<Written, Error> {
        let path = path.as_ref();
        let written = write_model(graph, path, options)?;
        self.report.explanation = Some(path.to_owned());
        Ok(written)
    }

    /// The model as the bytes of an ONNX file, all tensors inside.
    ///
    /// # Errors
    /// [`Error::Write`] if the model passes 2 GB.
    pub fn to_bytes(&self) -> Result<Bytes, Error> {
        Ok(bcosc_onnx::encode(&self.model.to_proto())?)
    }
}

/// Converts a model into a B-cos model, and proves that the conversion kept what it must keep.
///
/// # Errors
/// See [`Error`]. Where the proof fails, so does the conversion.
pub fn convert(source: impl Into<Source>, options: &Options) -> Result<Converted, Error> {
    convert_with(source, options, &|_| {})
}

/// As [`convert`], telling `watch` how it goes.
///
/// # Errors
/// As [`convert`].
pub fn convert_with(
    source: impl Into<Source>,
    options: &Options,
    watch: &(dyn Fn(Event<'_>) + Sync),
) -> Result<Converted, Error> {
    options.validate()?;
    watch(Event::Stage(Stage::Read));
    let Read {
        model: mut original,
        label,
        path,
        bytes,
        mut warnings,
    } = read(source.into(), &options.input_shapes)?;
    prepare::keep_outputs(&mut original, &options.outputs, &label)?;
    if options.recipe == Recipe::Auto {
        // Choosing looks closely; what cannot be converted is turned away before.
        support::check(&original, &label)?;
    }
    let recipe = plan::choose(&original, options.recipe)?;
    let passes = plan::list(recipe, &options.passes, options.settings.opset.is_some())?;
    let mut settings = options.settings.clone();
    if plan::contract(&passes, settings.input) != InputContract::Same {
        warnings.extend(prepare::peel(&mut original, &mut settings, &label)?);
    }
    let before = Size::of(&original, Some(bytes));
    let mut report = Report {
        bcosc: env!("CARGO_PKG_VERSION"),
        model: path,
        output: None,
        explanation: None,
        recipe: recipe.name(),
        options: options.clone(),
        opset: original.opset(""),
        before,
        after: before,
        passes: Vec::new(),
        warnings: Vec::new(),
        linearity: Vec::new(),
        proof: None,
    };
    report.after.bytes = None;
    if passes.is_empty() {
        report.warnings = warnings;
        return Ok(Converted {
            model: original,
            report,
        });
    }
    watch(Event::Imported { model: &original });
    support::check(&original, &label)?;
    soundness::check(&original, &label)?;
    if options.verification.when != Verify::Off {
        soundness::check_weights(&original, &label)?;
    }

    let settings = settings_for(&original, &settings);
    let calibration = match &options.calibration {
        Some(calibration) => {
            watch(Event::Stage(Stage::Images));
            Some(calibration::batch(
                &original,
                &label,
                &settings,
                calibration,
            )?)
        }
        None => None,
    };
    watch(Event::Stage(Stage::Passes));
    let mut model = original.clone();
    let context = Context {
        settings: &settings,
        interpreter: &Tract,
        calibration: calibration.as_ref(),
    };
    let mut index = 0;
    let steps = pipeline::run(&mut model, &passes, &context, |step, model| {
        watch(Event::Pass {
            step,
            model,
            index,
            count: passes.len(),
        });
        index += 1;
    });
    report.passes = steps.map_err(|source| Error::Pass {
        model: label.clone(),
        source: Box::new(source),
    })?;
    if recipe != Recipe::None {
        describe(&model, &settings, recipe, &passes).write(&mut model);
    }
    report.after = Size::of(&model, None);
    report.opset = model.opset("");
    report.linearity = verdicts(&model, &context, &label)?;
    if options.verification.when != Verify::Off {
        watch(Event::Stage(Stage::Proof));
        let few = calibration.as_ref().map(calibration::few);
        let task = prove::Task {
            original: &original,
            converted: &model,
            passes: &passes,
            settings: &settings,
            calibration: few.as_ref(),
            steps: &report.passes,
            verification: &options.verification,
            label: &label,
        };
        let (proof, doubts) = prove::prove(&task)?;
        warnings.extend(doubts);
        report.proof = Some(proof);
    }
    report.warnings = warnings;
    Ok(Converted { model, report })
}

/// Whether each output is dynamic linear. The types that the analysis needs are not left in the model.
fn verdicts(model: &Model, context: &Context<'_>, label: &str) -> Result<Vec<Verdict>, Error> {
    // Types only help to tell factors apart; without them nothing is taken for linear that is not.
    let verdicts = Linearity::of(&model.graph).verdicts();
    if verdicts.iter().all(|verdict| verdict.dynamic_linear) {
        return Ok(verdicts);
    }
    let mut typed = model.clone();
    context.infer(&mut typed).map_err(|error| Error::Pass {
        model: label.to_owned(),
        source: Box::new(PipelineError {
            pass: "linearity",
            source: Box::new(error),
        }),
    })?;
    Ok(Linearity::of(&typed.graph).verdicts())
}

/// The settings with a mean and a standard deviation for every channel of this model.
fn settings_for(model: &Model, settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    if let Some(normalization) = &mut settings.normalization {
        let channels = channels(model).unwrap_or(0);
        let length = normalization
            .mean
            .len()
            .max(normalization.std.len())
            .max(channels);
        for numbers in [&mut normalization.mean, &mut normalization.std] {
            if let [only] = numbers[..] {
                numbers.resize(length, only);
            }
        }
    }
    settings
}

/// Channels of the model's image input.
fn channels(model: &Model) -> Option<usize> {
    let image = image_input(&model.graph)?;
    let shape = model.graph.value_type(image)?.shape?;
    let axis = channel_axis(&model.graph, image)?;
    usize::try_from(shape.get(axis)?.known()?).ok()
}

/// What the model says about itself afterwards.
fn describe(model: &Model, settings: &Settings, recipe: Recipe, passes: &Passes) -> Metadata {
    let normalization = settings.normalization.clone();
    Metadata {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        recipe: recipe.name().to_owned(),
        b: if BCOS.is_in(passes) { settings.b } else { 1.0 },
        input: plan::contract(passes, settings.input),
        mean: normalization
            .as_ref()
            .map(|n| n.mean.clone())
            .unwrap_or_default(),
        std: normalization.map(|n| n.std).unwrap_or_default(),
        normalization_absorbed: settings.absorb_normalization,
        // The pass that adds it knows the number of classes, and has noted the result.
        logit_bias: model
            .metadata(LOGIT_BIAS)
            .and_then(|bias| bias.parse().ok())
            .unwrap_or(0.0),
        biases_kept: settings.keep_biases || !REMOVE_BIASES.is_in(passes),
        deploy: settings.deploy,
    }
}
