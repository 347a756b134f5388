//! Calibration images: a folder of pictures or a `.npy` array, as one batch.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fast_image_resize::images::Image;
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::{DynamicImage, ImageReader};
use ndarray_npy::ViewNpyExt;
use rayon::prelude::*;

use crate::contract::Images;
use crate::{Calibration, Error};

/// Folders are searched this deep; deeper is more likely a mistake than a collection of images.
const DEEPEST: usize = 16;

/// What the model takes of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// Height, if the model fixes it.
    pub height: Option<usize>,
    /// Width, if the model fixes it.
    pub width: Option<usize>,
}

/// Size of a side that neither the model nor the images limit.
const LARGEST_FREE_SIDE: usize = 224;

/// Whether the source is an array rather than a folder of pictures.
pub(crate) fn is_array(source: &Path) -> bool {
    source
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("npy"))
}

/// Reads pictures as torchvision's evaluation transforms would: the shorter side is scaled to fit,
/// with antialiasing, and the centre is cut out. Values are in [0, 1].
pub(crate) fn read_folder(calibration: &Calibration, frame: Frame) -> Result<Images, Error> {
    let folder = &calibration.source;
    let fail = |problem: String| Error::Calibration {
        path: folder.clone(),
        problem,
    };
    if !matches!(frame.channels, 1 | 3) {
        return Err(fail(format!(
            "the model takes {} channels, and pictures have 1 or 3; give a .npy array instead",
            frame.channels
        )));
    }
    let found = pictures(folder)?;
    if found.len() < 2 {
        return Err(fail(format!(
            "{} found (jpg, png or webp, in the folder or below), and at least 2 are needed",
            match found.len() {
                0 => "no picture is",
                _ => "one picture is",
            }
        )));
    }
    let chosen = spread(&found, calibration.images);
    let (height, width) = match (frame.height, frame.width) {
        (Some(height), Some(width)) => (height, width),
        (height, width) => {
            let side = free_side(&chosen)?;
            (height.unwrap_or(side), width.unwrap_or(side))
        }
    };
    let planes: Vec<Vec<f32>> = chosen
        .par_iter()
        .map(|path| read_picture(path, frame.channels, height, width))
        .collect::<Result<_, _>>()?;
    let dims = [chosen.len(), frame.channels, height, width]
        .map(|d| d as u64)
        .to_vec();
    Ok(Images {
        dims,
        data: planes.concat(),
    })
}

/// Reads a `.npy` array of float32 as it is; returns its dimensions and elements.
pub(crate) fn read_array(calibration: &Calibration) -> Result<(Vec<u64>, Vec<f32>), Error> {
    let path = &calibration.source;
    let fail = |problem: String| Error::Calibration {
        path: path.clone(),
        problem,
    };
    let bytes = fs::read(path).map_err(|e| fail(format!("cannot read the file: {e}")))?;
    let view = ndarray::ArrayViewD::<f32>::view_npy(&bytes).map_err(|e| {
        fail(format!(
            "is not an array of float32 as numpy.save writes it: {e}"
        ))
    })?;
    let shape = view.shape().to_vec();
    if shape.len() < 2 || shape[0] < 2 {
        return Err(fail(format!(
            "has shape {shape:?}; [N, C, H, W] with at least 2 images is needed"
        )));
    }
    if view.iter().any(|x| !x.is_finite()) {
        return Err(fail(
            "has elements that are infinite or not a number".to_owned(),
        ));
    }
    let indices = spread(&(0..shape[0]).collect::<Vec<_>>(), calibration.images);
    let data = indices
        .iter()
        .flat_map(|&i| view.index_axis(ndarray::Axis(0), i).to_owned())
        .collect();
    let mut dims: Vec<u64> = shape.iter().map(|&d| d as u64).collect();
    dims[0] = indices.len() as u64;
    Ok((dims, data))
}

/// Every picture in a folder and below, sorted by path.
fn pictures(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    search(folder, 0, &mut seen, &mut found).map_err(|(path, error)| Error::Calibration {
        path,
        problem: format!("cannot list the folder: {error}"),
    })?;
    found.sort();
    Ok(found)
}

/// `seen` holds the real paths of folders, so that links cannot lead in circles.
fn search(
    folder: &Path,
    depth: usize,
    seen: &mut BTreeSet<PathBuf>,
    found: &mut Vec<PathBuf>,
) -> Result<(), (PathBuf, std::io::Error)> {
    let fail = |error| (folder.to_owned(), error);
    if depth > DEEPEST || !seen.insert(folder.canonicalize().map_err(fail)?) {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.is_dir() {
            search(&path, depth + 1, seen, found)?;
        } else if is_picture(&path) {
            found.push(path);
        }
    }
    Ok(())
}

fn is_picture(path: &Path) -> bool {
    let extension = path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    ["jpg", "jpeg", "png", "webp"]
        .iter()
        .any(|known| extension.eq_ignore_ascii_case(known))
}

/// At most `limit` of the items, evenly spaced: of sorted class folders, every class gets its share.
fn spread<T: Clone>(items: &[T], limit: usize) -> Vec<T> {
    let count = items.len().min(limit);
    (0..count)
        .map(|i| items[i * items.len() / count].clone())
        .collect()
}

/// The side that every picture fills without being enlarged.
fn free_side(paths: &[PathBuf]) -> Result<usize, Error> {
    let sides = paths.par_iter().map(|path| {
        let size = open(path)?
            .into_dimensions()
            .map_err(|e| bad_picture(path, e))?;
        Ok(size.0.min(size.1) as usize)
    });
    let smallest = sides.collect::<Result<Vec<_>, Error>>()?.into_iter().min();
    Ok(smallest
        .unwrap_or(LARGEST_FREE_SIDE)
        .clamp(1, LARGEST_FREE_SIDE))
}

fn open(path: &Path) -> Result<ImageReader<std::io::BufReader<fs::File>>, Error> {
    let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format);
    reader.map_err(|e| bad_picture(path, e))
}

fn bad_picture(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::Image {
        path: path.to_owned(),
        problem: error.to_string(),
    }
}

/// One picture as planes `[C, height, width]`.
fn read_picture(
    path: &Path,
    channels: usize,
    height: usize,
    width: usize,
) -> Result<Vec<f32>, Error> {
    let picture = open(path)?.decode().map_err(|e| bad_picture(path, e))?;
    let (pixel, source_width, source_height, pixels) = pixels(picture, channels);
    let scale =
        (height as f64 / f64::from(source_height)).max(width as f64 / f64::from(source_width));
    let scaled = |side: u32, least: usize| ((f64::from(side) * scale).round() as usize).max(least);
    let (scaled_height, scaled_width) =
        (scaled(source_height, height), scaled(source_width, width));

    let source = Image::from_vec_u8(source_width, source_height, pixels, pixel)
        .map_err(|e| bad_picture(path, e))?;
    let mut target = Image::new(scaled_width as u32, scaled_height as u32, pixel);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new()
        .resize(&source, &mut target, &options)
        .map_err(|e| bad_picture(path, e))?;

    let (top, left) = ((scaled_height - height) / 2, (scaled_width - width) / 2);
    let buffer = target.buffer();
    let mut planes = Vec::with_capacity(channels * height * width);
    for channel in 0..channels {
        for y in top..top + height {
            let row = &buffer[(y * scaled_width + left) * channels..][..width * channels];
            planes.extend(
                row.iter()
                    .skip(channel)
                    .step_by(channels)
                    .map(|&v| f32::from(v) / 255.0),
            );
        }
    }
    Ok(planes)
}

fn pixels(picture: DynamicImage, channels: usize) -> (PixelType, u32, u32, Vec<u8>) {
    if channels == 1 {
        let grey = picture.into_luma8();
        return (PixelType::U8, grey.width(), grey.height(), grey.into_raw());
    }
    let colour = picture.into_rgb8();
    (
        PixelType::U8x3,
        colour.width(),
        colour.height(),
        colour.into_raw(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calibration(source: &Path, images: usize) -> Calibration {
        Calibration {
            source: source.to_owned(),
            images,
        }
    }

    fn picture(folder: &Path, name: &str, width: u32, height: u32, colour: [u8; 3]) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_pixel(width, height, image::Rgb(colour))
            .save(path)
            .unwrap();
    }

    const SQUARE: Frame = Frame {
        channels: 3,
        height: Some(4),
        width: Some(4),
    };

    #[test]
    fn pictures_are_sorted_scaled_and_cut() {
        let folder = tempfile::tempdir().unwrap();
        picture(folder.path(), "b/0.png", 8, 16, [255, 0, 0]);
        picture(folder.path(), "a/0.png", 9, 4, [0, 255, 0]);
        let images = read_folder(&calibration(folder.path(), 64), SQUARE).unwrap();
        assert_eq!(images.dims, [2, 3, 4, 4]);
        let means: Vec<f32> = images
            .data
            .chunks(16)
            .map(|plane| plane.iter().sum::<f32>() / 16.0)
            .collect();
        assert_eq!(means, [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn a_subset_takes_its_share_of_every_class() {
        let items: Vec<usize> = (0..100).collect();
        assert_eq!(spread(&items, 4), [0, 25, 50, 75]);
        assert_eq!(spread(&items[..3], 64), [0, 1, 2]);
    }

    #[test]
    fn a_grey_model_gets_grey_pictures() {
        let folder = tempfile::tempdir().unwrap();
        picture(folder.path(), "0.png", 4, 4, [255; 3]);
        picture(folder.path(), "1.png", 4, 4, [0; 3]);
        let frame = Frame {
            channels: 1,
            height: None,
            width: None,
        };
        let images = read_folder(&calibration(folder.path(), 64), frame).unwrap();
        assert_eq!(images.dims, [2, 1, 4, 4]);
        assert_eq!(images.data[0], 1.0);
    }

    #[test]
    fn a_damaged_picture_is_named() {
        let folder = tempfile::tempdir().unwrap();
        picture(folder.path(), "0.png", 4, 4, [255; 3]);
        fs::write(folder.path().join("1.jpg"), b"\xff\xd8\xff nothing").unwrap();
        let error = read_folder(&calibration(folder.path(), 64), SQUARE).unwrap_err();
        assert!(error.to_string().contains("1.jpg"), "{error}");
    }

    #[test]
    fn an_empty_folder_says_what_is_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let error = read_folder(&calibration(folder.path(), 64), SQUARE).unwrap_err();
        assert!(error.to_string().contains("jpg, png or webp"), "{error}");
    }

    #[test]
    fn an_array_is_taken_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        let array =
            ndarray::Array4::from_shape_fn((3, 1, 2, 2), |(n, _, h, w)| (n * 4 + h * 2 + w) as f32);
        ndarray_npy::write_npy(&path, &array).unwrap();
        let (dims, data) = read_array(&calibration(&path, 2)).unwrap();
        assert_eq!(dims, [2, 1, 2, 2]);
        assert_eq!(data, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    }

    #[test]
    fn an_array_of_doubles_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        ndarray_npy::write_npy(&path, &ndarray::Array4::<f64>::zeros((2, 1, 2, 2))).unwrap();
        let error = read_array(&calibration(&path, 2)).unwrap_err();
        assert!(error.to_string().contains("float32"), "{error}");
    }
}
