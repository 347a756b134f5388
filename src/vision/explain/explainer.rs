//! Running an explanation graph on pictures.

use std::iter;
use std::sync::Arc;

use bcosc_autodiff::explanation::is_explanation;
use bcosc_autodiff::parts::{Parts, Shared};
use bcosc_engine::{EngineError, InputShapes, Network, Session, Value, default_interpreter};
use bcosc_ir::{Interpreter, Model, Tensor};
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
    forward: Arc<dyn Network>,
    backward: Arc<dyn Network>,
    shared: Arc<[Shared]>,
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
        let engine = options.device.engine()?.in_precision(options.precision)?;
        let (model, label, ending) = build_for(file, options)?;
        let predictor = Predictor::of(&model, label, options, ending)?;
        let label = &predictor.label;
        let graph = match is_explanation(&model.graph) {
            true => model,
            false => explain_model(model, label)?,
        };
        let parts = parts(graph).map_err(|source| run_error(label, source))?;
        let load = |part: &Model| -> Result<Arc<dyn Network>, Error> {
            let network = engine.load(part);
            Ok(network.map_err(|source| run_error(label, source))?.into())
        };
        Ok(Explainer {
            forward: load(&parts.forward)?,
            backward: load(&parts.backward)?,
            shared: parts.shared.into(),
            predictor,
        })
    }

    /// Prepares the explanation of pictures of one size.
    ///
    /// # Errors
    /// [`Error::Run`] if the model cannot take it.
    pub fn at(&self, height: usize, width: usize) -> Result<SizedExplainer, Error> {
        let prepared = self.prepare([height, width]);
        let [forward, backward] =
            prepared.map_err(|source| run_error(&self.predictor.label, source))?;
        Ok(SizedExplainer {
            forward: forward.into(),
            backward: backward.into(),
            shared: self.shared.clone(),
            predictor: self.predictor.clone(),
        })
    }

    fn prepare(&self, size: [usize; 2]) -> Result<[Box<dyn Session>; 2], EngineError> {
        let options = self.predictor.session_options();
        let intake = &self.predictor.intake;
        let taken = intake.shapes(size, false);
        let forward = self.forward.session(&taken, &options)?;
        // The shapes of the shared values follow from the forward part.
        let mut shapes = InputShapes::new();
        for (place, port) in self.backward.inputs().iter().enumerate() {
            let from = place
                .checked_sub(1)
                .and_then(|place| self.shared.get(place));
            let shape = match from {
                None => vec![intake.batch()],
                Some(Shared::Input(name)) => taken.get(name).cloned().unwrap_or_default(),
                Some(Shared::Output(slot)) => {
                    let output = forward.outputs().get(*slot);
                    let known = output.and_then(|o| o.tensor_type.as_ref()?.known_shape());
                    known.ok_or_else(|| EngineError::UntypedInput(port.name.clone()))?
                }
            };
            shapes.insert(port.name.clone(), shape);
        }
        let backward = self.backward.session(&shapes, &options)?;
        Ok([forward, backward])
    }
}

/// An explanation graph in two parts, whose types are known.
fn parts(mut graph: Model) -> Result<Parts, RunError> {
    default_interpreter().infer(&mut graph, 0)?;
    Ok(Parts::of(&graph)?)
}

/// A model that explains pictures of one size. It can be shared between threads.
#[derive(Clone, Debug)]
pub struct SizedExplainer {
    forward: Arc<dyn Session>,
    backward: Arc<dyn Session>,
    shared: Arc<[Shared]>,
    predictor: Predictor,
}

/// A picture that went through the forward part, any class of which can be explained.
pub(crate) struct Seen {
    logits: Vec<f32>,
    shared: Vec<Value>,
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
        self.explain_class(&self.see(image)?, target)
    }

    /// Runs the forward part, which all classes of a picture share.
    pub(crate) fn see(&self, image: &Images) -> Result<Seen, Error> {
        self.run_forward(image)
            .map_err(|source| run_error(&self.predictor.label, source))
    }

    /// As [`SizedExplainer::explain`], of a picture that went through the forward part.
    pub(crate) fn explain_class(
        &self,
        seen: &Seen,
        target: Option<usize>,
    ) -> Result<Explanation, Error> {
        self.run_backward(seen, target)
            .map_err(|source| run_error(&self.predictor.label, source))
    }

    fn run_forward(&self, image: &Images) -> Result<Seen, RunError> {
        let intake = &self.predictor.intake;
        let inputs = intake.tensors(image, None)?;
        let operand = |name: &String| {
            let given = inputs.get(name).cloned().map(Value::from);
            given.ok_or_else(|| EngineError::MissingInput(name.clone()))
        };
        let taken = self.forward.inputs().iter().map(|port| operand(&port.name));
        let outputs = self.forward.run(taken.collect::<Result<_, _>>()?)?;
        let logits = outputs.first();
        let logits = logits.ok_or_else(|| RunError::Values("there are no logits".to_owned()))?;
        let (_, logits) = first_row(&logits.to_tensor()?, intake.batch())?;
        let shared = self.shared.iter().map(|shared| match shared {
            Shared::Input(name) => operand(name),
            Shared::Output(slot) => Ok(outputs[*slot].clone()),
        });
        Ok(Seen {
            shared: shared.collect::<Result<_, _>>()?,
            logits,
        })
    }

    fn run_backward(&self, seen: &Seen, target: Option<usize>) -> Result<Explanation, RunError> {
        let batch = self.predictor.intake.batch();
        let target = target.map_or(-1, |class| class as i64);
        let target = Tensor::i64s(&[batch], vec![target; batch as usize]);
        let operands = iter::once(Value::from(target)).chain(seen.shared.iter().cloned());
        let outputs = self.backward.run(operands.collect())?;
        let [class, weights, contributions] = &outputs[..] else {
            return Err(RunError::Values(format!(
                "the graph has {} results, not 3",
                outputs.len()
            )));
        };
        let logits = seen.logits.clone();
        let class = match class.to_tensor()?.to_i64s().ok().as_deref() {
            Some([class, ..]) if (0..logits.len() as i64).contains(class) => *class as usize,
            _ => return Err(RunError::Values("the graph has no class output".to_owned())),
        };
        let (dims, weights) = first_row(&weights.to_tensor()?, batch)?;
        let (map, contributions) = first_row(&contributions.to_tensor()?, batch)?;
        let finite = |values: &[f32]| values.iter().all(|x| x.is_finite());
        if ![&logits, &weights, &contributions]
            .into_iter()
            .all(|v| finite(v))
        {
            return Err(RunError::Values(
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

/// W(x) as `[channels, height, width]`. Its channels may be last: contributions have the other axes.
fn channels_first(
    dims: &[usize],
    map: &[usize],
    weights: Vec<f32>,
) -> Result<([usize; 3], Vec<f32>), RunError> {
    match *dims {
        [channels, height, width] if *map == [height, width] => {
            Ok(([channels, height, width], weights))
        }
        [height, width, channels] if *map == [height, width] => {
            let of = |channel: usize| weights.iter().copied().skip(channel).step_by(channels);
            let moved = (0..channels).flat_map(of).collect();
            Ok(([channels, height, width], moved))
        }
        _ => Err(RunError::Values(format!(
            "W(x) has dimensions {dims:?}, but contributions have {map:?}"
        ))),
    }
}
