//! The batch that norm statistics are measured on.

use bcosc_ir::{Model, Tensor, Tensors};
use bcosc_passes::Settings;
use bcosc_passes::analysis::image::image_input;

#[cfg(feature = "vision")]
use crate::vision::calibrate;
use crate::{Calibration, Error};

/// Number of calibration images used in a proof. The result does not depend on the statistics,
/// since a restored norm is the identity whatever they are.
const FEW: usize = 4;

/// One batch of images in the input format of the converted model, by input name.
pub(crate) fn batch(
    model: &Model,
    label: &str,
    #[cfg_attr(not(feature = "vision"), expect(unused_variables))] settings: &Settings,
    calibration: &Calibration,
) -> Result<Tensors, Error> {
    let input = image_input(&model.graph).ok_or_else(|| Error::Input {
        model: label.to_owned(),
        problem: "calibration requires exactly one image input".to_owned(),
    })?;
    let tensor = match calibration {
        Calibration::Batch(tensor) => tensor.clone(),
        #[cfg(feature = "vision")]
        Calibration::Files(files) => calibrate::batch(model, label, input, settings, files)?,
    };
    Ok([(model.graph.value_name(input).to_owned(), tensor)].into())
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
