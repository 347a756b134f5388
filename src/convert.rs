//! A conversion, from bytes to a verified model.

use std::path::Path;

use bcosc_engine::{EngineInterpreter, sharing_engine};
use bcosc_ir::Model;
use bcosc_onnx::{WriteOptions, Written};
use bcosc_passes::analysis::linearity::{Linearity, Verdict};
use bcosc_passes::bcos::biases::REMOVE_BIASES;
use bcosc_passes::bcos::carry::CARRY_BIASES;
use bcosc_passes::bcos::input::double::DOUBLE_INPUT;
use bcosc_passes::bcos::layers::{B_LAYERS, BCOS};
use bcosc_passes::pipeline::Step;
use bcosc_passes::recipe::CANONICAL;
use bcosc_passes::{Biases, Context, InputContract, Pass, Settings, pipeline};
use bytes::Bytes;

use crate::canonical::{Canonical, typed};
use crate::engines::Opened;
use crate::explanation::{explain_model, write_model};
use crate::load::{Read, read};
use crate::metadata::LOGIT_BIAS;
use crate::normalization::{self, take_normalization};
use crate::plan::{self, Passes};
use crate::probabilities::before_probabilities;
use crate::progress::{Event, Stage};
use crate::prove::{Task, prove};
use crate::report::Size;
use crate::training::{TrainingOptions, TrainingStep, step_of};
use crate::{
    Error, Metadata, Options, Recipe, Report, Selection, Source, Verify, calibration, outputs,
    places, soundness, support,
};

/// What messages call a model that is not written yet.
const LABEL: &str = "the converted model";

/// A converted model and the report of the conversion.
#[derive(Clone, Debug)]
pub struct Converted {
    /// The model. Unchanged weights still refer to the memory map of the original.
    pub model: Model,
    /// The report of the conversion.
    pub report: Report,
}

impl Converted {
    /// Writes the model, and records its path and size in the report.
    ///
    /// The file is written atomically; see [`bcosc_onnx::write`].
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
    /// [`Error::Explain`] if an output is not dynamic linear, or an operator has no backward rule.
    pub fn explanation_graph(&self) -> Result<Model, Error> {
        explain_model(self.logits()?, LABEL)
    }

    /// The training-step graph of the model; see [`crate::training_step`].
    ///
    /// # Errors
    /// [`Error::Train`] if an operator has no derivative.
    pub fn training_step(&self, options: &TrainingOptions) -> Result<TrainingStep, Error> {
        step_of(self.logits()?, options, LABEL)
    }

    /// The model as it would be read from its file, so that graphs made of it are the same, with logits as its output.
    fn logits(&self) -> Result<Model, Error> {
        let read = self.model.read_anew(self.model.to_proto());
        let mut read = read.map_err(|source| Error::Import {
            model: LABEL.to_owned(),
            source: Box::new(source),
        })?;
        soundness::check_weights(&read, LABEL)?;
        before_probabilities(&mut read);
        Ok(read)
    }

    /// Writes the explanation graph, and records its path in the report.
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
    /// [`Error::Write`] if the model exceeds 2 GB.
    pub fn to_bytes(&self) -> Result<Bytes, Error> {
        Ok(bcosc_onnx::encode(&self.model.to_proto())?)
    }
}

/// Converts a model to a B-cos model and verifies the conversion.
///
/// # Errors
/// See [`Error`]. A failed proof is an error.
pub fn convert(source: impl Into<Source>, options: &Options) -> Result<Converted, Error> {
    convert_with(source, options, &|_| {})
}

/// As [`convert`], reporting progress to `watch`.
///
/// # Errors
/// As [`convert`].
pub fn convert_with(
    source: impl Into<Source>,
    options: &Options,
    watch: &(dyn Fn(Event<'_>) + Sync),
) -> Result<Converted, Error> {
    options.validate()?;
    let device = options.device.engine()?;
    watch(Event::Stage(Stage::Read));
    let Read {
        model: mut original,
        label,
        path,
        bytes,
        mut warnings,
    } = read(source.into(), &options.input_shapes)?;
    outputs::keep_outputs(&mut original, &options.outputs, &label)?;
    let selected = |recipe| {
        let raises = options.settings.opset.is_some();
        plan::list(recipe, &options.passes, raises)
    };
    let known = match options.recipe {
        Recipe::Auto => None,
        recipe => Some((recipe, selected(recipe)?)),
    };
    let mut report = Report::new(path, options, &original, bytes);
    if known.as_ref().is_some_and(|(_, passes)| passes.is_empty()) {
        report.warnings = warnings;
        let model = original;
        return Ok(Converted { model, report });
    }
    support::check(&original, &label)?;
    soundness::check(&original, &label)?;
    if options.verification.when != Verify::Off {
        soundness::check_weights(&original, &label)?;
    }
    let mut settings = options.settings.clone();
    let takes_raw = settings.input != InputContract::Same;
    if takes_raw && plan::may_double_input(options.recipe, &options.passes) {
        warnings.extend(take_normalization(&mut original, &mut settings, &label)?);
        report.before = Size::of(&original, Some(bytes));
    }
    normalization::spread(&original, &mut settings);
    watch(Event::Imported { model: &original });
    watch(Event::Stage(Stage::Passes));

    let mut index = 0;
    let mut told = |step: &Step, model: &Model| {
        watch(Event::Pass { step, model, index });
        index += 1;
    };
    let from = |passes: &[&'static Pass], told: &mut dyn FnMut(&Step, &Model)| {
        Canonical::of(&original, passes, &settings, &label, told)
    };
    let (recipe, passes, canonical) = match known {
        Some((recipe, passes)) => {
            let canonical = from(&passes, &mut told)?;
            (recipe, passes, canonical)
        }
        // All recipes start with the same passes, unless the user selects passes.
        None if options.passes == Selection::default() => {
            let canonical = from(CANONICAL, &mut told)?;
            let recipe = plan::choose(&canonical.typed(&label)?.graph);
            (recipe, selected(recipe)?, canonical)
        }
        None => {
            let looked_at = from(CANONICAL, &mut |_, _| {})?;
            let recipe = plan::choose(&looked_at.typed(&label)?.graph);
            let passes = selected(recipe)?;
            let canonical = from(&passes, &mut told)?;
            (recipe, passes, canonical)
        }
    };
    report.recipe = recipe.name();
    if passes.is_empty() {
        report.warnings = warnings;
        let model = original;
        return Ok(Converted { model, report });
    }
    let carries = settings.biases() == Biases::Carry && CARRY_BIASES.is_in(&passes);
    if carries && !DOUBLE_INPUT.is_in(&passes) {
        return Err(Error::MissingPass {
            pass: CARRY_BIASES.name,
            requires: DOUBLE_INPUT.name,
        });
    }
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
    let interpreter = EngineInterpreter::new(&*device);
    let context = Context {
        settings: &settings,
        interpreter: &interpreter,
        calibration: calibration.as_ref(),
    };
    let mut model = canonical.model.clone();
    let rest = &passes[canonical.steps.len()..];
    let steps = pipeline::run(&mut model, rest, &context, told).map_err(|source| Error::Pass {
        model: label.clone(),
        source: Box::new(source),
    })?;
    report.passes = canonical.steps.iter().cloned().chain(steps).collect();
    if recipe != Recipe::None {
        describe(&model, &settings, recipe, &passes).write(&mut model);
        places::record(&mut model);
    }
    report.after = Size::of(&model, None);
    report.opset = model.opset("");
    report.linearity = verdicts(&model, &label)?;
    if options.verification.when != Verify::Off {
        watch(Event::Stage(Stage::Proof));
        let few = calibration.as_ref().map(calibration::few);
        let engine = match device.is_built_in() {
            true => Opened::Shared(sharing_engine(&canonical.model).into()),
            false => device.clone(),
        };
        let task = Task {
            engine: &*engine,
            interpreter: &interpreter,
            original: &original,
            canonical: &canonical,
            converted: &model,
            passes: &passes,
            settings: &settings,
            calibration: few.as_ref(),
            verification: &options.verification,
            label: &label,
        };
        let (proof, noticed) = prove(&task, &report.passes)?;
        warnings.extend(noticed);
        report.proof = Some(proof);
    }
    report.warnings = warnings;
    Ok(Converted { model, report })
}

/// Whether each output is dynamic linear. Works on a copy, since the analysis adds types to the model.
fn verdicts(model: &Model, label: &str) -> Result<Vec<Verdict>, Error> {
    // Types make the analysis more precise; without them it is still correct.
    let verdicts = Linearity::of(&model.graph).verdicts();
    if verdicts.iter().all(|verdict| verdict.dynamic_linear) {
        return Ok(verdicts);
    }
    Ok(Linearity::of(&typed(model, label)?.graph).verdicts())
}

/// The metadata of the converted model.
fn describe(model: &Model, settings: &Settings, recipe: Recipe, passes: &Passes) -> Metadata {
    let normalization = settings.normalization.clone();
    let carried = settings.biases() == Biases::Carry && CARRY_BIASES.is_in(passes);
    Metadata {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        recipe: recipe.name().to_owned(),
        b: if BCOS.is_in(passes) { settings.b } else { 1.0 },
        // As the pass has recorded them.
        b_layers: model
            .metadata(B_LAYERS)
            .and_then(|others| serde_json::from_str(others).ok())
            .unwrap_or_default(),
        input: plan::contract(passes, settings.input),
        mean: normalization
            .as_ref()
            .map(|n| n.mean.clone())
            .unwrap_or_default(),
        std: normalization.map(|n| n.std).unwrap_or_default(),
        normalization_absorbed: settings.absorb_normalization,
        // The pass that adds it knows the number of classes, and records the value.
        logit_bias: model
            .metadata(LOGIT_BIAS)
            .and_then(|bias| bias.parse().ok())
            .unwrap_or(0.0),
        biases_kept: match settings.biases() {
            Biases::Remove => !REMOVE_BIASES.is_in(passes),
            Biases::Keep => true,
            Biases::Carry => !carried,
        },
        biases_carried: carried,
        deploy: settings.deploy,
    }
}
