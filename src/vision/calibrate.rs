//! The batch that norm statistics are measured on, from a folder of images or an array.

mod source;

use bcosc_ir::{Dim, Model, Tensor, Value};
use bcosc_passes::analysis::channel_axis::channel_axis;
use bcosc_passes::{InputContract, Settings};

use crate::contract::channels_last;
use crate::{CalibrationFiles, Error};

/// One batch of images in the format of input `input` of the converted model.
pub(crate) fn batch(
    model: &Model,
    label: &str,
    input: Value,
    settings: &Settings,
    calibration: &CalibrationFiles,
) -> Result<Tensor, Error> {
    let fail = |problem: &str| Error::Input {
        model: label.to_owned(),
        problem: problem.to_owned(),
    };
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
            "calibration needs several images at once, but the batch size is fixed; export the model with a dynamic batch",
        ));
    }
    if source::is_array(&calibration.source) {
        let (dims, data) = source::read_array(calibration)?;
        let elements: Vec<f64> = data.into_iter().map(f64::from).collect();
        let tensor = Tensor::floats(declared.dtype, &dims, &elements);
        return tensor.ok_or_else(|| fail("the image input is not floating point"));
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
    let last = channel_axis(&model.graph, input) == Some(3);
    let [first, height, width] = if last { [3, 1, 2] } else { [1, 2, 3] };
    let (4, Some(channels)) = (shape.len(), side(first)) else {
        return Err(fail(
            "its input is not an image [N, C, H, W] or [N, H, W, C] with known C; calibrate on a .npy array instead",
        ));
    };
    let taken = source::ImageShape {
        channels,
        height: side(height),
        width: side(width),
    };
    let images = source::read_folder(calibration, taken)?;
    let tensor = images.tensor(
        settings.input,
        settings.normalization.as_ref(),
        declared.dtype,
    );
    let tensor = match last {
        true => tensor.as_ref().and_then(channels_last),
        false => tensor,
    };
    tensor.ok_or_else(|| fail("the image input is not floating point"))
}
