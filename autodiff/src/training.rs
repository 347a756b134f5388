//! The training-step graph: one step of training as a graph of standard operators.
//!
//! ```text
//! (images, targets, learning_rate, step, parameters, optimiser state, running statistics)
//!     -> (loss, logits, new parameters, new optimiser state, new running statistics)
//! ```
//!
//! | input | type | content |
//! |---|---|---|
//! | the model's | | the images, as the model takes them |
//! | `targets` | int64 `[N]` or floating point `[N, K]` | see [`Targets`]; none with [`Targets::Teacher`] |
//! | `teacher_images` | | with a teacher: the same images, as the teacher takes them |
//! | `learning_rate` | float, a scalar | the rate of this step |
//! | `step` | int64, a scalar | counts runs from 1 |
//! | `bias_scale` | float, a scalar | with [`StepOptions::scale_biases`]: factor of all biases |
//! | `b` | float, a scalar | with [`Exponent::Input`]: B of all layers |
//!
//! Every other input is state. The output `NAME.next` is its new value, to be given to the next run; [`State`] says
//! what it is at the start. Batch norms use the statistics of the batch. Nothing is detached.

pub(crate) mod batch_norm;
mod bias_scale;
mod clip;
mod exponent;
mod loss;
mod optimiser;
mod parameters;
mod teacher;
mod untie;

use std::collections::BTreeSet;
use std::sync::Arc;

use bcosc_ir::{DataType, Graph, Model, NodeId, Operand, Patch, Tensor, TensorType, Value};
use bcosc_passes::canonical::{FOLD_CONSTANTS, REMOVE_DEAD, SIMPLIFY, cse};
use bcosc_passes::{Context, PassError, Reason, recipe};

pub use bias_scale::BIAS_SCALE;
pub use clip::Clip;
pub use exponent::{EXPONENT, Exponent};
pub use loss::{Loss, Targets};
pub use optimiser::{Adam, Optimiser};
pub use parameters::{Parameter, Role};

use crate::build::Build;
use crate::derivative::gradients;
use crate::explanation::image;
use crate::lower::lower;
use crate::scores::scores;
use crate::sizes;
use batch_norm::Statistic;
use loss::Compared;
use optimiser::{Update, moving};

/// The input with the targets.
pub const TARGETS: &str = "targets";
/// The input with images for the teacher, in its format.
pub const TEACHER_IMAGES: &str = "teacher_images";
/// The input with the learning rate.
pub const LEARNING_RATE: &str = "learning_rate";
/// The input that counts steps from 1.
pub const STEP: &str = "step";
/// The output with the mean loss of the batch.
pub const LOSS: &str = "loss";
/// The output with the logits `[N, K]`.
pub const LOGITS: &str = "logits";

/// How a parameter is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Group {
    /// Not at all.
    Frozen,
    /// With this weight decay.
    Trained {
        /// Decay of the parameter, as a share of the learning rate for AdamW.
        weight_decay: f64,
    },
}

/// Options of a training step.
#[derive(Clone, Debug)]
pub struct StepOptions {
    /// The function that is minimised.
    pub loss: Loss,
    /// What outputs are compared with.
    pub targets: Targets,
    /// A model that outputs are compared with, for [`Targets::Teacher`]. It is not trained.
    pub teacher: Option<Arc<Model>>,
    /// What decides on B.
    pub exponent: Exponent,
    /// The optimiser.
    pub optimiser: Optimiser,
    /// How gradients are clipped.
    pub clip: Option<Clip>,
    /// The share of the batch's statistics in the new running statistics of norms.
    pub norm_momentum: f64,
    /// Batches per update: gradients are averaged over so many runs.
    pub accumulate: u32,
    /// Decay of a moving average of the parameters, where one is kept.
    pub average: Option<f64>,
    /// Whether all biases are multiplied by the input `bias_scale`, so that they can decay away.
    pub scale_biases: bool,
    /// Whether the model has had its biases removed, so that zero biases of norms stay zero.
    pub biases_removed: bool,
    /// Whether gradients of convolutions stay operators of the domain `bcosc`, for engines with kernels of their own.
    pub whole_gradients: bool,
}

impl Default for StepOptions {
    fn default() -> Self {
        StepOptions {
            loss: Loss::default(),
            targets: Targets::default(),
            teacher: None,
            exponent: Exponent::default(),
            optimiser: Optimiser::default(),
            clip: None,
            norm_momentum: 0.1,
            accumulate: 1,
            average: None,
            scale_biases: false,
            biases_removed: false,
            whole_gradients: false,
        }
    }
}

/// A training step.
#[derive(Clone, Debug)]
pub struct Step {
    /// The graph of the step.
    pub model: Model,
    /// The model that is trained, in the form whose constants the state replaces by name.
    pub forward: Model,
    /// What is trained, in the order of the graph.
    pub parameters: Vec<Parameter>,
    /// Names of the constants that the input `bias_scale` multiplies.
    pub biases: Vec<String>,
    /// Inputs and outputs that belong together, in the order of the graph's inputs.
    pub state: Vec<State>,
}

/// An input whose new value is an output.
#[derive(Clone, Debug)]
pub struct State {
    /// The input.
    pub input: String,
    /// The output.
    pub output: String,
    /// What it is.
    pub kind: StateKind,
    /// Its value before the first step.
    pub initial: Tensor,
}

impl State {
    fn new(input: &str, kind: StateKind, initial: Tensor) -> Self {
        State {
            input: input.to_owned(),
            output: format!("{input}.next"),
            kind,
            initial,
        }
    }
}

/// What a state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateKind {
    /// A parameter of the model.
    Parameter,
    /// A running statistic of a norm of the model.
    Statistic,
    /// State of the optimiser, accumulated gradients among it.
    Optimiser,
    /// A moving average of a parameter.
    Average,
}

impl StateKind {
    const ALL: [StateKind; 4] = [
        StateKind::Parameter,
        StateKind::Statistic,
        StateKind::Optimiser,
        StateKind::Average,
    ];

    /// Its name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            StateKind::Parameter => "parameter",
            StateKind::Statistic => "statistic",
            StateKind::Optimiser => "optimiser",
            StateKind::Average => "average",
        }
    }

    /// The kind of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Brings a model into the form that is trained: canonical, with statistics and scales of its own for every norm, and where it
/// is learned with a B of its own for every B-cos layer.
///
/// # Errors
/// If a pass fails, or B is to be learned and there are no B-cos layers.
pub fn prepare(model: &mut Model, exponent: Exponent, cx: &Context<'_>) -> Result<(), PassError> {
    prepared(model, exponent, cx)?;
    Ok(())
}

/// As [`prepare`]; returns the constants B - 1 that are learned.
fn prepared(
    model: &mut Model,
    exponent: Exponent,
    cx: &Context<'_>,
) -> Result<Vec<Value>, PassError> {
    canonical(model, cx)?;
    untie::norms(model)?;
    match exponent {
        Exponent::Learned => exponent::learn(model),
        Exponent::Fixed | Exponent::Input => Ok(Vec::new()),
    }
}

fn canonical(model: &mut Model, cx: &Context<'_>) -> Result<(), PassError> {
    sizes::widen(model)?;
    for pass in recipe::CANONICAL {
        (pass.run)(model, cx)?;
    }
    Ok(())
}

/// The training step of a model whose first floating-point output is one vector per image.
/// `group` says how each parameter is trained, by its name and role.
///
/// # Errors
/// If the output is something else, an operator on the way has no derivative, nothing is trained, or a teacher is missing
/// or has another number of outputs.
pub fn step(
    mut model: Model,
    options: &StepOptions,
    group: &dyn Fn(&str, Role) -> Group,
    cx: &Context<'_>,
) -> Result<Step, PassError> {
    if options.loss.needs_teacher() && options.targets != Targets::Teacher {
        return Err(PassError::Model(Reason::NoTeacher));
    }
    let exponents = prepared(&mut model, options.exponent, cx)?;
    let forward = model.clone();
    let image = image_of(&mut model, cx)?;
    if options.exponent == Exponent::Input {
        exponent::take(&mut model)?;
        cx.infer(&mut model)?;
    }
    let (logits, classes) = scores(&mut model)?;
    let mut parameters =
        parameters::parameters(&model.graph, image, options.biases_removed, &exponents);
    parameters.retain(|p| group(&p.name, p.role) != Group::Frozen);
    let biases = match options.scale_biases {
        true => bias_scale::take(&mut model)?,
        false => Vec::new(),
    };

    let student: Vec<NodeId> = model.graph.ops();
    let inputs = Inputs::add(&mut model, options, logits, classes);
    let with = match (inputs.targets, &options.teacher) {
        (Some(targets), _) => targets,
        (None, Some(teacher)) => teacher::add(&mut model, teacher, image, classes, cx)?,
        (None, None) => return Err(PassError::Model(Reason::NoTeacher)),
    };
    let compared = Compared {
        logits,
        classes,
        targets: options.targets,
        with,
    };
    let (loss, one) = add_loss(&mut model, options, &inputs, &compared)?;
    cx.infer(&mut model)?;
    let statistics = batch_norm::train(&mut model, &student)?;
    let logits = replaced(&model.graph, logits);
    let kept: BTreeSet<NodeId> = model.graph.nodes().into_iter().collect();

    let wrt: Vec<Value> = parameters.iter().map(|p| p.value).collect();
    let found = gradients(&mut model, &[(loss, one)], &wrt)?;
    let mut steep = Vec::new();
    let mut gradient = found.iter();
    parameters.retain(|_| {
        let found = gradient.next().copied().flatten();
        steep.extend(found);
        found.is_some()
    });
    if parameters.is_empty() {
        return Err(PassError::Model(Reason::NothingTrained));
    }

    let mut states = Vec::new();
    let mut new = add_statistics(
        &mut model,
        &inputs,
        options.norm_momentum,
        &statistics,
        &mut states,
    )?;
    let updated = add_update(
        &mut model,
        options,
        group,
        &inputs,
        &parameters,
        &steep,
        &mut states,
    )?;
    new.extend(updated);
    let mut outputs = vec![(loss, LOSS.to_owned()), (logits, LOGITS.to_owned())];
    for (new, state) in new.into_iter().zip(&states) {
        model.graph.set_value_type(new, state.initial.tensor_type());
        outputs.push((new, state.output.clone()));
    }
    model.graph.set_outputs(&outputs);
    batch_norm::lower(&mut model)?;
    if !options.whole_gradients {
        lower(&mut model)?;
    }
    model.graph.remove_dead();
    for pass in [&FOLD_CONSTANTS, &SIMPLIFY, &REMOVE_DEAD] {
        (pass.run)(&mut model, cx)?;
    }
    cse::share(&mut model, &kept, inputs.step.node)?;
    Ok(Step {
        model,
        forward,
        parameters,
        biases,
        state: states,
    })
}

/// The input with images, after types are inferred.
fn image_of(model: &mut Model, cx: &Context<'_>) -> Result<Value, PassError> {
    cx.infer(model)?;
    image(&model.graph)
}

/// The inputs that are no state.
struct Inputs {
    targets: Option<Value>,
    rate: Value,
    step: Value,
    dtype: DataType,
}

impl Inputs {
    fn add(model: &mut Model, options: &StepOptions, logits: Value, classes: u64) -> Self {
        let found = model.graph.value_type(logits);
        let dtype = found.map_or(DataType::Float, |found| found.dtype);
        let graph = &mut model.graph;
        Inputs {
            targets: options.targets.input(graph, logits, classes),
            rate: graph.add_input(LEARNING_RATE, TensorType::fixed(dtype, &[])),
            step: graph.add_input(STEP, TensorType::fixed(DataType::Int64, &[])),
            dtype,
        }
    }

    fn build<'p>(&self, model: &Model, patch: &'p mut Patch) -> Build<'p> {
        Build {
            patch,
            opset: model.opset("").unwrap_or(0),
            dtype: self.dtype,
        }
    }
}

/// The value that took the place of one whose node is gone: that of the first output.
fn replaced(graph: &Graph, value: Value) -> Value {
    match graph.contains(value.node) {
        true => value,
        false => graph.outputs().first().map_or(value, |output| output.value),
    }
}

/// Adds the loss, and the number 1 as its cotangent.
fn add_loss(
    model: &mut Model,
    options: &StepOptions,
    inputs: &Inputs,
    compared: &Compared,
) -> Result<(Value, Value), PassError> {
    let mut patch = Patch::at(compared.with.node);
    let mut build = inputs.build(model, &mut patch);
    let loss = loss::loss(&mut build, options.loss, compared);
    let one = build.number(1.0);
    let placed = apply(model, patch, vec![loss, one])?;
    Ok((placed[0], placed[1]))
}

/// Adds what makes new parameters of gradients; returns the new values, one for each state.
fn add_update(
    model: &mut Model,
    options: &StepOptions,
    group: &dyn Fn(&str, Role) -> Group,
    inputs: &Inputs,
    parameters: &[Parameter],
    gradients: &[Value],
    states: &mut Vec<State>,
) -> Result<Vec<Value>, PassError> {
    for parameter in parameters {
        let initial = model.graph.promote(parameter.value)?;
        states.push(State::new(&parameter.name, StateKind::Parameter, initial));
    }
    let kinds = options.optimiser.state();
    let mut held = |kind, suffix: &str| held(&mut model.graph, parameters, kind, suffix, states);
    let moments: Vec<Vec<Operand>> = kinds
        .iter()
        .map(|suffix| held(StateKind::Optimiser, suffix))
        .collect();
    let accumulates = options.accumulate > 1;
    let sums = accumulates.then(|| held(StateKind::Optimiser, "grad"));
    let averages = options
        .average
        .map(|keep| (keep, held(StateKind::Average, "ema")));

    let mut patch = Patch::at(inputs.step.node);
    let mut build = inputs.build(model, &mut patch);
    let mut steep: Vec<Operand> = gradients.iter().map(|&gradient| gradient.into()).collect();
    let mut step: Operand = inputs.step.into();
    let mut due = None;
    if let Some(sums) = &sums {
        let [count, zero, one] = [i64::from(options.accumulate), 0, 1]
            .map(|x| build.patch.parameter("count", Tensor::i64s(&[], vec![x])));
        let rest = build.op("Mod", &[step, count]);
        due = Some(build.op("Equal", &[rest, zero]));
        // Before the first update the result is not used, but must be finite.
        step = build.op("Div", &[step, count]);
        step = build.op("Max", &[step, one]);
        let share = 1.0 / f64::from(options.accumulate);
        for (gradient, &sum) in steep.iter_mut().zip(sums) {
            let part = build.times(*gradient, share);
            *gradient = build.add(sum, part);
        }
    }
    let when_due = |build: &mut Build<'_>, new: Operand, old: Operand| match due {
        Some(due) => build.op("Where", &[due, new, old]),
        None => new,
    };
    let total = steep.clone();
    if let Some(clip) = options.clip {
        steep = clip::clip(&mut build, clip, parameters, &steep);
    }
    let update = Update::new(&mut build, options.optimiser, inputs.rate, step);
    let (mut new, mut new_moments) = (Vec::new(), vec![Vec::new(); kinds.len()]);
    for (index, (parameter, &gradient)) in parameters.iter().zip(&steep).enumerate() {
        let weight_decay = match group(&parameter.name, parameter.role) {
            Group::Trained { weight_decay } => weight_decay,
            Group::Frozen => 0.0,
        };
        let old: Vec<Operand> = moments.iter().map(|moments| moments[index]).collect();
        let own = parameter.value.into();
        let (moved, moments) = update.of(&mut build, own, gradient, &old, weight_decay);
        new.push(when_due(&mut build, moved, own));
        for (kind, (moment, old)) in moments.into_iter().zip(old).enumerate() {
            new_moments[kind].push(when_due(&mut build, moment, old));
        }
    }
    let moved = new.clone();
    new.extend(new_moments.into_iter().flatten());
    if accumulates {
        let zero = build.number(0.0);
        for &sum in &total {
            new.push(when_due(&mut build, zero, sum));
        }
    }
    if let Some((keep, averages)) = averages {
        for (old, parameter) in averages.into_iter().zip(moved) {
            let average = moving(&mut build, old, parameter, keep);
            new.push(when_due(&mut build, average, old));
        }
    }
    apply(model, patch, new)
}

/// Adds an input for each parameter that holds something of its shape.
fn held(
    graph: &mut Graph,
    parameters: &[Parameter],
    kind: StateKind,
    suffix: &str,
    states: &mut Vec<State>,
) -> Vec<Operand> {
    let mut values = Vec::new();
    for parameter in parameters {
        let name = format!("{}.{suffix}", parameter.name);
        let value = graph.add_input(&name, parameter.tensor.tensor_type());
        let initial = match kind {
            StateKind::Average => parameter.tensor.clone(),
            _ => zeros(&parameter.tensor),
        };
        states.push(State::new(graph.value_name(value), kind, initial));
        values.push(value.into());
    }
    values
}

/// Adds what makes new running statistics; returns the new values, one for each state.
fn add_statistics(
    model: &mut Model,
    inputs: &Inputs,
    momentum: f64,
    statistics: &[Statistic],
    states: &mut Vec<State>,
) -> Result<Vec<Value>, PassError> {
    let mut patch = Patch::at(inputs.step.node);
    let mut build = inputs.build(model, &mut patch);
    let mut new = Vec::new();
    for statistic in statistics {
        let (running, batch) = (statistic.running.into(), statistic.batch.into());
        new.push(moving(&mut build, running, batch, 1.0 - momentum));
        states.push(State::new(
            model.graph.value_name(statistic.running),
            StateKind::Statistic,
            statistic.initial.clone(),
        ));
    }
    apply(model, patch, new)
}

/// Applies a patch; returns the values that some of its operands became.
fn apply(model: &mut Model, mut patch: Patch, kept: Vec<Operand>) -> Result<Vec<Value>, PassError> {
    for operand in &kept {
        patch.keep(*operand);
    }
    let added = model.graph.apply(patch)?;
    kept.into_iter()
        .map(|operand| {
            let malformed = PassError::Model(Reason::Malformed);
            operand.applied(&added).ok_or(malformed)
        })
        .collect()
}

/// Zeros of the type of a tensor.
fn zeros(like: &Tensor) -> Tensor {
    let bytes = vec![0; usize::try_from(like.byte_len()).unwrap_or(0)];
    Tensor::from_bytes(like.dtype(), &like.dims(), bytes.into())
}
