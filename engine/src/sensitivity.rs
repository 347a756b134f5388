//! Whether a model's outputs depend on its input.

use bcosc_ir::TensorError;
use serde::Serialize;

use crate::compare::numbers;
use crate::runs::Outputs;

/// Smaller relative differences between images are rounding noise.
const NOISE: f64 = 1e-6;

/// The variation of a model's outputs between images.
///
/// The logit bias that B-cos heads end with is the same for all images and much larger than the logits of a
/// network before it is trained; models are best measured without it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sensitivity {
    /// Whether all outputs are free of NaN and infinities.
    pub finite: bool,
    /// The largest range of an element over the images, relative to the largest magnitude of its output. The
    /// output with the smallest counts.
    pub relative_range: f64,
    /// The largest range of an element over the images. The output with the smallest counts.
    pub range: f64,
    /// Number of images.
    pub images: usize,
}

impl Sensitivity {
    /// Measures the outputs of several runs; the first dimension is the batch.
    ///
    /// # Errors
    /// If an output cannot be read.
    pub fn of(runs: &[Outputs]) -> Result<Self, TensorError> {
        let outputs = runs.first().map_or(0, Vec::len);
        let mut found = Sensitivity {
            finite: true,
            relative_range: f64::INFINITY,
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
            found.relative_range =
                found
                    .relative_range
                    .min(if scale > 0.0 { range / scale } else { 0.0 });
            found.images = spread.images;
        }
        if found.images < 2 {
            (found.relative_range, found.range) = (0.0, 0.0);
        }
        found.finite &= found.images > 0;
        Ok(found)
    }

    /// Whether outputs are finite and differ between images by more than rounding.
    pub fn depends_on_input(&self) -> bool {
        self.finite && self.relative_range > NOISE
    }
}

/// The minimum and maximum of each element over the images.
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

    fn sensitivity_of(rows: &[[f32; 2]]) -> Sensitivity {
        let tensor = Tensor::f32s(&[rows.len() as u64, 2], rows.concat());
        Sensitivity::of(&[vec![("y".to_owned(), tensor)]]).unwrap()
    }

    #[test]
    fn outputs_that_differ_between_images_depend_on_the_input() {
        let found = sensitivity_of(&[[1.0, -4.0], [1.0, -2.0], [1.0, -3.0]]);
        assert!(found.depends_on_input());
        assert_eq!(
            (found.range, found.relative_range, found.images),
            (2.0, 0.5, 3)
        );
    }

    #[test]
    fn constant_and_broken_outputs_do_not() {
        assert!(!sensitivity_of(&[[1.0, -4.0], [1.0, -4.0]]).depends_on_input());
        assert!(!sensitivity_of(&[[0.0, 0.0], [0.0, 0.0]]).depends_on_input());
        assert!(!sensitivity_of(&[[1.0, f32::NAN], [2.0, 1.0]]).depends_on_input());
        assert!(!sensitivity_of(&[[1.0, f32::INFINITY], [2.0, 1.0]]).depends_on_input());
        assert!(!sensitivity_of(&[[1.0, 2.0]]).depends_on_input());
        assert!(!Sensitivity::of(&[]).unwrap().depends_on_input());
    }

    #[test]
    fn images_of_all_runs_count() {
        let run = |x: f32| vec![("y".to_owned(), Tensor::f32s(&[1, 1], vec![x]))];
        assert!(
            Sensitivity::of(&[run(1.0), run(2.0)])
                .unwrap()
                .depends_on_input()
        );
        assert!(
            !Sensitivity::of(&[run(1.0), run(1.0)])
                .unwrap()
                .depends_on_input()
        );
    }
}
