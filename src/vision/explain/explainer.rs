//! Running an explanation graph on pictures.

use std::sync::Arc;

use bcosc_autodiff::explanation::{OUTPUTS, is_explanation};
use bcosc_engine::{Network, Session};
use bcosc_ir::InterpreterError;
use serde::Serialize;

use crate::contract::Images;
use crate::explanation::explain_model;
use crate::vision::predict::{first_row, read_for, run_error};
use crate::{Error, PredictOptions, Predictor, Source};

/// A model whose predictions can be explained: a B-cos model, any other whose output is dynamic linear, or
/// an explanation graph.
#[derive(Clone, Debug)]
pub struct Explainer {
    /// The model's own predictions.
    pub predictor: Predictor,
    network: Network,
}

impl Explainer {
    /// Reads a model and goes back through it.
    ///
    /// # Errors
    /// As [`Predictor::open`], and [`Error::Explain`] where the output is not dynamic linear or an operator
    /// cannot be gone back through.
    pub fn open(source: impl Into<Source>, options: &PredictOptions) -> Result<Self, Error> {
        let (model, label, ending) = read_for(source.into(), options)?;
        let predictor = Predictor::of(&model, label, options, ending)?;
        let label = &predictor.label;
        let graph = match is_explanation(&model.graph) {
            true => model,
            false => explain_model(model, label)?,
        };
        let network = Network::load(&graph).map_err(|source| run_error(label, source))?;
        Ok(Explainer { predictor, network })
    }

    /// Prepares the explanation of pictures of one size.
    ///
    /// # Errors
    /// [`Error::Run`] where the model cannot take it.
    pub fn at(&self, height: usize, width: usize) -> Result<SizedExplainer, Error> {
        let predictor = &self.predictor;
        let shapes = predictor.intake.shapes([height, width], true);
        let session = self.network.session(&shapes);
        Ok(SizedExplainer {
            session: Arc::new(session.map_err(|source| run_error(&predictor.label, source))?),
            predictor: predictor.clone(),
        })
    }
}

/// A model that explains pictures of one size. It can be shared between threads.
#[derive(Clone, Debug)]
pub struct SizedExplainer {
    session: Arc<Session>,
    predictor: Predictor,
}

/// Why one class got its logit on one picture.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The class that is explained; of an embedding, the entry.
    pub class: usize,
    /// Its logit, the logit bias included.
    pub logit: f64,
    /// Its probability; `None` for embeddings.
    pub probability: Option<f64>,
    /// The logit bias.
    pub logit_bias: f64,
    /// The sum of all contributions.
    pub contribution: f64,
    /// What is left of the logit without the logit bias and the contributions: what constants add, and
    /// rounding.
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
    /// What each pixel contributes to the logit, `[height, width]`.
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
    /// [`Error::Run`] where the model cannot be run on it.
    pub fn explain(&self, image: &Images, target: Option<usize>) -> Result<Explanation, Error> {
        self.run(image, target)
            .map_err(|source| run_error(&self.predictor.label, source))
    }

    fn run(&self, image: &Images, target: Option<usize>) -> Result<Explanation, InterpreterError> {
        let target = target.map_or(-1, |class| class as i64);
        let inputs = self.predictor.intake.tensors(image, Some(target))?;
        let outputs = self.session.run(&inputs)?;
        let output = |name: &str| {
            let found = outputs.get(name);
            let found =
                found.ok_or_else(|| InterpreterError(format!("there is no output `{name}`")))?;
            first_row(found, self.predictor.intake.batch())
        };
        let [logits, class, weights, contributions] = OUTPUTS;
        let (_, logits) = output(logits)?;
        let class = match outputs.get(class).and_then(|t| t.to_i64s().ok()).as_deref() {
            Some([class, ..]) if (0..logits.len() as i64).contains(class) => *class as usize,
            _ => return Err(InterpreterError("the graph names no class".to_owned())),
        };
        let (dims, weights) = output(weights)?;
        let (map, contributions) = output(contributions)?;
        let finite = |values: &[f32]| values.iter().all(|x| x.is_finite());
        if ![&logits, &weights, &contributions]
            .into_iter()
            .all(|v| finite(v))
        {
            return Err(InterpreterError(
                "logits, W(x) or contributions are not finite".to_owned(),
            ));
        }
        let ([channels, height, width], weights) = channels_first(&dims, &map, weights)?;
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

/// W(x) as `[channels, height, width]`: channels may be the last of its axes, which the map of contributions lacks.
fn channels_first(
    dims: &[usize],
    map: &[usize],
    weights: Vec<f32>,
) -> Result<([usize; 3], Vec<f32>), InterpreterError> {
    match *dims {
        [channels, height, width] if *map == [height, width] => {
            Ok(([channels, height, width], weights))
        }
        [height, width, channels] if *map == [height, width] => {
            let of = |channel: usize| weights.iter().copied().skip(channel).step_by(channels);
            let moved = (0..channels).flat_map(of).collect();
            Ok(([channels, height, width], moved))
        }
        _ => Err(InterpreterError(format!(
            "W(x) has dimensions {dims:?} and contributions have {map:?}: they are not of one picture"
        ))),
    }
}
