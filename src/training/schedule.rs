//! The learning rate over the steps of a training run.

use std::f64::consts::PI;

/// How the learning rate changes after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Shape {
    /// Half a cosine wave, down to 0
    #[default]
    Cosine,
    /// A straight line, down to 0
    Linear,
    /// The same rate throughout
    Constant,
}

/// The learning rate of each step: it rises linearly over the warm-up, and then falls.
///
/// ```text
/// rate * (i + 1) / warmup                              for step i < warmup
/// rate * (1 + cos (pi (i - warmup) / (steps - warmup))) / 2    after it, with Shape::Cosine
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The largest rate.
    pub rate: f64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Steps in all.
    pub steps: u64,
    /// What follows the warm-up.
    pub shape: Shape,
}

impl Schedule {
    /// The rate of a step, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.rate * (step + 1) as f64 / self.warmup as f64;
        }
        let length = self.steps.saturating_sub(self.warmup).max(1);
        let done = (step - self.warmup).min(length) as f64 / length as f64;
        self.rate
            * match self.shape {
                Shape::Cosine => (1.0 + (PI * done).cos()) / 2.0,
                Shape::Linear => 1.0 - done,
                Shape::Constant => 1.0,
            }
    }
}

/// A number that changes in a straight line, and then no more: B, or the factor of biases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramp {
    /// Its value at the first step.
    pub from: f64,
    /// Its value after it has changed.
    pub to: f64,
    /// Steps that it takes.
    pub steps: u64,
}

impl Ramp {
    /// Its value at a step, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        let done = step.min(self.steps) as f64 / self.steps.max(1) as f64;
        self.from + (self.to - self.from) * done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(warmup: u64, shape: Shape) -> Schedule {
        Schedule {
            rate: 0.1,
            warmup,
            steps: 100,
            shape,
        }
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} and {b}");
    }

    /// The numbers are those of `torch.optim.lr_scheduler.CosineAnnealingLR(T_max=100)`.
    #[test]
    fn a_cosine_falls_as_in_pytorch() {
        let schedule = schedule(0, Shape::Cosine);
        for (step, rate) in [
            (0, 0.1),
            (25, 0.085_355_339_059_327_38),
            (50, 0.05),
            (99, 2.467_198_171_342e-5),
        ] {
            close(schedule.rate(step), rate);
        }
    }

    #[test]
    fn warm_up_rises_to_the_rate() {
        for shape in [Shape::Cosine, Shape::Linear, Shape::Constant] {
            let schedule = schedule(10, shape);
            close(schedule.rate(0), 0.01);
            close(schedule.rate(9), 0.1);
            close(schedule.rate(10), 0.1);
        }
        close(schedule(10, Shape::Linear).rate(55), 0.05);
        close(schedule(10, Shape::Constant).rate(99), 0.1);
    }

    #[test]
    fn a_ramp_ends() {
        let ramp = Ramp {
            from: 1.0,
            to: 2.0,
            steps: 4,
        };
        let found = [0, 1, 4, 9].map(|step| ramp.at(step));
        assert_eq!(found, [1.0, 1.25, 2.0, 2.0]);
    }

    #[test]
    fn steps_after_the_last_have_a_rate() {
        close(schedule(0, Shape::Cosine).rate(1000), 0.0);
        close(schedule(200, Shape::Linear).rate(1000), 0.0);
    }
}
