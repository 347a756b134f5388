//! From gradients to the new state: what a step appends to the graph after the gradients.

use bcosc_ir::{Model, Operand, Patch, Tensor, Value};
use bcosc_passes::PassError;

use super::batch_norm::Statistic;
use super::inputs::{Inputs, apply_all};
use super::optimiser::{Update, moving};
use super::state::held;
use super::{Group, Parameter, Role, State, StateKind, StepOptions, clip};
use crate::build::Build;

/// The state of a step and its new values, as they are added.
pub(super) struct Updates<'a> {
    model: &'a mut Model,
    options: &'a StepOptions,
    inputs: &'a Inputs,
    states: Vec<State>,
    /// The new value of each state.
    new: Vec<Value>,
}

/// Inputs that hold something for each parameter.
struct Held {
    /// For each kind of state of the optimiser.
    moments: Vec<Vec<Operand>>,
    /// Sums of gradients, if several batches make an update.
    sums: Option<Vec<Operand>>,
    /// Moving averages, and their decay.
    averages: Option<(f64, Vec<Operand>)>,
}

/// Whether this run ends with an update; `None` if every run does.
#[derive(Clone, Copy)]
struct Due(Option<Operand>);

impl Due {
    /// A new value where an update is due, and the old one otherwise.
    fn choose(self, build: &mut Build<'_>, new: Operand, old: Operand) -> Operand {
        match self.0 {
            Some(due) => build.op("Where", &[due, new, old]),
            None => new,
        }
    }
}

impl<'a> Updates<'a> {
    /// Without any state yet.
    pub fn new(model: &'a mut Model, options: &'a StepOptions, inputs: &'a Inputs) -> Self {
        Updates {
            model,
            options,
            inputs,
            states: Vec::new(),
            new: Vec::new(),
        }
    }

    /// Adds what makes new running statistics.
    pub fn statistics(&mut self, statistics: &[Statistic]) -> Result<(), PassError> {
        let mut patch = Patch::at(self.inputs.step.node);
        let mut build = self.inputs.build(self.model, &mut patch);
        let keep = 1.0 - self.options.norm_momentum;
        let mut new = Vec::new();
        for statistic in statistics {
            let (running, batch) = (statistic.running.into(), statistic.batch.into());
            new.push(moving(&mut build, running, batch, keep));
            self.states.push(State::new(
                self.model.graph.value_name(statistic.running),
                StateKind::Statistic,
                statistic.initial.clone(),
            ));
        }
        self.new.extend(apply_all(self.model, patch, &new)?);
        Ok(())
    }

    /// Adds what makes new parameters of gradients, and the state that this takes.
    pub fn parameters(
        &mut self,
        parameters: &[Parameter],
        gradients: &[Value],
        group: &dyn Fn(&str, Role) -> Group,
    ) -> Result<(), PassError> {
        let held = self.hold(parameters)?;
        let mut patch = Patch::at(self.inputs.step.node);
        let build = &mut self.inputs.build(self.model, &mut patch);
        let gradients: Vec<Operand> = gradients.iter().map(|&gradient| gradient.into()).collect();
        let (sums, step, due) = self.accumulated(build, gradients, held.sums.as_deref());
        let clipped = match self.options.clip {
            Some(clip) => clip::clip(build, clip, parameters, &sums),
            None => sums.clone(),
        };
        let update = Update::new(build, self.options.optimiser, self.inputs.rate, step);
        let (mut moved, mut moments) = (Vec::new(), vec![Vec::new(); held.moments.len()]);
        for (index, (parameter, &gradient)) in parameters.iter().zip(&clipped).enumerate() {
            let weight_decay = match group(&parameter.name, parameter.role) {
                Group::Trained { weight_decay } => weight_decay,
                Group::Frozen => 0.0,
            };
            let old: Vec<Operand> = held.moments.iter().map(|of_kind| of_kind[index]).collect();
            let own = parameter.value.into();
            let (next, next_moments) = update.of(build, own, gradient, &old, weight_decay);
            moved.push(due.choose(build, next, own));
            for (kind, (next, old)) in next_moments.into_iter().zip(old).enumerate() {
                moments[kind].push(due.choose(build, next, old));
            }
        }
        let mut new = moved.clone();
        new.extend(moments.into_iter().flatten());
        if held.sums.is_some() {
            let zero = build.number(0.0);
            new.extend(sums.iter().map(|&sum| due.choose(build, zero, sum)));
        }
        if let Some((keep, averages)) = held.averages {
            for (old, parameter) in averages.into_iter().zip(moved) {
                let average = moving(build, old, parameter, keep);
                new.push(due.choose(build, average, old));
            }
        }
        self.new.extend(apply_all(self.model, patch, &new)?);
        Ok(())
    }

    /// Makes the parameters inputs, and adds inputs for what is kept of each.
    fn hold(&mut self, parameters: &[Parameter]) -> Result<Held, PassError> {
        for parameter in parameters {
            let initial = self.model.graph.promote(parameter.value)?;
            let state = State::new(&parameter.name, StateKind::Parameter, initial);
            self.states.push(state);
        }
        let (graph, states) = (&mut self.model.graph, &mut self.states);
        let mut hold = |kind, suffix: &str| held(graph, parameters, kind, suffix, states);
        let kinds = self.options.optimiser.state();
        let moments = kinds.iter().map(|kind| hold(StateKind::Optimiser, kind));
        let moments = moments.collect();
        let accumulates = self.options.accumulate > 1;
        let sums = accumulates.then(|| hold(StateKind::Optimiser, "grad"));
        let averages = self.options.average;
        let averages = averages.map(|keep| (keep, hold(StateKind::Average, "ema")));
        Ok(Held {
            moments,
            sums,
            averages,
        })
    }

    /// The gradients with those of earlier runs, the number of this update, and whether it is due.
    fn accumulated(
        &self,
        build: &mut Build<'_>,
        mut gradients: Vec<Operand>,
        sums: Option<&[Operand]>,
    ) -> (Vec<Operand>, Operand, Due) {
        let step = self.inputs.step.into();
        let Some(sums) = sums else {
            return (gradients, step, Due(None));
        };
        let [count, zero, one] = [i64::from(self.options.accumulate), 0, 1]
            .map(|x| build.patch.parameter("count", Tensor::i64s(&[], vec![x])));
        let rest = build.op("Mod", &[step, count]);
        let due = build.op("Equal", &[rest, zero]);
        // Before the first update the result is not used, but must be finite.
        let updates = build.op("Div", &[step, count]);
        let updates = build.op("Max", &[updates, one]);
        let share = 1.0 / f64::from(self.options.accumulate);
        for (gradient, &sum) in gradients.iter_mut().zip(sums) {
            let part = build.times(*gradient, share);
            *gradient = build.add(sum, part);
        }
        (gradients, updates, Due(Some(due)))
    }

    /// Makes some values and the new state the outputs of the graph; returns the state.
    pub fn finish(self, first: &[(Value, &str)]) -> Vec<State> {
        let graph = &mut self.model.graph;
        let first = first.iter().map(|&(value, name)| (value, name.to_owned()));
        let mut outputs: Vec<(Value, String)> = first.collect();
        for (new, state) in self.new.into_iter().zip(&self.states) {
            graph.set_value_type(new, state.initial.tensor_type());
            outputs.push((new, state.output.clone()));
        }
        graph.set_outputs(&outputs);
        self.states
    }
}
