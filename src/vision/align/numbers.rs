//! The numbers that a step of a phase is given: learning rate, B, and the factor of biases.

use super::budget::TIMED;
use super::options::AlignOptions;
use super::phases::Phase;
use crate::training::Schedule;
use crate::{Numbers, Ramp};

/// Those of a step, counted from 0, of a phase whose model has B at its end.
pub(super) fn numbers(
    options: &AlignOptions,
    phase: &Phase,
    schedule: &Schedule,
    b: f64,
    step: u64,
) -> Numbers {
    Numbers {
        rate: schedule.rate(step),
        b: grown(options, phase, schedule.steps, b, step),
        bias_scale: bias_scale(options, phase, schedule.steps, step),
    }
}

/// B, where it grows.
fn grown(options: &AlignOptions, phase: &Phase, steps: u64, to: f64, step: u64) -> Option<f64> {
    let growth = options.growth.filter(|_| phase.grows())?;
    // Until a budget has set the steps, B waits.
    let waits = options.budget.map_or(0, |_| TIMED);
    let ramp = Ramp {
        from: growth.from,
        to,
        steps: steps.saturating_sub(waits),
    };
    Some(ramp.at(step.saturating_sub(waits)))
}

/// The factor of biases, where they decay.
fn bias_scale(options: &AlignOptions, phase: &Phase, steps: u64, step: u64) -> Option<f64> {
    let decay = options.bias_decay.filter(|_| phase.decays(options))?;
    let ramp = Ramp {
        from: 1.0,
        to: 0.0,
        steps: decay.min(steps),
    };
    Some(ramp.at(step))
}
