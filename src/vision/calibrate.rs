//! The batch that norm statistics are measured on.

mod source;

use bcosc_ir::{Dim, Model, Tensor, Tensors};
use bcosc_passes::analysis::image::image_input;
use bcosc_passes::{InputContract, Settings};

use crate::{Calibration, Error};

/// Images of a calibration batch that a proof takes. What it shows does not depend on the
/// statistics: a restored norm is the identity with any.
const FEW: usize = 4;

/// One batch of images in the form that the converted model takes, by input name.
pub(crate) fn batch(
    model: &Model,
    label: &str,
    settings: &Settings,
    calibration: &Calibration,
) -> Result<Tensors, Error> {
    let fail = |problem: &str| Error::Input {
        model: label.to_owned(),
        problem: problem.to_owned(),
    };
    let input = image_input(&model.graph).ok_or_else(|| {
        fail("there is not exactly one input that takes images, so it cannot be calibrated")
    })?;
    let name = model.graph.value_name(input).to_owned();
    let declared = model.graph.value_type(input);
    let shape = declared.as_ref().and_then(|t| t.shape.clone());
    let (Some(declared), Some(shape)) = (declared, shape) else {
        return Err(fail(
            "the shape of the image input is not known; give it with --input-shapes",
        ));
    };
    if shape
        .first()
        .and_then(Dim::known)
        .is_some_and(|batch| batch < 2)
    {
        return Err(fail(
            "its batch size is fixed, and calibration needs several images at once; export it with a dynamic batch",
        ));
    }
    if source::is_array(&calibration.source) {
        let (dims, data) = source::read_array(calibration)?;
        let elements: Vec<f64> = data.into_iter().map(f64::from).collect();
        let tensor = Tensor::floats(declared.dtype, &dims, &elements);
        return Ok([(
            name,
            tensor.ok_or_else(|| fail("the image input is not floating point"))?,
        )]
        .into());
    }
    if settings.input == InputContract::Same && settings.normalization.is_none() {
        return Err(Error::Options(
            "calibration on pictures needs to know how the model's input is normalised: give --normalization imagenet \
             (or clip, inception, none), or --mean and --std"
                .to_owned(),
        ));
    }
    let side = |axis: usize| {
        shape
            .get(axis)
            .and_then(Dim::known)
            .and_then(|d| usize::try_from(d).ok())
    };
    let (4, Some(channels)) = (shape.len(), side(1)) else {
        return Err(fail(
            "its input does not take pictures: [N, C, H, W] with a known C is needed; give a .npy array instead",
        ));
    };
    let taken = source::Taken {
        channels,
        height: side(2),
        width: side(3),
    };
    let images = source::read_folder(calibration, taken)?;
    let tensor = images.tensor(
        settings.input,
        settings.normalization.as_ref(),
        declared.dtype,
    );
    Ok([(
        name,
        tensor.ok_or_else(|| fail("the image input is not floating point"))?,
    )]
    .into())
}

/// The first few images of a batch.
pub(crate) fn few(batch: &Tensors) -> Tensors {
    let shorter = |tensor: &Tensor| {
        let mut dims = tensor.dims();
        let (images, bytes) = (*dims.first()?, tensor.bytes().ok()?);
        let kept = images.min(FEW as u64);
        let length = (bytes.len() as u64).checked_div(images)? * kept;
        dims[0] = kept;
        Some(Tensor::from_bytes(
            tensor.dtype(),
            &dims,
            bytes.slice(..length as usize),
        ))
    };
    let entries = batch.iter().map(|(name, tensor)| {
        (
            name.clone(),
            shorter(tensor).unwrap_or_else(|| tensor.clone()),
        )
    });
    entries.collect()
}
