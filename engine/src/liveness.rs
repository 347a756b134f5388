//! Signs of life in a model's outputs.

use bcosc_ir::{InterpreterError, Model, TensorError, Tensors};
use serde::Serialize;

use crate::compare::numbers;
use crate::proof::{Outputs, run_all};

/// Outputs that differ by less than this between images, relative to their size, are rounding noise.
const NOISE: f64 = 1e-6;

/// Whether a model's outputs say anything about its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Liveness {
    /// Whether all outputs are free of NaN and infinities.
    pub finite: bool,
    /// How much outputs differ between images: the largest range of an element over the images,
    /// relative to the largest magnitude of its output. The least varying output counts.
    pub varies: f64,
    /// The same, not relative.
    pub range: f64,
    /// How many images were looked at.
    pub images: usize,
}

/// A model's life cannot be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LivenessError {
    /// The model cannot be run.
    #[error(transparent)]
    Run(#[from] InterpreterError),
    /// An output cannot be read.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl Liveness {
    /// Measures outputs of several runs, whose first dimension runs over images.
    pub fn of(runs: &[Outputs]) -> Result<Self, LivenessError> {
        let outputs = runs.first().map_or(0, Vec::len);
        let mut found = Liveness {
            finite: true,
            varies: f64::INFINITY,
            range: f64::INFINITY,
            images: 0,
        };
        for position in 0..outputs {
            let mut spread = Spread::default();
            for (_, tensor) in runs.iter().filter_map(|run| run.get(position)) {
                let images = tensor.dims().first().copied().unwrap_or(1);
                spread.take(&numbers(tensor)?, usize::try_from(images).unwrap_or(0));
            }
            let (range, scale) = spread.measure();
            found.finite &= spread.finite && spread.images > 0;
            found.range = found.range.min(range);
            found.varies = found
                .varies
                .min(if scale > 0.0 { range / scale } else { 0.0 });
            found.images = spread.images;
        }
        if found.images < 2 {
            (found.varies, found.range) = (0.0, 0.0);
        }
        found.finite &= found.images > 0;
        Ok(found)
    }

    /// Whether the outputs are finite and tell images apart.
    pub fn is_alive(&self) -> bool {
        self.finite && self.varies > NOISE
    }
}

/// Runs a model on samples, two images at least, and looks whether its outputs tell them apart.
///
/// The logit bias that B-cos heads end with is the same for all images and much larger than what a
/// network says before it is trained; models are best measured without it.
pub fn liveness(model: &Model, samples: &[Tensors]) -> Result<Liveness, LivenessError> {
    Liveness::of(&run_all(model, samples)?)
}

/// The least and the largest value of each element over the images.
#[derive(Default)]
struct Spread {
    bounds: Vec<(f64, f64)>,
    finite: bool,
    images: usize,
}

impl Spread {
    fn take(&mut self, values: &[f64], images: usize) {
        let width = values.len().checked_div(images).unwrap_or(0);
        if width == 0 {
            return;
        }
        if self.images == 0 {
            self.bounds = vec![(f64::INFINITY, f64::NEG_INFINITY); width];
            self.finite = true;
        }
        self.images += images;
        self.finite &= values.iter().all(|x| x.is_finite());
        for image in values.chunks_exact(width) {
            for (bounds, x) in self.bounds.iter_mut().zip(image) {
                *bounds = (bounds.0.min(*x), bounds.1.max(*x));
            }
        }
    }

    /// The largest range, and the largest magnitude.
    fn measure(&self) -> (f64, f64) {
        let range = self
            .bounds
            .iter()
            .map(|(low, high)| high - low)
            .fold(0.0, f64::max);
        let scale = self
            .bounds
            .iter()
            .map(|(low, high)| high.abs().max(low.abs()))
            .fold(0.0, f64::max);
        (range, scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bcosc_ir::Tensor;

    fn liveness_of(rows: &[[f32; 2]]) -> Liveness {
        let tensor = Tensor::f32s(&[rows.len() as u64, 2], rows.concat());
        Liveness::of(&[vec![("y".to_owned(), tensor)]]).unwrap()
    }

    #[test]
    fn outputs_that_tell_images_apart_are_alive() {
        let found = liveness_of(&[[1.0, -4.0], [1.0, -2.0], [1.0, -3.0]]);
        assert!(found.is_alive());
        assert_eq!((found.range, found.varies, found.images), (2.0, 0.5, 3));
    }

    #[test]
    fn constant_and_broken_outputs_are_dead() {
        assert!(!liveness_of(&[[1.0, -4.0], [1.0, -4.0]]).is_alive());
        assert!(!liveness_of(&[[0.0, 0.0], [0.0, 0.0]]).is_alive());
        assert!(!liveness_of(&[[1.0, f32::NAN], [2.0, 1.0]]).is_alive());
        assert!(!liveness_of(&[[1.0, f32::INFINITY], [2.0, 1.0]]).is_alive());
        assert!(!liveness_of(&[[1.0, 2.0]]).is_alive());
        assert!(!Liveness::of(&[]).unwrap().is_alive());
    }

    #[test]
    fn images_of_all_runs_count() {
        let run = |x: f32| vec![("y".to_owned(), Tensor::f32s(&[1, 1], vec![x]))];
        assert!(Liveness::of(&[run(1.0), run(2.0)]).unwrap().is_alive());
        assert!(!Liveness::of(&[run(1.0), run(1.0)]).unwrap().is_alive());
    }
}
