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
//! | `b` | float, a scalar | with [`Exponent::Input`]: B of the model |
//!
//! Every other input is state. The output `NAME.next` is its new value, to be given to the next run; [`State`] says
//! what it is at the start. Batch norms use the statistics of the batch. Nothing is detached.

mod alignment;
pub(crate) mod batch_norm;
mod bias_scale;
mod clip;
mod cut;
mod exponent;
mod inputs;
mod loss;
mod optimiser;
mod parameters;
mod segments;
mod state;
mod teacher;
mod untie;
mod update;

use std::collections::BTreeSet;
use std::sync::Arc;

use bcosc_ir::{Graph, Model, NodeId, Patch, Value};
use bcosc_passes::canonical::{FOLD_CONSTANTS, REMOVE_DEAD, SIMPLIFY, cse};
use bcosc_passes::{Context, PassError, Reason, recipe};

pub use alignment::{Alignment, ERRORS, Reference, Tap, alignment_step, feature_name, target_name};
pub use batch_norm::NormStatistics;
pub use bias_scale::BIAS_SCALE;
pub use clip::Clip;
pub use cut::{Cuttable, Part, Read};
pub use exponent::{EXPONENT, Exponent};
pub use loss::{Loss, Targets};
pub use optimiser::{Adam, Optimiser};
pub use parameters::{Parameter, Role};
pub use segments::{Segment, segments};
pub use state::{State, StateKind};

use crate::derivative::gradients;
use crate::explanation::image;
use crate::lower::lower;
use crate::scores::scores;
use crate::sizes;
use batch_norm::Statistic;
use inputs::{Inputs, apply};
use loss::Compared;
use update::Updates;

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
    /// What norms divide by.
    pub norm_statistics: NormStatistics,
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
            norm_statistics: NormStatistics::default(),
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
    model: Model,
    options: &StepOptions,
    group: &dyn Fn(&str, Role) -> Group,
    cx: &Context<'_>,
) -> Result<Step, PassError> {
    if options.loss.needs_teacher() && options.targets != Targets::Teacher {
        return Err(PassError::Model(Reason::NoTeacher));
    }
    let mut student = Student::of(model, options, group, cx)?;
    let (logits, classes) = scores(&mut student.model)?;
    let targets = options
        .targets
        .input(&mut student.model.graph, logits, classes);
    let inputs = Inputs::add(&mut student.model, logits);
    let compared = student.compared(options, targets, logits, classes, cx)?;
    let objective = student.add_loss(options, &inputs, &compared, cx)?;
    student.finish(&objective, &inputs, options, group, cx)
}

/// The model that is trained, with what a step needs to know about it.
struct Student {
    /// The step that is being built; at first the model.
    model: Model,
    /// The model without what a step changes.
    forward: Model,
    /// Its own operators.
    own: Vec<NodeId>,
    /// The input with images.
    image: Value,
    parameters: Vec<Parameter>,
    biases: Vec<String>,
}

/// What is minimised.
struct Objective {
    loss: Value,
    /// The number 1, the cotangent of the loss.
    one: Value,
    statistics: Vec<Statistic>,
    /// What is output beside the state, with its name.
    outputs: [(Value, &'static str); 2],
}

impl Student {
    /// Prepares the model, and finds what is trained.
    fn of(
        mut model: Model,
        options: &StepOptions,
        group: &dyn Fn(&str, Role) -> Group,
        cx: &Context<'_>,
    ) -> Result<Self, PassError> {
        let exponents = prepared(&mut model, options.exponent, cx)?;
        let forward = model.clone();
        cx.infer(&mut model)?;
        let image = image(&model.graph)?;
        if options.exponent == Exponent::Input {
            exponent::take(&mut model)?;
            cx.infer(&mut model)?;
        }
        let mut parameters =
            parameters::parameters(&model.graph, image, options.biases_removed, &exponents);
        parameters.retain(|p| group(&p.name, p.role) != Group::Frozen);
        let biases = match options.scale_biases {
            true => bias_scale::take(&mut model)?,
            false => Vec::new(),
        };
        Ok(Student {
            own: model.graph.ops(),
            model,
            forward,
            image,
            parameters,
            biases,
        })
    }

    /// Chooses what logits are compared with: the targets, or the outputs of a teacher, which is added to the graph.
    fn compared(
        &mut self,
        options: &StepOptions,
        targets: Option<Value>,
        logits: Value,
        classes: u64,
        cx: &Context<'_>,
    ) -> Result<Compared, PassError> {
        let model = &mut self.model;
        let with = match (targets, &options.teacher) {
            (Some(targets), _) => targets,
            (None, Some(teacher)) => teacher::add(model, teacher, self.image, classes, cx)?,
            (None, None) => return Err(PassError::Model(Reason::NoTeacher)),
        };
        Ok(Compared {
            logits,
            classes,
            targets: options.targets,
            with,
        })
    }

    /// Adds the loss, and puts the norms of the student into training mode.
    fn add_loss(
        &mut self,
        options: &StepOptions,
        inputs: &Inputs,
        compared: &Compared,
        cx: &Context<'_>,
    ) -> Result<Objective, PassError> {
        let model = &mut self.model;
        let mut patch = Patch::at(compared.with.node);
        let mut build = inputs.build(model, &mut patch);
        let loss = loss::loss(&mut build, options.loss, compared);
        let one = build.number(1.0);
        let [loss, one] = apply(model, patch, [loss, one])?;
        cx.infer(model)?;
        let statistics = batch_norm::train(model, &self.own, options.norm_statistics, cx)?;
        let logits = replaced(&model.graph, compared.logits);
        Ok(Objective {
            loss,
            one,
            statistics,
            outputs: [(loss, LOSS), (logits, LOGITS)],
        })
    }

    /// From the loss to the whole step, in standard operators.
    fn finish(
        mut self,
        objective: &Objective,
        inputs: &Inputs,
        options: &StepOptions,
        group: &dyn Fn(&str, Role) -> Group,
        cx: &Context<'_>,
    ) -> Result<Step, PassError> {
        let forward_nodes: BTreeSet<NodeId> = self.model.graph.nodes().into_iter().collect();
        let gradients = self.differentiate(objective)?;
        let model = &mut self.model;
        let mut updates = Updates::new(model, options, inputs);
        updates.statistics(&objective.statistics)?;
        updates.parameters(&self.parameters, &gradients, group)?;
        let state = updates.finish(&objective.outputs);
        lowered(model, options, cx)?;
        cse::share(model, &forward_nodes, inputs.step.node)?;
        Ok(Step {
            model: self.model,
            forward: self.forward,
            parameters: self.parameters,
            biases: self.biases,
            state,
        })
    }

    /// Adds the gradients of the parameters. Those that the loss does not depend on are no parameters.
    fn differentiate(&mut self, objective: &Objective) -> Result<Vec<Value>, PassError> {
        let wrt: Vec<Value> = self.parameters.iter().map(|p| p.value).collect();
        let seed = (objective.loss, objective.one);
        let found = gradients(&mut self.model, &[seed], &wrt)?;
        let mut depends = found.iter().map(Option::is_some);
        self.parameters.retain(|_| depends.next() == Some(true));
        if self.parameters.is_empty() {
            return Err(PassError::Model(Reason::NothingTrained));
        }
        Ok(found.into_iter().flatten().collect())
    }
}

/// The value that took the place of one whose node is gone: that of the first output.
fn replaced(graph: &Graph, value: Value) -> Value {
    match graph.contains(value.node) {
        true => value,
        false => graph.outputs().first().map_or(value, |output| output.value),
    }
}

/// Writes markers as standard operators, and simplifies.
fn lowered(model: &mut Model, options: &StepOptions, cx: &Context<'_>) -> Result<(), PassError> {
    batch_norm::lower(model)?;
    if !options.whole_gradients {
        lower(model)?;
    }
    model.graph.remove_dead();
    for pass in [&FOLD_CONSTANTS, &SIMPLIFY, &REMOVE_DEAD] {
        (pass.run)(model, cx)?;
    }
    Ok(())
}
