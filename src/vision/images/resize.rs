//! Resizing and cropping as torchvision does on Pillow's pictures.

use fast_image_resize::images::{CroppedImage, Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::picture::LARGEST;
use super::{Frame, Pixels};

/// A rectangle of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// A region in another size: bilinear, with antialiasing. It is as if the region were cut out first: pixels around
/// it have no influence.
///
/// # Errors
/// What is wrong with the sizes.
pub(crate) fn resized(
    pixels: &Pixels,
    region: Region,
    [height, width]: [usize; 2],
) -> Result<Pixels, String> {
    if !(1..=LARGEST).contains(&height.saturating_mul(width)) {
        return Err(format!(
            "cannot be scaled to {width} x {height} pixels: 1 to {LARGEST} are possible"
        ));
    }
    let kind = match pixels.channels {
        1 => PixelType::U8,
        _ => PixelType::U8x3,
    };
    // No side exceeds `LARGEST`.
    let [high, wide, new_high, new_wide] =
        [pixels.height, pixels.width, height, width].map(|side| side as u32);
    let source = ImageRef::new(wide, high, &pixels.data, kind).map_err(|e| e.to_string())?;
    let [top, left, rows, columns] =
        [region.top, region.left, region.height, region.width].map(|side| side as u32);
    let source = CroppedImage::new(&source, left, top, columns, rows).map_err(|e| e.to_string())?;
    let mut target = Image::new(new_wide, new_high, kind);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new()
        .resize(&source, &mut target, &options)
        .map_err(|e| e.to_string())?;
    Ok(Pixels {
        channels: pixels.channels,
        height,
        width,
        data: target.into_vec(),
    })
}

/// torchvision's evaluation transforms: the shorter side is resized, and the centre cut out.
///
/// # Errors
/// If the resized picture would be too large.
pub(crate) fn framed(pixels: &Pixels, frame: Frame) -> Result<Pixels, String> {
    let Frame {
        height,
        width,
        crop,
        ..
    } = frame;
    let (high, wide) = (pixels.height, pixels.width);
    // In whole numbers, rounded as torchvision does.
    let [least_high, least_wide] = [height, width].map(|s| ((s as f64 / crop) as usize).max(s));
    let by_height = least_high.saturating_mul(wide) >= least_wide.saturating_mul(high);
    let [scaled_height, scaled_width] = match by_height {
        true => [
            least_high,
            (least_high.saturating_mul(wide) / high.max(1)).max(width),
        ],
        false => [
            (least_wide.saturating_mul(high) / wide.max(1)).max(height),
            least_wide,
        ],
    };
    if scaled_height.saturating_mul(scaled_width) > LARGEST {
        return Err(format!(
            "{wide} x {high} pixels would be scaled to {scaled_width} x {scaled_height}, to cut {width} x {height} out \
             of the middle"
        ));
    }
    let whole = Region {
        top: 0,
        left: 0,
        height: high,
        width: wide,
    };
    let scaled = resized(pixels, whole, [scaled_height, scaled_width])?;
    let centre = Region {
        top: middle(scaled_height - height),
        left: middle(scaled_width - width),
        height,
        width,
    };
    Ok(cut(scaled, centre))
}

/// A region, which must be inside.
fn cut(pixels: Pixels, region: Region) -> Pixels {
    let Region {
        top,
        left,
        height,
        width,
    } = region;
    if (height, width) == (pixels.height, pixels.width) {
        return pixels;
    }
    let channels = pixels.channels;
    let rows = pixels.data.chunks_exact(pixels.width * channels);
    let mut data = Vec::with_capacity(height * width * channels);
    for row in rows.skip(top).take(height) {
        data.extend_from_slice(&row[left * channels..][..width * channels]);
    }
    Pixels {
        channels,
        height,
        width,
        data,
    }
}

/// Half of the rest, rounded to even.
fn middle(left_over: usize) -> usize {
    let half = left_over / 2;
    half + left_over % 2 * (half % 2)
}
