//! Seeded inputs for comparisons.

use bcosc_engine::Samples;
use bcosc_ir::{Model, Tensors};
use bcosc_passes::{InputContract, Normalization};

use crate::{RunError, Verification, contract};

/// A typical normalisation, used if the model's is not known.
const TYPICAL: (f64, f64) = (0.5, 0.25);

/// Draws inputs in the input format of a model.
pub(crate) fn draw(
    model: &Model,
    taken: InputContract,
    normalization: Option<&Normalization>,
    verification: &Verification,
) -> Result<Vec<Tensors>, RunError> {
    let samples = Samples {
        seed: verification.seed,
        count: verification.samples,
        ..Samples::default()
    };
    let typical = Normalization {
        mean: vec![TYPICAL.0],
        std: vec![TYPICAL.1],
    };
    let encoding = contract::encoding(taken, Some(normalization.unwrap_or(&typical)));
    Ok(samples.draw(model, &encoding)?)
}

/// The samples that hold several images, if any; otherwise all.
pub(crate) fn several(mut samples: Vec<Tensors>) -> Vec<Tensors> {
    let images = |sample: &Tensors| {
        let batches = sample.values().map(|t| t.dims().first().copied());
        batches.flatten().min().unwrap_or(1)
    };
    if samples.iter().any(|sample| images(sample) > 1) {
        samples.retain(|sample| images(sample) > 1);
    }
    samples
}
