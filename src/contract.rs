//! Images in an input format.

use bcosc_engine::Encoding;
use bcosc_ir::{DataType, Tensor};
use bcosc_passes::{InputContract, Normalization};

/// Raw images: values in [0, 1].
#[derive(Clone, Debug, PartialEq)]
pub struct Images {
    /// `[N, C, H, W]`, or any other `[N, C, ...]`.
    pub dims: Vec<u64>,
    /// Row-major elements.
    pub data: Vec<f32>,
}

impl Images {
    /// Encodes these images for a model with input format `contract`.
    ///
    /// Without a normalisation, `same` gets the raw values. `normalization` has one number per channel,
    /// or one for all.
    pub fn tensor(
        &self,
        contract: InputContract,
        normalization: Option<&Normalization>,
        dtype: DataType,
    ) -> Option<Tensor> {
        let encoding = encoding(contract, normalization);
        let mut dims = self.dims.clone();
        let channels = usize::try_from(*dims.get(1)?).ok()?;
        if encoding == Encoding::WithInverse {
            dims[1] *= 2;
        }
        let image = self.data.len() / (dims[0].max(1) as usize);
        let images = self.data.chunks(image.max(1));
        let widened = |image: &[f32]| image.iter().map(|x| f64::from(*x)).collect();
        let elements: Vec<f64> = images
            .flat_map(|image| encoding.encode(widened(image), channels))
            .collect();
        Tensor::floats(dtype, &dims, &elements)
    }
}

/// Images [N, C, H, W] as [N, H, W, C].
#[cfg(feature = "vision")]
pub(crate) fn channels_last(images: &Tensor) -> Option<Tensor> {
    let dims = images.dims();
    let &[count, channels, height, width] = &dims[..] else {
        return None;
    };
    let (channels, area) = (channels as usize, (height * width) as usize);
    let elements = images.to_f64s().ok()?;
    let mut moved = Vec::with_capacity(elements.len());
    for image in elements.chunks((channels * area).max(1)) {
        for pixel in 0..area {
            moved.extend(image.iter().skip(pixel).step_by(area));
        }
    }
    Tensor::floats(
        images.dtype(),
        &[count, height, width, channels as u64],
        &moved,
    )
}

/// The encoding of pictures for input format `contract`; raw if no normalisation is given.
pub(crate) fn encoding(contract: InputContract, normalization: Option<&Normalization>) -> Encoding {
    match (contract, normalization) {
        (InputContract::AddInverse, _) => Encoding::WithInverse,
        (InputContract::Rgb, _) | (InputContract::Same, None) => Encoding::Raw,
        (InputContract::Same, Some(n)) => Encoding::Normalized {
            mean: n.mean.clone(),
            std: n.std.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_channels() -> Images {
        Images {
            dims: vec![2, 2, 1, 1],
            data: vec![0.0, 0.25, 0.5, 1.0],
        }
    }

    #[test]
    #[cfg(feature = "vision")]
    fn channels_move_behind_the_pixels() {
        let images = Tensor::f32s(&[2, 3, 1, 2], (0..12).map(|x| x as f32).collect());
        let moved = channels_last(&images).unwrap();
        assert_eq!(moved.dims(), [2, 1, 2, 3]);
        let expected = [0.0, 2.0, 4.0, 1.0, 3.0, 5.0, 6.0, 8.0, 10.0, 7.0, 9.0, 11.0];
        assert_eq!(moved.to_f32s().unwrap(), expected);
    }

    #[test]
    fn inverse_channels_follow_each_image() {
        let tensor = two_channels()
            .tensor(InputContract::AddInverse, None, DataType::Float)
            .unwrap();
        assert_eq!(tensor.dims(), [2, 4, 1, 1]);
        assert_eq!(
            tensor.to_f32s().unwrap(),
            [0.0, 0.25, 1.0, 0.75, 0.5, 1.0, 0.5, 0.0]
        );
    }

    #[test]
    fn each_channel_is_normalised_with_its_own_numbers() {
        let normalization = Normalization {
            mean: vec![0.0, 0.25],
            std: vec![0.5, 0.25],
        };
        let tensor = two_channels()
            .tensor(InputContract::Same, Some(&normalization), DataType::Float)
            .unwrap();
        assert_eq!(tensor.to_f32s().unwrap(), [0.0, 0.0, 1.0, 3.0]);
    }
}
