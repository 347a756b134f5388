//! Running training steps.

use bcosc_autodiff::training::{
    BIAS_SCALE, ERRORS, EXPONENT, LEARNING_RATE, LOGITS, LOSS, STEP, State, TARGETS, TEACHER_IMAGES,
};
use bcosc_engine::{Engine, EngineError, Feedback, InputShapes, SessionOptions, Value};
use bcosc_ir::{DataType, Tensor, Tensors};

use super::TrainingStep;
use crate::{Error, RunError, Weights};

/// A training step on an engine, with its state.
///
/// Batches have one size. Parameters and state stay in the engine's memory between steps.
#[derive(Debug)]
pub struct Trainer {
    feedback: Feedback,
    state: Vec<State>,
    /// The input with images, for [`Trainer::step`].
    images: String,
    steps: u64,
    dtype: DataType,
}

/// Numbers that change from step to step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Numbers {
    /// The learning rate.
    pub rate: f64,
    /// B, where the step takes it ([`Exponent::Input`](bcosc_autodiff::training::Exponent::Input)).
    pub b: Option<f64>,
    /// The factor of all biases, where the step takes it
    /// ([`StepOptions::scale_biases`](bcosc_autodiff::training::StepOptions::scale_biases)).
    pub bias_scale: Option<f64>,
}

impl From<f64> for Numbers {
    fn from(rate: f64) -> Self {
        Numbers {
            rate,
            b: None,
            bias_scale: None,
        }
    }
}

/// The outcome of a step.
#[derive(Clone, Debug)]
pub struct Stepped {
    /// The mean loss of the batch, before the update.
    pub loss: f64,
    /// The logits `[N, K]`, before the update; none in an alignment step.
    pub logits: Option<Value>,
    /// The error of each tap of an alignment step, before the update.
    pub errors: Vec<f64>,
}

impl Trainer {
    /// Prepares a step for batches of a size, from the initial state, after `steps` steps; see
    /// [`TrainingStep::restore`].
    ///
    /// # Errors
    /// If the engine cannot run the graph.
    pub fn new(
        step: &TrainingStep,
        steps: u64,
        engine: &dyn Engine,
        batch: &Batch,
        options: &SessionOptions,
    ) -> Result<Self, Error> {
        let (images, shapes) = (&batch.input, batch.shapes());
        Self::for_inputs(step, steps, engine, images, shapes, options)
    }

    /// As [`Trainer::new`], for inputs by name; `images` is that of the model.
    pub(crate) fn for_inputs(
        step: &TrainingStep,
        steps: u64,
        engine: &dyn Engine,
        images: &str,
        shapes: InputShapes,
        options: &SessionOptions,
    ) -> Result<Self, Error> {
        Self::prepared(step, steps, engine, images, shapes, options).map_err(run_error)
    }

    fn prepared(
        step: &TrainingStep,
        steps: u64,
        engine: &dyn Engine,
        images: &str,
        mut shapes: InputShapes,
        options: &SessionOptions,
    ) -> Result<Self, EngineError> {
        let graph = &step.model.graph;
        for state in &step.state {
            shapes.insert(state.input.clone(), state.initial.dims());
        }
        for scalar in [LEARNING_RATE, STEP, EXPONENT, BIAS_SCALE] {
            if graph.value_named(scalar).is_some() {
                shapes.insert(scalar.to_owned(), Vec::new());
            }
        }
        let dtype = graph
            .value_named(LEARNING_RATE)
            .and_then(|value| graph.value_type(value))
            .map_or(DataType::Float, |found| found.dtype);
        let session = engine.load(&step.model)?.into_session(&shapes, options)?;
        let pairs: Vec<(&str, &str)> = step
            .state
            .iter()
            .map(|state| (state.output.as_str(), state.input.as_str()))
            .collect();
        let initial = step.state.iter();
        let initial = initial.map(|state| (state.input.clone(), state.initial.clone()));
        let feedback = Feedback::new(session, &pairs, &initial.collect())?;
        Ok(Trainer {
            feedback,
            state: step.state.clone(),
            images: images.to_owned(),
            steps,
            dtype,
        })
    }

    /// Runs one step on images with their targets, or with the images for the teacher.
    ///
    /// # Errors
    /// If a tensor is not of the type or shape that was prepared for. The state is lost then.
    pub fn step(
        &mut self,
        images: Tensor,
        targets: Option<Tensor>,
        teacher: Option<Tensor>,
        numbers: Numbers,
    ) -> Result<Stepped, Error> {
        let mut inputs = Tensors::from([(self.images.clone(), images)]);
        for (name, tensor) in [(TARGETS, targets), (TEACHER_IMAGES, teacher)] {
            inputs.extend(tensor.map(|tensor| (name.to_owned(), tensor)));
        }
        self.run(inputs, numbers)
    }

    /// As [`Trainer::step`], on inputs by name.
    pub(crate) fn run(&mut self, mut inputs: Tensors, numbers: Numbers) -> Result<Stepped, Error> {
        let number = |x: f64| {
            let tensor = Tensor::floats(self.dtype, &[], &[x]);
            tensor.ok_or_else(|| run_error(EngineError::DataType(self.dtype)))
        };
        let step = Tensor::i64s(&[], vec![self.steps as i64 + 1]);
        inputs.insert(STEP.to_owned(), step);
        let scalars = [
            (LEARNING_RATE, Some(numbers.rate)),
            (EXPONENT, numbers.b),
            (BIAS_SCALE, numbers.bias_scale),
        ];
        for (name, scalar) in scalars {
            if let Some(scalar) = scalar {
                inputs.insert(name.to_owned(), number(scalar)?);
            }
        }
        let mut outputs = self.feedback.run(&inputs).map_err(run_error)?;
        self.steps += 1;
        let loss = outputs.remove(LOSS);
        let loss = loss.ok_or_else(|| run_error(EngineError::UnknownOutput(LOSS.to_owned())))?;
        let errors = outputs
            .remove(ERRORS)
            .as_ref()
            .map(numbers_of)
            .transpose()?;
        Ok(Stepped {
            loss: numbers_of(&loss)?.first().copied().unwrap_or(f64::NAN),
            logits: outputs.remove(LOGITS),
            errors: errors.unwrap_or_default(),
        })
    }

    /// Steps that have been run.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The state, read from the engine.
    ///
    /// # Errors
    /// If a step failed before.
    pub fn weights(&self) -> Result<Weights, Error> {
        let mut weights = Weights::default();
        for State { input, kind, .. } in &self.state {
            weights.insert(input, *kind, self.feedback.read(input).map_err(run_error)?);
        }
        Ok(weights)
    }
}

/// What a step takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The name of the input for images.
    pub input: String,
    /// The shape of the images.
    pub images: Vec<u64>,
    /// The shape of the targets, where the step takes them.
    pub targets: Option<Vec<u64>>,
    /// The shape of the images for the teacher, where there is one.
    pub teacher: Option<Vec<u64>>,
}

impl Batch {
    /// The shapes of the inputs that it fills.
    pub(crate) fn shapes(&self) -> InputShapes {
        let optional = [(TARGETS, &self.targets), (TEACHER_IMAGES, &self.teacher)];
        let optional = optional.into_iter();
        let optional = optional.filter_map(|(name, dims)| Some((name.to_owned(), dims.clone()?)));
        [(self.input.clone(), self.images.clone())]
            .into_iter()
            .chain(optional)
            .collect()
    }
}

fn numbers_of(value: &Value) -> Result<Vec<f64>, Error> {
    let tensor = value.to_tensor().map_err(run_error)?;
    tensor.to_f64s().map_err(|error| run_error(error.into()))
}

fn run_error(source: EngineError) -> Error {
    Error::Run {
        what: "the training step".to_owned(),
        source: RunError::Engine(source),
    }
}
