//! Training-step graphs.

#[cfg(feature = "vision")]
mod alignment;
mod info;
mod metrics;
mod schedule;
mod trainer;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bcosc_autodiff::training::{
    self, Exponent, Group, Parameter, Role, State, Step, StepOptions, Targets,
};
use bcosc_engine::default_interpreter;
use bcosc_ir::Model;
use bcosc_onnx::proto::ModelProto;
use bcosc_passes::pipeline::PipelineError;
use bcosc_passes::{Context, PassError, Settings};
use glob::Pattern;

#[cfg(feature = "vision")]
pub(crate) use alignment::{alignment_step_of, cuttable, part, segments_of};
pub use metrics::{METRICS, Metrics};
pub use schedule::{Ramp, Schedule, Shape};
pub use trainer::{Batch, Numbers, Stepped, Trainer};

use crate::checked::checked;
use crate::load::File;
use crate::probabilities::before_probabilities;
use crate::weights::Weights;
use crate::{Error, InputShape, Metadata, Source};

/// The metadata entry of a step graph that pairs its state inputs and outputs: a JSON list of
/// `[input, output, kind]`.
pub const STATE: &str = "bcosc.training.state";

/// The minimum opset of step graphs.
const OLDEST: i64 = 13;

/// Options of a training-step graph.
#[derive(Clone, Debug, Default)]
pub struct TrainingOptions {
    /// New shapes of inputs.
    pub input_shapes: Vec<InputShape>,
    /// The output that is trained, by name; by default the first floating-point output.
    pub output: Option<String>,
    /// Loss, optimiser, clipping, and what else the graph computes.
    pub step: StepOptions,
    /// A model to learn from, whose outputs take the place of targets.
    pub teacher: Option<Source>,
    /// Weight decay of all parameters.
    pub weight_decay: f64,
    /// Weight decay of scales and biases of norms, where it differs.
    pub norm_weight_decay: Option<f64>,
    /// Patterns of names of parameters that are not trained; `*` is any text, and `?` any character.
    pub freeze: Vec<String>,
}

/// A training-step graph, and what its state is at the start.
#[derive(Clone, Debug)]
pub struct TrainingStep {
    /// The graph; [`training`](bcosc_autodiff::training) describes its inputs and outputs.
    pub model: Model,
    /// The model that is trained, whose constants have the names of the state.
    pub forward: Model,
    /// What is trained.
    pub parameters: Vec<Parameter>,
    /// Names of the biases that the input `bias_scale` multiplies.
    pub biases: Vec<String>,
    /// State inputs, in the order of the graph's inputs.
    pub state: Vec<State>,
}

impl TrainingStep {
    /// The state before the first step.
    pub fn initial(&self) -> Weights {
        let mut weights = Weights::default();
        for state in &self.state {
            weights.insert(&state.input, state.kind, state.initial.clone());
        }
        weights
    }

    /// The model that is trained, with the step as its `TrainingInfoProto`. State that is not the model's is an initializer of the
    /// algorithm.
    pub fn training_info(&self) -> ModelProto {
        info::model(&self.forward, &self.model, &self.state)
    }

    /// Makes other tensors the state before the first step, such as those of a checkpoint.
    ///
    /// # Errors
    /// [`Error::Options`] if one is missing, or has another shape or type.
    pub fn restore(&mut self, weights: &Weights) -> Result<(), Error> {
        for state in &mut self.state {
            let name = &state.input;
            let found = weights
                .get(name)
                .ok_or_else(|| Error::Options(format!("there is no \"{name}\" in the state")))?;
            if found.tensor_type() != state.initial.tensor_type() {
                return Err(Error::Options(format!(
                    "\"{name}\" is {:?} in the state, and {:?} in the model",
                    found.dims(),
                    state.initial.dims()
                )));
            }
            state.initial = found.clone();
        }
        Ok(())
    }
}

/// The training-step graph of a model: one that bcosc converted, or any other whose first floating-point output is one
/// vector per image. A model that ends in a softmax or a sigmoid is trained by its logits.
///
/// # Errors
/// [`Error::Train`] if an operator has no derivative, or nothing is trained.
pub fn training_step(
    source: impl Into<Source>,
    options: &TrainingOptions,
) -> Result<TrainingStep, Error> {
    let wanted: Vec<String> = options.output.iter().cloned().collect();
    let file = File::open(source.into())?;
    let (mut model, label) = checked(file, &options.input_shapes, &wanted)?;
    before_probabilities(&mut model);
    step_of(model, options, &label)
}

/// The training-step graph of a model in memory.
pub(crate) fn step_of(
    model: Model,
    options: &TrainingOptions,
    label: &str,
) -> Result<TrainingStep, Error> {
    let frozen = Frozen::new(&options.freeze)?;
    let metadata = Metadata::read(&model, label)?;
    let mut step = options.step.clone();
    let teacher = options.teacher.clone().map(teacher).transpose()?;
    let beside = teacher.as_ref().or(step.teacher.as_deref());
    let settings = settings_of([Some(&model), beside]);
    if let Some(teacher) = teacher {
        step.targets = Targets::Teacher;
        step.teacher = Some(Arc::new(teacher));
    }
    step.biases_removed |= metadata.is_some_and(|metadata| !metadata.biases_kept);
    let names = RefCell::new(BTreeSet::new());
    let group = |name: &str, role: Role| {
        names.borrow_mut().insert(name.to_owned());
        match (frozen.contains(name), role) {
            (true, _) => Group::Frozen,
            (false, Role::Norm) => Group::Trained {
                weight_decay: options.norm_weight_decay.unwrap_or(options.weight_decay),
            },
            (false, _) => Group::Trained {
                weight_decay: options.weight_decay,
            },
        }
    };
    let found = training::step(model, &step, &group, &context(&settings));
    let found = found.map_err(|source| fail(label, source))?;
    frozen.check(names.borrow().iter().map(String::as_str), label)?;
    Ok(found.into())
}

impl From<Step> for TrainingStep {
    fn from(step: Step) -> Self {
        let mut model = step.model;
        model.set_metadata(STATE, &pairs(&step.state));
        TrainingStep {
            model,
            forward: step.forward,
            parameters: step.parameters,
            biases: step.biases,
            state: step.state,
        }
    }
}

/// A teacher, with logits as its output.
fn teacher(source: Source) -> Result<Model, Error> {
    let (mut model, _) = checked(File::open(source)?, &[], &[])?;
    before_probabilities(&mut model);
    Ok(model)
}

/// Brings a model into the form whose constants have the names that training uses.
pub(crate) fn prepare(model: &mut Model, exponent: Exponent, label: &str) -> Result<(), Error> {
    let settings = settings(model);
    training::prepare(model, exponent, &context(&settings)).map_err(|source| fail(label, source))
}

/// Settings for models that come into one graph.
fn settings_of(models: [Option<&Model>; 2]) -> Settings {
    let opsets = models.into_iter().flatten().filter_map(|m| m.opset(""));
    Settings {
        opset: opsets.max().map(|opset| opset.max(OLDEST)),
        ..Settings::default()
    }
}

fn settings(model: &Model) -> Settings {
    Settings {
        // Derivative rules expect operators that take sizes as inputs.
        opset: model.opset("").filter(|&o| o < OLDEST).map(|_| OLDEST),
        ..Settings::default()
    }
}

fn context(settings: &Settings) -> Context<'_> {
    Context {
        settings,
        interpreter: default_interpreter(),
        calibration: None,
    }
}

fn fail(label: &str, source: PassError) -> Error {
    Error::Train {
        model: label.to_owned(),
        source: Box::new(PipelineError {
            pass: "training-step",
            source: Box::new(source),
        }),
    }
}

/// Input, output and kind of each state, as JSON.
fn pairs(state: &[State]) -> String {
    let rows: Vec<[&str; 3]> = state
        .iter()
        .map(|state| [&state.input, &state.output, state.kind.name()])
        .collect();
    serde_json::to_string(&rows).unwrap_or_default()
}

/// Patterns of names of frozen parameters.
pub(crate) struct Frozen(Vec<Pattern>);

impl Frozen {
    pub fn new(patterns: &[String]) -> Result<Self, Error> {
        let parsed = patterns.iter().map(|text| {
            let fail = |problem: &dyn fmt::Display| {
                Error::Options(format!("the pattern `{text}` is invalid: {problem}"))
            };
            Pattern::new(text).map_err(|error| fail(&error.msg))
        });
        Ok(Frozen(parsed.collect::<Result<_, _>>()?))
    }

    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(name))
    }

    /// Fails if a pattern matches none of the names.
    pub fn check<'n>(
        &self,
        names: impl Iterator<Item = &'n str>,
        label: &str,
    ) -> Result<(), Error> {
        let names: Vec<&str> = names.collect();
        let is_used = |pattern: &Pattern| names.iter().any(|name| pattern.matches(name));
        let unused = self.0.iter().find(|pattern| !is_used(pattern));
        match unused {
            None => Ok(()),
            Some(pattern) => Err(Error::Input {
                model: label.to_owned(),
                problem: format!(
                    "no parameter matches the pattern `{pattern}`; bcosc train-graph --dry-run lists those of a converted model"
                ),
            }),
        }
    }
}

/// The path of the training-step graph of a model: `net.train.onnx` for `net.onnx`.
pub fn step_path(model: &Path) -> PathBuf {
    model.with_extension("train.onnx")
}

/// The path of the state beside a training-step graph: `net.train.safetensors` for `net.train.onnx`.
pub fn state_path(step: &Path) -> PathBuf {
    step.with_extension("safetensors")
}
