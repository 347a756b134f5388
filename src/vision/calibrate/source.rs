//! Where calibration images come from: a folder of pictures, or a `.npy` array.

use std::fs;
use std::path::Path;

use ndarray_npy::ViewNpyExt;
use rayon::prelude::*;

use crate::contract::Images;
use crate::vision::images::{self, Frame, free_side, pictures, spread};
use crate::{CalibrationFiles, Error};

/// The image size that the model declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageShape {
    /// Channels of a picture.
    pub channels: usize,
    /// Height, if the model fixes it.
    pub height: Option<usize>,
    /// Width, if the model fixes it.
    pub width: Option<usize>,
}

/// Whether the source is an array rather than a folder of pictures.
pub fn is_array(source: &Path) -> bool {
    source
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("npy"))
}

/// Reads pictures, all in the same size.
pub fn read_folder(calibration: &CalibrationFiles, shape: ImageShape) -> Result<Images, Error> {
    let folder = &calibration.source;
    let fail = |problem: String| Error::Calibration {
        path: folder.clone(),
        problem,
    };
    if !matches!(shape.channels, 1 | 3) {
        return Err(fail(format!(
            "the model takes {} channels, but pictures have 1 or 3; calibrate on a .npy array instead",
            shape.channels
        )));
    }
    let found = match calibration.among.is_empty() {
        true => pictures(folder)?,
        false => calibration.among.clone(),
    };
    if found.len() < 2 {
        return Err(fail(format!(
            "{} found (jpg, png or webp), but at least 2 are needed",
            match found.len() {
                0 => "no pictures",
                _ => "only one picture",
            }
        )));
    }
    let chosen = spread(&found, calibration.images);
    let (height, width) = match (shape.height, shape.width) {
        (Some(height), Some(width)) => (height, width),
        (height, width) => {
            let side = free_side(&chosen, calibration.skip_unreadable)?;
            (height.unwrap_or(side), width.unwrap_or(side))
        }
    };
    let frame = Frame {
        channels: shape.channels,
        height,
        width,
        crop: 1.0,
    };
    let planes = chosen
        .par_iter()
        .map(|path| match images::read(path, frame) {
            Err(_) if calibration.skip_unreadable => Ok(None),
            read => Ok(Some(read?.data)),
        });
    let planes: Vec<Option<Vec<f32>>> = planes.collect::<Result<_, Error>>()?;
    let planes: Vec<Vec<f32>> = planes.into_iter().flatten().collect();
    if planes.len() < 2 {
        return Err(fail("fewer than 2 pictures can be read".to_owned()));
    }
    let dims = [planes.len(), frame.channels, height, width]
        .map(|d| d as u64)
        .to_vec();
    Ok(Images {
        dims,
        data: planes.concat(),
    })
}

/// Reads a `.npy` array of float32 unchanged; returns its dimensions and elements.
pub fn read_array(calibration: &CalibrationFiles) -> Result<(Vec<u64>, Vec<f32>), Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn calibration(source: &Path, images: usize) -> CalibrationFiles {
        CalibrationFiles {
            images,
            ..CalibrationFiles::new(source)
        }
    }

    fn picture(folder: &Path, name: &str, width: u32, height: u32, colour: [u8; 3]) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_pixel(width, height, image::Rgb(colour))
            .save(path)
            .unwrap();
    }

    const SQUARE: ImageShape = ImageShape {
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
