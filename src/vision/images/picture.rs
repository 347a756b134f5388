//! One picture from a file.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader};

use super::jpeg::is_cut_short;
use super::resize::framed;
use super::{Frame, Pixels};
use crate::Error;
use crate::contract::Images;

/// Maximum number of pixels of a picture, also after resizing.
pub(super) const LARGEST: usize = 1 << 28;

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

/// Reads a picture like torchvision's evaluation transforms, see [`framed`]. Values are in [0, 1],
/// `[1, C, height, width]`.
///
/// # Errors
/// [`Error::Image`] if the file is not a picture, or is damaged.
pub fn read(path: &Path, frame: Frame) -> Result<Images, Error> {
    let pixels = framed(&decode(path, frame.channels)?, frame).map_err(|e| bad(path, e))?;
    Ok(pixels.images())
}

/// Decodes a picture, in grey if `channels` is 1. The EXIF orientation is applied.
///
/// # Errors
/// [`Error::Image`] if the file is not a picture, or is damaged.
pub fn decode(path: &Path, channels: usize) -> Result<Pixels, Error> {
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
    let [height, width] = [picture.height(), picture.width()].map(|side| side as usize);
    let (channels, data) = match channels {
        1 => (1, picture.into_luma8().into_raw()),
        _ => (3, picture.into_rgb8().into_raw()),
    };
    Ok(Pixels {
        channels,
        height,
        width,
        data,
    })
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

/// The error for a picture that cannot be used.
pub fn bad(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::Image {
        path: path.to_owned(),
        problem: error.to_string(),
    }
}
