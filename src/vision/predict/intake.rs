//! How pictures enter a model.

use std::path::Path;

use bcosc_autodiff::explanation::TARGET;
use bcosc_engine::InputShapes;
use bcosc_ir::{DataType, Dim, Model, Tensor, Tensors};
use bcosc_passes::analysis::channel_axis::channel_axis;
use bcosc_passes::analysis::image::image_input;
use bcosc_passes::analysis::preprocessing::Preprocessing;
use bcosc_passes::{InputContract, Normalization};
use serde::Serialize;

use super::PredictOptions;
use crate::contract::{Images, channels_last};
use crate::options::check_normalization;
use crate::vision::images::{self, Frame, LARGEST_FREE_SIDE};
use crate::{Error, Metadata, RunError};

/// What a model takes of a picture, and in which form.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Intake {
    /// Name of the input.
    pub name: String,
    /// Form of the input.
    pub contract: InputContract,
    /// What pixels in [0, 1] are normalised with before they enter.
    pub normalization: Option<Normalization>,
    /// What white is to the model: 1, or 255.
    pub white: f64,
    /// Channels of a picture: 1 or 3.
    pub channels: usize,
    /// Height that the model fixes, or that was asked for.
    pub height: Option<usize>,
    /// Width that the model fixes, or that was asked for.
    pub width: Option<usize>,
    /// How much of a picture's shorter side is kept.
    pub crop: f64,
    /// Whether pictures enter as [N, H, W, C].
    #[serde(skip)]
    channels_last: bool,
    /// Pictures that the model takes at once, where it fixes that.
    #[serde(skip)]
    batch: Option<u64>,
    #[serde(skip)]
    dtype: DataType,
}

impl Intake {
    pub(super) fn of(
        model: &Model,
        metadata: Option<&Metadata>,
        options: &PredictOptions,
        label: &str,
    ) -> Result<Self, Error> {
        let graph = &model.graph;
        let fail = |problem: String| Error::Input {
            model: label.to_owned(),
            problem,
        };
        let input = image_input(graph)
            .ok_or_else(|| fail("the model must have exactly one image input".to_owned()))?;
        let name = graph.value_name(input).to_owned();
        let declared = graph.value_type(input);
        let shape = declared.as_ref().and_then(|t| t.shape.as_deref());
        let channels_last =
            shape.is_some_and(|shape| shape.len() == 4) && channel_axis(graph, input) == Some(3);
        let order = if channels_last {
            [0, 3, 1, 2]
        } else {
            [0, 1, 2, 3]
        };
        let axes = shape.filter(|shape| shape.len() == 4);
        let axes = axes.map(|shape| order.map(|axis| &shape[axis]));
        let dtype = declared
            .as_ref()
            .map(|t| t.dtype)
            .filter(|dtype| dtype.is_float());
        let (Some(dtype), Some([batch, Dim::Known(taken), height, width])) = (dtype, axes) else {
            let found = declared.as_ref().map(ToString::to_string);
            return Err(fail(format!(
                "input `{name}` is {}, and pictures need floats [N, C, H, W] or [N, H, W, C] with a known C: give it with --input-shapes, or convert a \
                 model that takes bytes with --input rgb",
                found.unwrap_or_else(|| "of no known type".to_owned())
            )));
        };
        let even = taken % 2 == 0;
        let contract = options
            .input
            .or(metadata.map(|m| m.input))
            .unwrap_or(match even {
                true => InputContract::AddInverse,
                false => InputContract::Same,
            });
        let channels = match contract {
            InputContract::AddInverse if even => taken / 2,
            InputContract::AddInverse => {
                return Err(fail(format!(
                    "input `{name}` has {taken} channels, but [x, 1-x] has an even number"
                )));
            }
            InputContract::Same | InputContract::Rgb => *taken,
        };
        if !matches!(channels, 1 | 3) {
            return Err(fail(format!(
                "input `{name}` takes {channels} channels, but pictures have 1 or 3"
            )));
        }
        if let Some(given) = &options.normalization {
            check_normalization(given)?;
        }
        let (normalization, white) = match contract {
            InputContract::AddInverse | InputContract::Rgb => (None, 1.0),
            InputContract::Same => normalization(model, metadata, options, label)?,
        };
        let given = normalization
            .iter()
            .flat_map(|n| [n.mean.len(), n.std.len()]);
        if let Some(wrong) = given
            .into_iter()
            .find(|n| ![1, channels as usize].contains(n))
        {
            return Err(fail(format!(
                "mean and standard deviation have {wrong} values, but the model takes {channels} channels"
            )));
        }
        let [wanted_height, wanted_width] = match options.size {
            Some(size) => size.map(Some),
            None => [None, None],
        };
        let side = |dim: &Dim, wanted: Option<usize>| match (
            dim.known().map(|d| d as usize),
            wanted,
        ) {
            (Some(fixed), Some(wanted)) if fixed != wanted => {
                let open = match channels_last {
                    true => format!("height,width,{taken}"),
                    false => format!("{taken},height,width"),
                };
                Err(fail(format!(
                    "the model takes pictures of {height} x {width} only; if the network allows other sizes, open them \
                     with --input-shapes {name}:{batch},{open}"
                )))
            }
            (fixed, wanted) => Ok(fixed.or(wanted)),
        };
        Ok(Intake {
            contract,
            normalization,
            white,
            channels: channels as usize,
            height: side(height, wanted_height)?,
            width: side(width, wanted_width)?,
            crop: options.crop,
            channels_last,
            batch: batch.known(),
            dtype,
            name,
        })
    }

    /// Reads a picture in the size that the model takes; what it leaves open is the picture's shorter side,
    /// but no more than models are usually trained on.
    ///
    /// # Errors
    /// [`Error::Image`] if the file is not a picture, or a damaged one.
    pub fn read(&self, picture: &Path) -> Result<Images, Error> {
        images::read(picture, self.frame(picture)?)
    }

    /// As JSON.
    ///
    /// # Errors
    /// [`Error::Encode`] if a name cannot be written.
    pub fn to_json(&self) -> Result<String, Error> {
        serde_json::to_string(self).map_err(|e| Error::encode("json", e))
    }

    /// The frame that [`Intake::read`] gives a picture.
    pub(crate) fn frame(&self, picture: &Path) -> Result<Frame, Error> {
        let (height, width) = match (self.height, self.width) {
            (Some(height), Some(width)) => (height, width),
            (height, width) => {
                let (x, y) = images::size(picture)?;
                let side = x.min(y).clamp(1, LARGEST_FREE_SIDE);
                (height.unwrap_or(side), width.unwrap_or(side))
            }
        };
        Ok(self.framed(height, width))
    }

    /// A frame of this size.
    pub(crate) fn framed(&self, height: usize, width: usize) -> Frame {
        Frame {
            channels: self.channels,
            height,
            width,
            crop: self.crop,
        }
    }

    /// Pictures that the model takes at once.
    pub(crate) fn batch(&self) -> u64 {
        self.batch.unwrap_or(1)
    }

    /// The shapes of all inputs for pictures of one size, with or without a class to explain.
    pub(crate) fn shapes(&self, size: [usize; 2], targeted: bool) -> InputShapes {
        let batch = self.batch();
        let image = self.batch_dims(batch, size);
        let mut shapes = InputShapes::from([(self.name.clone(), image)]);
        if targeted {
            shapes.insert(TARGET.to_owned(), vec![batch]);
        }
        shapes
    }

    /// The shape of so many pictures of one size.
    pub(crate) fn batch_dims(&self, images: u64, [height, width]: [usize; 2]) -> Vec<u64> {
        let channels = match self.contract {
            InputContract::AddInverse => 2 * self.channels,
            InputContract::Same | InputContract::Rgb => self.channels,
        };
        let image = match self.channels_last {
            true => [height, width, channels],
            false => [channels, height, width],
        };
        let image = image.map(|d| d as u64);
        [images].into_iter().chain(image).collect()
    }

    /// Type of the input's elements.
    pub(crate) fn dtype(&self) -> DataType {
        self.dtype
    }

    /// Pictures in the form of the input, as `[N, C, H, W]`; see [`Intake::arranged`].
    pub(crate) fn encode(&self, images: &Images) -> Result<Tensor, RunError> {
        let scaled = images.data.iter().map(|x| x * self.white as f32);
        let pictures = Images {
            dims: images.dims.clone(),
            data: scaled.collect(),
        };
        let tensor = pictures.tensor(self.contract, self.normalization.as_ref(), self.dtype);
        tensor.ok_or_else(|| self.not_floating())
    }

    /// Encoded pictures `[N, C, H, W]` with their axes in the order of the input.
    pub(crate) fn arranged(&self, encoded: Tensor) -> Result<Tensor, RunError> {
        match self.channels_last {
            true => channels_last(&encoded).ok_or_else(|| self.not_floating()),
            false => Ok(encoded),
        }
    }

    /// The error for an input of another type.
    pub(crate) fn not_floating(&self) -> RunError {
        RunError::Values(format!("input `{}` is not floating point", self.name))
    }

    /// All inputs for one picture, which fills the whole batch where the model fixes its size.
    pub(crate) fn tensors(&self, image: &Images, target: Option<i64>) -> Result<Tensors, RunError> {
        let batch = self.batch();
        let mut dims = image.dims.clone();
        if let Some(count) = dims.first_mut() {
            *count = batch;
        }
        let pictures = Images {
            dims,
            data: image.data.repeat(batch as usize),
        };
        let tensor = self.arranged(self.encode(&pictures)?)?;
        let mut tensors = Tensors::from([(self.name.clone(), tensor)]);
        if let Some(target) = target {
            let targets = Tensor::i64s(&[batch], vec![target; batch as usize]);
            tensors.insert(TARGET.to_owned(), targets);
        }
        Ok(tensors)
    }
}

/// What pictures are normalised with before they enter, and what white is to the model.
fn normalization(
    model: &Model,
    metadata: Option<&Metadata>,
    options: &PredictOptions,
    label: &str,
) -> Result<(Option<Normalization>, f64), Error> {
    if let Some(given) = &options.normalization {
        return Ok((Some(given.clone()), 1.0));
    }
    if let Some(noted) = metadata.and_then(Metadata::normalization) {
        return Ok((Some(noted), 1.0));
    }
    let found = image_input(&model.graph).and_then(|image| Preprocessing::of(&model.graph, image));
    match found {
        Some(found) if found.normalizes => Ok((None, found.white)),
        _ => Err(Error::Options(format!(
            "{label} does not say how its input is normalised: give --normalization imagenet (or clip, inception, none), or \
             --mean and --std"
        ))),
    }
}
