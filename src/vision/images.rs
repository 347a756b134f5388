//! Finding and decoding pictures on disk.

mod folder;
mod jpeg;
mod picture;
mod pixels;
mod resize;

use std::path::PathBuf;

use rayon::prelude::*;

use crate::Error;

pub use folder::pictures;
pub(crate) use folder::spread;
pub(crate) use picture::{bad, decode, read, size};
pub(crate) use pixels::Pixels;
pub(crate) use resize::{Region, framed, resized};

/// The size and channels of pictures for a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Frame {
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// Rows of pixels.
    pub height: usize,
    /// Columns of pixels.
    pub width: usize,
    /// Share of the shorter side that the centre crop keeps, in (0, 1].
    pub crop: f64,
}

/// Maximum size of a dynamic side.
pub(crate) const LARGEST_FREE_SIDE: usize = 224;

/// The size for all pictures if the model leaves it dynamic: the median of the shorter sides,
/// at most the size that models are usually trained on.
pub(crate) fn free_side(paths: &[PathBuf]) -> Result<usize, Error> {
    let sides = paths
        .par_iter()
        .map(|path| size(path).map(|(width, height)| width.min(height)));
    let mut sides = sides.collect::<Result<Vec<_>, Error>>()?;
    sides.sort_unstable();
    let median = sides.get(sides.len() / 2).copied();
    Ok(median
        .unwrap_or(LARGEST_FREE_SIDE)
        .clamp(1, LARGEST_FREE_SIDE))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::contract::Images;

    fn picture(folder: &Path, name: &str, [width, height]: [u32; 2], colour: [u8; 3]) -> PathBuf {
        let path = folder.join(name);
        let picture = image::RgbImage::from_pixel(width, height, image::Rgb(colour));
        picture.save(&path).unwrap();
        path
    }

    fn frame(channels: usize, side: usize) -> Frame {
        Frame {
            channels,
            height: side,
            width: side,
            crop: 1.0,
        }
    }

    #[test]
    fn a_picture_becomes_planes() {
        let folder = tempfile::tempdir().unwrap();
        let path = picture(folder.path(), "0.png", [9, 4], [0, 255, 51]);
        let Images { dims, data } = read(&path, frame(3, 4)).unwrap();
        assert_eq!(dims, [1, 3, 4, 4]);
        assert_eq!(data[..16], [0.0; 16]);
        assert_eq!(data[16..32], [1.0; 16]);
        assert_eq!(data[32..], [0.2; 16]);
        assert_eq!(size(&path).unwrap(), (9, 4));
    }

    #[test]
    fn a_grey_model_gets_grey_pictures() {
        let folder = tempfile::tempdir().unwrap();
        let path = picture(folder.path(), "0.png", [4, 4], [255; 3]);
        let Images { dims, data } = read(&path, frame(1, 4)).unwrap();
        assert_eq!((&dims[..], &data[..]), (&[1, 1, 4, 4][..], &[1.0; 16][..]));
    }

    #[test]
    fn the_middle_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.png");
        let middle = |x: u32| (2..6).contains(&x);
        let paint = |x, y| image::Luma([if middle(x) && middle(y) { 255u8 } else { 0 }]);
        image::GrayImage::from_fn(8, 8, paint).save(&path).unwrap();
        let half = Frame {
            crop: 0.5,
            ..frame(1, 4)
        };
        assert_eq!(read(&path, half).unwrap().data, [1.0; 16]);
    }

    /// torchvision: `Resize(5)` leaves 7 x 5 pixels as they are, and `CenterCrop(4)` takes rows 0 to 3 (half of
    /// one pixel is rounded to the even 0) and columns 2 to 5 (half of three to the even 2).
    #[test]
    fn sides_and_offsets_are_rounded_as_torchvision_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.png");
        let paint = |x, y| image::Luma([(20 * x + 8 * y) as u8]);
        image::GrayImage::from_fn(7, 5, paint).save(&path).unwrap();
        let cut = Frame {
            crop: 0.8,
            ..frame(1, 4)
        };
        let found = read(&path, cut).unwrap().data;
        let expected = (0..4).flat_map(|y| (2..6).map(move |x| (20 * x + 8 * y) as f32 / 255.0));
        assert_eq!(found, expected.collect::<Vec<_>>());
    }

    #[test]
    fn a_damaged_picture_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.jpg");
        std::fs::write(&path, b"\xff\xd8\xff nothing").unwrap();
        let error = read(&path, frame(3, 4)).unwrap_err();
        assert!(error.to_string().contains("1.jpg"), "{error}");
    }

    #[test]
    fn a_hair_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = picture(folder.path(), "hair.png", [1, 9000], [0; 3]);
        let error = read(&path, frame(3, 224)).unwrap_err();
        assert!(error.to_string().contains("would be scaled"), "{error}");
    }

    #[test]
    fn one_odd_picture_does_not_set_the_side() {
        let folder = tempfile::tempdir().unwrap();
        let sizes = [[1, 1], [40, 32], [500, 700]];
        let named = sizes.iter().enumerate();
        let paths: Vec<_> = named
            .map(|(i, size)| picture(folder.path(), &format!("{i}.png"), *size, [0; 3]))
            .collect();
        assert_eq!(free_side(&paths).unwrap(), 32);
        assert_eq!(free_side(&paths[2..]).unwrap(), LARGEST_FREE_SIDE);
    }
}
