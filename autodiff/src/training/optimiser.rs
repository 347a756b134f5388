//! Optimisers, as operators on parameters, gradients and state. The formulas are PyTorch's.

use bcosc_ir::{DataType, Operand, Value};

use crate::build::Build;

/// An optimiser and its constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Optimiser {
    /// Adam with decoupled weight decay (`torch.optim.AdamW`).
    AdamW(Adam),
    /// Adam; weight decay is added to the gradient (`torch.optim.Adam`).
    Adam(Adam),
    /// Stochastic gradient descent (`torch.optim.SGD`); weight decay is added to the gradient.
    Sgd {
        /// The share of the last direction that is kept.
        momentum: f64,
        /// Whether momentum looks ahead.
        nesterov: bool,
    },
}

/// Constants of Adam.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Decay of the mean of gradients and of the mean of their squares.
    pub betas: [f64; 2],
    /// Added to the root of the mean square.
    pub eps: f64,
    /// Makes steps relative: the change that gradients make is multiplied by the root mean square of the tensor, or by this number
    /// if it is larger; weight decay is not. Adafactor does it like this (Shazeer and Stern, 2018, section 8). Tensors of different sizes, such as weights
    /// that norms were folded into, learn at the same pace then.
    pub relative: Option<f64>,
}

impl Default for Adam {
    fn default() -> Self {
        Adam {
            betas: [0.9, 0.999],
            eps: 1e-8,
            relative: None,
        }
    }
}

impl Default for Optimiser {
    fn default() -> Self {
        Optimiser::AdamW(Adam::default())
    }
}

impl Optimiser {
    /// The names that PyTorch has for the state of each parameter.
    pub fn state(&self) -> &'static [&'static str] {
        match self {
            Optimiser::AdamW(_) | Optimiser::Adam(_) => &["exp_avg", "exp_avg_sq"],
            Optimiser::Sgd { momentum, .. } if *momentum == 0.0 => &[],
            Optimiser::Sgd { .. } => &["momentum_buffer"],
        }
    }
}

/// What the updates of all parameters share.
pub(super) struct Update {
    optimiser: Optimiser,
    rate: Operand,
    /// Of Adam: the rate of this step over the first bias correction, and the root of the second.
    corrections: Option<[Operand; 2]>,
}

impl Update {
    /// `rate` is the learning rate, a scalar; `step` counts updates from 1, an int64 scalar.
    pub fn new(build: &mut Build<'_>, optimiser: Optimiser, rate: Value, step: Operand) -> Self {
        let corrections = match optimiser {
            Optimiser::AdamW(adam) | Optimiser::Adam(adam) => {
                // 1 - beta^step cancels in single precision.
                let dtype = std::mem::replace(&mut build.dtype, DataType::Double);
                let step = build.cast(step, DataType::Double);
                let [first, second] = adam.betas.map(|beta| {
                    let [beta, one] = [beta, 1.0].map(|x| build.number(x));
                    let power = build.op("Pow", &[beta, step]);
                    build.sub(one, power)
                });
                let second = build.op("Sqrt", &[second]);
                build.dtype = dtype;
                let [first, second] = [first, second].map(|x| build.cast(x, dtype));
                Some([build.div(rate, first), second])
            }
            Optimiser::Sgd { .. } => None,
        };
        Update {
            optimiser,
            rate: rate.into(),
            corrections,
        }
    }

    /// The new parameter and its new state.
    pub fn of(
        &self,
        build: &mut Build<'_>,
        parameter: Operand,
        gradient: Operand,
        state: &[Operand],
        decay: f64,
    ) -> (Operand, Vec<Operand>) {
        let (mut parameter, mut gradient) = (parameter, gradient);
        if decay != 0.0 {
            match self.optimiser {
                Optimiser::AdamW(_) => {
                    let shrunk = build.times(self.rate, decay);
                    let loss = build.mul(parameter, shrunk);
                    parameter = build.sub(parameter, loss);
                }
                Optimiser::Adam(_) | Optimiser::Sgd { .. } => {
                    let pull = build.times(parameter, decay);
                    gradient = build.add(gradient, pull);
                }
            }
        }
        match (self.optimiser, self.corrections, state) {
            (
                Optimiser::AdamW(adam) | Optimiser::Adam(adam),
                Some([rate, root]),
                &[mean, square],
            ) => {
                let squares = build.mul(gradient, gradient);
                let mean = moving(build, mean, gradient, adam.betas[0]);
                let square = moving(build, square, squares, adam.betas[1]);
                let size = build.op("Sqrt", &[square]);
                let size = build.div(size, root);
                let eps = build.number(adam.eps);
                let size = build.add(size, eps);
                let direction = build.div(mean, size);
                let mut change = build.mul(direction, rate);
                if let Some(least) = adam.relative {
                    let own = rms(build, parameter, least);
                    change = build.mul(change, own);
                }
                (build.sub(parameter, change), vec![mean, square])
            }
            (Optimiser::Sgd { momentum, nesterov }, _, &[buffer]) => {
                let kept = build.times(buffer, momentum);
                let buffer = build.add(kept, gradient);
                let direction = match nesterov {
                    true => {
                        let ahead = build.times(buffer, momentum);
                        build.add(gradient, ahead)
                    }
                    false => buffer,
                };
                let change = build.mul(direction, self.rate);
                (build.sub(parameter, change), vec![buffer])
            }
            _ => {
                let change = build.mul(gradient, self.rate);
                (build.sub(parameter, change), Vec::new())
            }
        }
    }
}

/// The root mean square of a tensor, or a number if that is larger.
fn rms(build: &mut Build<'_>, tensor: Operand, least: f64) -> Operand {
    let squares = build.mul(tensor, tensor);
    let mean = build.mean(squares);
    let root = build.op("Sqrt", &[mean]);
    let least = build.number(least);
    build.op("Max", &[root, least])
}

/// `keep * old + (1 - keep) * new`.
pub(super) fn moving(build: &mut Build<'_>, old: Operand, new: Operand, keep: f64) -> Operand {
    let old = build.times(old, keep);
    let new = build.times(new, 1.0 - keep);
    build.add(old, new)
}
