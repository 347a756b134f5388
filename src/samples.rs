//! The seeded inputs that models are compared on.

use bcosc_engine::Samples;
use bcosc_ir::{Model, Tensors};
use bcosc_passes::{InputContract, Normalization};

use crate::{RunError, Verification, contract};

/// Where nothing is known of how images were normalised, this makes them about as large.
const TYPICAL: (f64, f64) = (0.5, 0.25);

/// Draws the inputs that are asked for, in the form that a model takes.
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

/// The samples that hold several images, if any: they tell as much as others, for one preparation of the model.
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
