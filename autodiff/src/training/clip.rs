//! Clipping of gradients.
//!
//! ```text
//! adaptive     g * min(1, factor * max(||w||, eps) / ||g||)    norms of each unit's part of w and g
//! global norm  g * min(1, limit / (||all g|| + 1e-6))
//! ```
//!
//! Adaptive clipping is that of "High-Performance Large-Scale Image Recognition Without Normalization"
//! (arXiv 2102.06171). A unit is what one output of a layer multiplies; a parameter that is a vector is one
//! unit.

use bcosc_ir::Operand;
use bcosc_ir::views::AxesOp;

use super::parameters::Parameter;
use crate::build::Build;

/// How gradients are clipped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clip {
    /// By the norm of the unit that they belong to.
    Adaptive {
        /// The largest norm of a gradient, relative to the norm of its unit.
        factor: f64,
        /// The least norm that a unit is taken to have.
        eps: f64,
    },
    /// By the norm of all gradients together.
    GlobalNorm {
        /// The largest norm.
        limit: f64,
    },
}

impl Clip {
    /// Adaptive clipping as B-cos networks are trained with: factor 0.01, eps 1e-3.
    pub const ADAPTIVE: Clip = Clip::Adaptive {
        factor: 0.01,
        eps: 1e-3,
    };
}

/// Less than any norm that matters.
const TINY: f64 = 1e-6;

/// The clipped gradients, in the order of the parameters.
pub(super) fn clip(
    build: &mut Build<'_>,
    clip: Clip,
    parameters: &[Parameter],
    gradients: &[Operand],
) -> Vec<Operand> {
    match clip {
        Clip::Adaptive { factor, eps } => {
            let pairs = parameters.iter().zip(gradients);
            pairs
                .map(|(parameter, &gradient)| adaptive(build, factor, eps, parameter, gradient))
                .collect()
        }
        Clip::GlobalNorm { limit } => {
            let mut total = None;
            for &gradient in gradients {
                let squares = build.op("Mul", &[gradient, gradient]);
                let sum = build.sum(squares);
                total = Some(total.map_or(sum, |total| build.add(total, sum)));
            }
            let Some(total) = total else {
                return Vec::new();
            };
            let norm = build.op("Sqrt", &[total]);
            let [tiny, limit, one] = [TINY, limit, 1.0].map(|x| build.number(x));
            let norm = build.add(norm, tiny);
            let ratio = build.div(limit, norm);
            let factor = build.op("Min", &[ratio, one]);
            let scaled = gradients
                .iter()
                .map(|&gradient| build.mul(gradient, factor));
            scaled.collect()
        }
    }
}

fn adaptive(
    build: &mut Build<'_>,
    factor: f64,
    eps: f64,
    parameter: &Parameter,
    gradient: Operand,
) -> Operand {
    let rank = parameter.tensor.dims().len() as i64;
    let unit = parameter.unit_axis as i64;
    let axes: Vec<i64> = (0..rank).filter(|&axis| rank < 2 || axis != unit).collect();
    let mut norm = |x: Operand| match rank {
        0 => build.op("Abs", &[x]),
        _ => build.reduce(AxesOp::ReduceL2, x, &axes),
    };
    let (own, steep) = (norm(parameter.value.into()), norm(gradient));
    let [eps, factor, tiny] = [eps, factor, TINY].map(|x| build.number(x));
    let own = build.op("Max", &[own, eps]);
    let limit = build.mul(own, factor);
    let steep = build.op("Max", &[steep, tiny]);
    let ratio = build.div(limit, steep);
    let one = build.number(1.0);
    let ratio = build.op("Min", &[ratio, one]);
    build.mul(gradient, ratio)
}
