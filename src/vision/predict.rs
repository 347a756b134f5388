//! Running a model on pictures: a vector of logits each.

mod intake;
mod reference;

use std::sync::Arc;

use bcosc_autodiff::{explanation, scores};
use bcosc_engine::{Network, Precision, Session, SessionOptions, default_interpreter};
use bcosc_ir::{Graph, Model, Tensor, Value};
use bcosc_passes::analysis::image::image_input;
use bcosc_passes::analysis::preprocessing::Preprocessing;
use bcosc_passes::{Context, InputContract, Normalization, Settings};

use crate::checked::checked;
use crate::contract::Images;
use crate::load::File;
use crate::probabilities::before_probabilities;
use crate::{DeviceChoice, Error, InputShape, Metadata, Probability, RunError, Source, plan};

pub use intake::Intake;
pub(in crate::vision) use reference::{Reference, mean_cosine};

/// How pictures enter a model, where the model does not say it itself.
#[derive(Clone, Debug, PartialEq)]
pub struct PredictOptions {
    /// New shapes of inputs.
    pub input_shapes: Vec<InputShape>,
    /// The output that holds logits or an embedding, by name; the first that is floating point where it
    /// is not said.
    pub output: Option<String>,
    /// What the model takes; otherwise what its metadata says, and of a model without any, `[x, 1-x]`
    /// where it has an even number of channels.
    pub input: Option<InputContract>,
    /// What the model's input is normalised with; otherwise what its metadata says.
    pub normalization: Option<Normalization>,
    /// Height and width of pictures, where the model leaves them open.
    pub size: Option<[usize; 2]>,
    /// How much of a picture's shorter side is kept, in (0, 1].
    pub crop: f64,
    /// What is added to every class logit; otherwise what metadata or the graph's last node says.
    pub logit_bias: Option<f64>,
    /// How a logit becomes a probability; otherwise sigmoid where there is a logit bias, and softmax
    /// where there is none.
    pub probability: Option<Probability>,
    /// Where the model runs.
    pub device: DeviceChoice,
    /// How products are rounded there.
    pub precision: Precision,
}

impl Default for PredictOptions {
    fn default() -> Self {
        PredictOptions {
            input_shapes: Vec::new(),
            output: None,
            input: None,
            normalization: None,
            size: None,
            crop: 1.0,
            logit_bias: None,
            probability: None,
            device: DeviceChoice::default(),
            precision: Precision::default(),
        }
    }
}

/// A model that is ready to take pictures of any size that it allows.
#[derive(Clone, Debug)]
pub struct Predictor {
    /// What messages call the model.
    pub label: String,
    /// How pictures enter it.
    pub intake: Intake,
    /// Length of its output vectors.
    pub classes: usize,
    /// The constant that is added to every class logit.
    pub logit_bias: f64,
    /// How its logits become probabilities; `None` for embeddings.
    pub probability: Option<Probability>,
    /// What the network that it was made from was normalised with, where that is known.
    pub(crate) original: Option<Normalization>,
    network: Arc<dyn Network>,
    precision: Precision,
    /// Whether it takes the class to explain too, though nothing here depends on it.
    takes_target: bool,
}

impl Predictor {
    /// Reads a model and prepares it.
    ///
    /// # Errors
    /// If the model cannot be read or run, does not output one vector per picture, or does not say how
    /// its input is normalised and the options do not either.
    pub fn open(source: impl Into<Source>, options: &PredictOptions) -> Result<Self, Error> {
        Predictor::from_file(File::open(source.into())?, options)
    }

    /// As [`Predictor::open`], of a file that is read.
    pub(crate) fn from_file(file: File, options: &PredictOptions) -> Result<Self, Error> {
        let (model, label, ending) = build_for(file, options)?;
        Predictor::of(&model, label, options, ending)
    }

    /// The model may be an explanation graph too.
    pub(crate) fn of(
        model: &Model,
        label: String,
        options: &PredictOptions,
        ending: Option<Probability>,
    ) -> Result<Self, Error> {
        let metadata = Metadata::read(model, &label)?;
        let fail = |problem: String| Error::Input {
            model: label.clone(),
            problem,
        };
        let mut forward = model.clone();
        let (output, classes) = vectors(&mut forward).map_err(fail)?;
        let name = forward.graph.value_name(output).to_owned();
        forward.graph.set_outputs(&[(output, name)]);
        forward.graph.remove_dead();
        let intake = Intake::of(&forward, metadata.as_ref(), options, &label)?;
        let embeds = is_embedding(model, metadata.as_ref());
        let logit_bias = options
            .logit_bias
            .or(metadata.as_ref().map(|m| m.logit_bias))
            .or_else(|| explanation::logit_bias(&forward.graph))
            .unwrap_or(0.0);
        let engine = options.device.engine()?.in_precision(options.precision)?;
        let network = engine.load(&forward);
        let network = network.map_err(|source| run_error(&label, source))?.into();
        Ok(Predictor {
            intake,
            classes,
            logit_bias,
            probability: Probability::of(options.probability.or(ending), logit_bias)
                .filter(|_| !embeds),
            original: metadata.and_then(|m| m.normalization()),
            network,
            precision: options.precision,
            takes_target: explanation::is_explanation(&model.graph),
            label,
        })
    }

    /// All classes, the largest logit first; of an embedding, the largest magnitude.
    pub fn ranked(&self, logits: &[f32]) -> Vec<usize> {
        let height = |class: &usize| match self.probability {
            Some(_) => logits[*class],
            None => logits[*class].abs(),
        };
        let mut classes: Vec<usize> = (0..logits.len()).collect();
        classes.sort_by(|a, b| height(b).total_cmp(&height(a)));
        classes
    }

    /// What sessions of the model need.
    pub(super) fn session_options(&self) -> SessionOptions {
        SessionOptions {
            precision: self.precision,
            ..SessionOptions::default()
        }
    }

    /// Prepares the model for pictures of one size.
    ///
    /// # Errors
    /// [`Error::Run`] if the model cannot take it.
    pub fn at(&self, height: usize, width: usize) -> Result<SizedPredictor, Error> {
        let shapes = self.intake.shapes([height, width], self.takes_target);
        let session = self.network.session(&shapes, &self.session_options());
        let session = session.map_err(|source| run_error(&self.label, source))?;
        Ok(SizedPredictor {
            session: session.into(),
            intake: self.intake.clone(),
            target: self.takes_target.then_some(-1),
            label: self.label.clone(),
        })
    }
}

/// A model that takes pictures of one size. It can be shared between threads.
#[derive(Clone, Debug)]
pub struct SizedPredictor {
    session: Arc<dyn Session>,
    intake: Intake,
    target: Option<i64>,
    label: String,
}

impl SizedPredictor {
    /// The logits of one picture, raw pixels `[1, C, height, width]`.
    ///
    /// # Errors
    /// [`Error::Run`] if the model cannot be run on it.
    pub fn logits(&self, image: &Images) -> Result<Vec<f32>, Error> {
        let run = || -> Result<_, RunError> {
            let inputs = self.intake.tensors(image, self.target)?;
            let outputs = self.session.run_named(&inputs)?;
            let output = outputs.values().next();
            let output = output.ok_or_else(|| RunError::Values("there is no output".to_owned()))?;
            first_row(output, self.intake.batch())
        };
        let (_, logits) = run().map_err(|source| run_error(&self.label, source))?;
        Ok(logits)
    }
}

/// A model as it was read, with the one output that is looked at, unless it is an explanation graph; and how it
/// made probabilities of its logits, where it did.
pub(crate) fn build_for(
    file: File,
    options: &PredictOptions,
) -> Result<(Model, String, Option<Probability>), Error> {
    let wanted: Vec<String> = options.output.iter().cloned().collect();
    let (mut model, label) = checked(file, &options.input_shapes, &wanted)?;
    let ending = before_probabilities(&mut model);
    Ok((model, label, ending))
}

/// Whether a model takes pixels and normalises them itself.
pub(crate) fn normalizes(graph: &Graph) -> bool {
    let found = image_input(graph).and_then(|image| Preprocessing::of(graph, image));
    found.is_some_and(|found| found.normalizes)
}

/// Whether the model's output is an embedding, rather than logits.
pub(crate) fn is_embedding(model: &Model, metadata: Option<&Metadata>) -> bool {
    metadata.is_some_and(|m| m.recipe == "clip") || plan::is_embedding(&model.graph)
}

pub(crate) fn run_error(label: &str, source: impl Into<RunError>) -> Error {
    Error::Run {
        what: label.to_owned(),
        source: source.into(),
    }
}

/// Dimensions without the batch and elements of what belongs to the first of a batch. A graph that reshapes to
/// sizes of its own takes a picture of another size for several: that is an error.
pub(crate) fn first_row(tensor: &Tensor, batch: u64) -> Result<(Vec<usize>, Vec<f32>), RunError> {
    let fail = RunError::Values;
    let rows = tensor.dims().first().copied().unwrap_or_default();
    if rows != batch {
        return Err(fail(format!(
            "an output has {rows} rows, not {batch}: the network does not support pictures of this size"
        )));
    }
    let elements = tensor.to_f64s().map_err(|e| fail(e.to_string()))?;
    let dims: Vec<usize> = tensor.dims().iter().skip(1).map(|d| *d as usize).collect();
    let row = elements.get(..dims.iter().product());
    let row = row.ok_or_else(|| fail("an output has no rows".to_owned()))?;
    Ok((dims, row.iter().map(|x| *x as f32).collect()))
}

/// The output that is one vector per picture, and its length.
fn vectors(model: &mut Model) -> Result<(Value, usize), String> {
    let settings = Settings::default();
    let context = Context {
        settings: &settings,
        interpreter: default_interpreter(),
        calibration: None,
    };
    context.infer(model).map_err(|e| e.to_string())?;
    let (value, length) = scores::scores(model).map_err(|e| e.to_string())?;
    Ok((value, length as usize))
}
