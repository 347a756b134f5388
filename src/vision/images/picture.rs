//! One picture from a file.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use fast_image_resize::images::Image;
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader};

use super::Frame;
use super::jpeg::is_cut_short;
use crate::Error;
use crate::contract::Images;

/// Maximum number of pixels of a picture, also after resizing.
const LARGEST: usize = 1 << 28;

/// Width and height of a picture after EXIF rotation. The pixels are not decoded.
///
/// # Errors
/// [`Error::Image`] if the file is not a picture.
pub fn size(path: &Path) -> Result<(usize, usize), Error> {
    let file = File::open(path).map_err(|e| bad(path, e))?;
    let mut decoder = decoder(path, BufReader::new(file))?;
    let turned = matches!(
        decoder.orientation().map_err(|e| bad(path, e))?,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    );
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    Ok(match turned {
        true => (height, width),
        false => (width, height),
    })
}

/// Reads a picture like torchvision's evaluation transforms: resizes the shorter side with antialiasing, and
/// crops the centre. Values are in [0, 1], `[1, C, height, width]`. The EXIF orientation is
/// applied.
///
/// # Errors
/// [`Error::Image`] if the file is not a picture, or is damaged.
pub fn read(path: &Path, frame: Frame) -> Result<Images, Error> {
    let bytes = fs::read(path).map_err(|e| bad(path, e))?;
    if is_cut_short(&bytes) {
        return Err(bad(path, "the file is truncated"));
    }
    let mut decoder = decoder(path, Cursor::new(bytes))?;
    let (columns, rows) = decoder.dimensions();
    if !(1..=LARGEST).contains(&(columns as usize).saturating_mul(rows as usize)) {
        return Err(bad(
            path,
            format!("{columns} x {rows} pixels: 1 to {LARGEST} can be read"),
        ));
    }
    let orientation = decoder.orientation().map_err(|e| bad(path, e))?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|e| bad(path, e))?;
    picture.apply_orientation(orientation);
    let Frame {
        channels,
        height,
        width,
        crop,
    } = frame;
    let (pixel, source_width, source_height, pixels) = pixels(picture, channels);
    // In whole numbers, rounded as torchvision does.
    let [high, wide] = [source_height, source_width].map(|side| side as usize);
    let [least_high, least_wide] = [height, width].map(|s| ((s as f64 / crop) as usize).max(s));
    let by_height = least_high.saturating_mul(wide) >= least_wide.saturating_mul(high);
    let [scaled_height, scaled_width] = match by_height {
        true => [
            least_high,
            (least_high.saturating_mul(wide) / high).max(width),
        ],
        false => [
            (least_wide.saturating_mul(high) / wide).max(height),
            least_wide,
        ],
    };
    if scaled_height.saturating_mul(scaled_width) > LARGEST {
        let problem = format!(
            "{wide} x {high} pixels would be scaled to {scaled_width} x {scaled_height}, to cut {width} x {height} out \
             of the middle"
        );
        return Err(bad(path, problem));
    }
    let source =
        Image::from_vec_u8(source_width, source_height, pixels, pixel).map_err(|e| bad(path, e))?;
    let mut target = Image::new(scaled_width as u32, scaled_height as u32, pixel);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new()
        .resize(&source, &mut target, &options)
        .map_err(|e| bad(path, e))?;

    let (top, left) = (middle(scaled_height - height), middle(scaled_width - width));
    let buffer = target.buffer();
    let mut data = Vec::with_capacity(channels * height * width);
    for channel in 0..channels {
        for y in top..top + height {
            let row = &buffer[(y * scaled_width + left) * channels..][..width * channels];
            let plane = row.iter().skip(channel).step_by(channels);
            data.extend(plane.map(|&v| f32::from(v) / 255.0));
        }
    }
    Ok(Images {
        dims: [1, channels, height, width].map(|d| d as u64).to_vec(),
        data,
    })
}

/// Half of the rest, rounded to even.
fn middle(left_over: usize) -> usize {
    let half = left_over / 2;
    half + left_over % 2 * (half % 2)
}

/// A decoder for a file of this name.
fn decoder<R: BufRead + Seek + 'static>(
    path: &Path,
    bytes: R,
) -> Result<impl ImageDecoder + use<R>, Error> {
    let reader = ImageReader::new(bytes).with_guessed_format();
    let reader = reader.map_err(|e| bad(path, e))?;
    reader.into_decoder().map_err(|e| bad(path, e))
}

fn bad(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::Image {
        path: path.to_owned(),
        problem: error.to_string(),
    }
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
