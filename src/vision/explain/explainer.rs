//! Running an explanation graph on pictures.

use std::sync::Arc;

use bcosc_autodiff::explanation::{OUTPUTS, is_explanation};
use bcosc_engine::{Network, Session, SessionOptions, default_engine};
use serde::Serialize;

use crate::contract::Images;
use crate::explanation::explain_model;
use crate::load::File;
use crate::vision::predict::{build_for, first_row, run_error};
use crate::{Error, PredictOptions, Predictor, RunError, Source};

/// A model whose predictions can be explained: a B-cos model, any other whose output is dynamic linear, or
/// an explanation graph.
#[derive(Clone, Debug)]
pub struct Explainer {
    /// Predictions of the model.
    pub predictor: Predictor,
    network: Arc<dyn Network>,
}

impl Explainer {
    /// Reads a model and builds its explanation graph.
    ///
    /// # Errors
    /// As [`Predictor::open`], and [`Error::Explain`] if the output is not dynamic linear or an operator
    /// has no backward rule.
    pub fn open(source: impl Into<Source>, options: &PredictOptions) -> Result<Self, Error> {
        Explainer::from_file(File::open(source.into())?, options)
    }

    /// As [`Explainer::open`], of a file that is read.
    pub(crate) fn from_file(file: File, options: &PredictOptions) -> Result<Self, Error> {
        let (model, label, ending) = build_for(file, options)?;
        let predictor = Predictor::of(&model, label, options, ending)?;
        let label = &predictor.label;
        let graph = match is_explanation(&model.graph) {
            true => model,
            false => explain_model(model, label)?,
        };
        let network = default_engine().load(&graph);
        let network = network.map_err(|source| run_error(label, source))?.into();
        Ok(Explainer { predictor, network })
    }

    /// Prepares the explanation of pictures of one size.
    ///
    /// # Errors
    /// [`Error::Run`] if the model cannot take it.
    pub fn at(&self, height: usize, width: usize) -> Result<SizedExplainer, Error> {
        let predictor = &self.predictor;
        let shapes = predictor.intake.shapes([height, width], true);
        let session = self.network.session(&shapes, &SessionOptions::default());
        let session = session.map_err(|source| run_error(&predictor.label, source))?;
        Ok(SizedExplainer {
            session: session.into(),
            predictor: predictor.clone(),
        })
    }
}

/// A model that explains pictures of one size. It can be shared between threads.
#[derive(Clone, Debug)]
pub struct SizedExplainer {
    session: Arc<dyn Session>,
    predictor: Predictor,
}

/// The explanation of one class on one picture.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The explained class; for an embedding, the entry.
    pub class: usize,
    /// Its logit, the logit bias included.
    pub logit: f64,
    /// Its probability; `None` for embeddings.
    pub probability: Option<f64>,
    /// The logit bias.
    pub logit_bias: f64,
    /// The sum of all contributions.
    pub contribution: f64,
    /// The logit minus the logit bias and the contributions: constant terms and
    /// rounding errors.
    pub residual: f64,
    /// The logits of all classes.
    #[serde(skip)]
    pub logits: Vec<f32>,
    /// W(x) `[channels, height, width]`.
    #[serde(skip)]
    pub weights: Vec<f32>,
    /// Channels of W(x).
    #[serde(skip)]
    pub channels: usize,
    /// The contribution of each pixel to the logit, `[height, width]`.
    #[serde(skip)]
    pub contributions: Vec<f32>,
    /// Height and width.
    pub size: [usize; 2],
}

impl SizedExplainer {
    pub(super) fn predictor(&self) -> &Predictor {
        &self.predictor
    }

    /// Explains a class of one picture, raw pixels `[1, C, height, width]`; the predicted class where `target`
    /// is `None`.
    ///
    /// # Errors
    /// [`Error::Run`] if the model cannot be run on it.
    pub fn explain(&self, image: &Images, target: Option<usize>) -> Result<Explanation, Error> {
        self.run(image, target)
            .map_err(|source| run_error(&self.predictor.label, source))
    }

    fn run(&self, image: &Images, target: Option<usize>) -> Result<Explanation, RunError> {
        let target = target.map_or(-1, |class| class as i64);
        let inputs = self.predictor.intake.tensors(image, Some(target))?;
        let outputs = self.session.run_named(&inputs)?;
        let output = |name: &str| {
            let found = outputs.get(name);
            let found =
                found.ok_or_else(|| RunError::Values(format!("there is no output `{name}`")))?;
            first_row(found, self.predictor.intake.batch())
        };
        let [logits, class, weights, contributions] = OUTPUTS;
        let (_, logits) = output(logits)?;
        let class = match outputs.get(class).and_then(|t| t.to_i64s().ok()).as_deref() {
            Some([class, ..]) if (0..logits.len() as i64).contains(class) => *class as usize,
            _ => return Err(RunError::Values("the graph names no class".to_owned())),
        };
        let (dims, weights) = output(weights)?;
        let (_, contributions) = output(contributions)?;
        let finite = |values: &[f32]| values.iter().all(|x| x.is_finite());
        if ![&logits, &weights, &contributions]
            .into_iter()
            .all(|v| finite(v))
        {
            return Err(RunError::Values(
                "logits, W(x) or contributions are not finite".to_owned(),
            ));
        }
        let [channels, height, width] = dims[..] else {
            return Err(RunError::Values(format!("W(x) has dimensions {dims:?}")));
        };
        let predictor = &self.predictor;
        let logit = f64::from(logits[class]);
        let contribution = contributions.iter().map(|c| f64::from(*c)).sum();
        let probability = predictor.probability.map(|p| p.of_logits(&logits)[class]);
        Ok(Explanation {
            class,
            logit,
            probability,
            logit_bias: predictor.logit_bias,
            contribution,
            residual: logit - predictor.logit_bias - contribution,
            logits,
            weights,
            channels,
            contributions,
            size: [height, width],
        })
    }
}
