//! Explanations as pictures.
//!
//! The colour picture is that of the B-cos papers. Per pixel, of the weights `w` of the colour channels and
//! `v` of their inverses:
//!
//! ```text
//! w, v  = max (W / max |W|, 0)                         max over the channels of the pixel
//! rgb   = w / (w + v)
//! alpha = |W|_2 where the pixel contributes, else 0    averaged over 15 x 15, zeros beyond the edge
//!         divided by its 99.5th percentile, at most 1
//! ```
//!
//! The weights of a model that is not B-cos apply to `x` alone; they are seen as `[W, -W]`, which apply to
//! `[x, -x]`.

use std::io::Cursor;

use image::{
    DynamicImage, GrayImage, ImageBuffer, ImageFormat, PixelWithColorType, Rgb, RgbImage, Rgba,
    RgbaImage,
};

use super::Explanation;
use crate::{Error, Images};

/// Side of the window that opacities are averaged over, in pixels.
const WINDOW: usize = 15;

/// Percentile of the full colour.
const STRONGEST: f64 = 0.995;

impl Explanation {
    /// W(x) in colour: the hue shows the weights of the colour channels, the opacity their norm. `None` if the
    /// channels are not those of grey or colour pictures.
    pub fn picture(&self) -> Option<RgbaImage> {
        let [height, width] = self.size;
        let colours = self.rgba()?;
        let bytes = colours.iter().map(|x| byte(*x)).collect();
        RgbaImage::from_raw(width as u32, height as u32, bytes)
    }

    /// The colour picture as numbers in [0, 1], `[height, width, 4]`.
    pub fn rgba(&self) -> Option<Vec<f32>> {
        let area = self.contributions.len();
        let doubled = match self.channels {
            1 | 3 => self
                .weights
                .iter()
                .copied()
                .chain(self.weights.iter().map(|w| -w))
                .collect(),
            2 | 6 => self.weights.clone(),
            _ => return None,
        };
        let half = doubled.len() / area.max(1) / 2;
        let mut pixels = vec![0.0; 4 * area];
        let mut strengths = vec![0.0; area];
        for (at, pixel) in pixels.chunks_mut(4).enumerate() {
            let weight = |channel: usize| doubled[channel * area + at];
            let channels = 0..2 * half;
            let largest = channels
                .clone()
                .map(|c| weight(c).abs())
                .fold(0.0, f32::max);
            for (colour, share) in pixel.iter_mut().take(3).enumerate() {
                let channel = colour % half;
                let [plain, inverse] =
                    [channel, channel + half].map(|c| (weight(c) / largest).max(0.0));
                let sum = plain + inverse;
                *share = if sum > 0.0 { plain / sum } else { 0.0 };
            }
            if self.contributions[at] >= 0.0 {
                let squares = channels.map(|c| f64::from(weight(c)).powi(2));
                strengths[at] = squares.sum::<f64>().sqrt() as f32;
            }
        }
        let opacities = smooth(&strengths, self.size, WINDOW);
        let strongest = percentile(&opacities, STRONGEST);
        for (pixel, opacity) in pixels.chunks_mut(4).zip(opacities) {
            pixel[3] = if strongest > 0.0 {
                (opacity / strongest).clamp(0.0, 1.0)
            } else {
                0.0
            };
        }
        Some(pixels)
    }

    /// The colour picture over a pale grey copy of the explained picture. `None` as for
    /// [`Explanation::picture`].
    pub fn overlay(&self, image: &Images) -> Option<RgbImage> {
        let mut under = DynamicImage::from(rgb(image)?).into_luma8();
        for pixel in under.pixels_mut() {
            pixel.0 = pixel.0.map(|v| 128 + v / 2);
        }
        Some(over(&self.picture()?, &under))
    }

    /// The contribution of each pixel: red adds to the logit, blue subtracts, white is 0. The colour scale ends
    /// at the 99.5th percentile of magnitudes, which is returned with the map.
    pub fn contribution_map(&self) -> Option<(RgbImage, f64)> {
        let [height, width] = self.size;
        let magnitudes: Vec<f32> = self.contributions.iter().map(|c| c.abs()).collect();
        let strongest = percentile(&magnitudes, STRONGEST);
        let scale = if strongest > 0.0 { strongest } else { 1.0 };
        let bytes = self
            .contributions
            .iter()
            .flat_map(|c| diverging(c / scale))
            .collect();
        Some((
            RgbImage::from_raw(width as u32, height as u32, bytes)?,
            f64::from(strongest),
        ))
    }
}

/// White at 0, red at 1 and above, blue at -1 and below.
fn diverging(x: f32) -> [u8; 3] {
    let faded = byte(1.0 - x.abs());
    match x > 0.0 {
        true => [255, faded, faded],
        false => [faded, faded, 255],
    }
}

fn over(picture: &RgbaImage, under: &GrayImage) -> RgbImage {
    RgbImage::from_fn(picture.width(), picture.height(), |x, y| {
        let Rgba([r, g, b, alpha]) = *picture.get_pixel(x, y);
        let below = f32::from(under.get_pixel(x, y).0[0]) / 255.0;
        let alpha = f32::from(alpha) / 255.0;
        Rgb([r, g, b].map(|c| byte(alpha * f32::from(c) / 255.0 + (1.0 - alpha) * below)))
    })
}

/// The picture itself, `[1, 1 or 3, height, width]` in [0, 1].
pub(crate) fn rgb(image: &Images) -> Option<RgbImage> {
    let &[_, channels, height, width] = &image.dims[..] else {
        return None;
    };
    let area = (height * width) as usize;
    let colour = |c: usize, at: usize| byte(image.data[c % channels as usize * area + at]);
    let bytes = (0..area)
        .flat_map(|at| [0, 1, 2].map(|c| colour(c, at)))
        .collect();
    RgbImage::from_raw(width as u32, height as u32, bytes)
}

fn byte(x: f32) -> u8 {
    (x.clamp(0.0, 1.0) * 255.0).round() as u8
}

/// Averages over a square window around each pixel, with zeros beyond the edges: the sum divided by the
/// window's area. A window of 0 or 1 changes nothing.
pub(crate) fn smooth(map: &[f32], [height, width]: [usize; 2], window: usize) -> Vec<f32> {
    if window < 2 {
        return map.to_vec();
    }
    // Along rows, then along columns, in double precision so that running sums lose nothing that shows.
    let (before, after) = ((window - 1) / 2, window / 2);
    let line = |values: Vec<f64>| -> Vec<f64> {
        let mut sums = vec![0.0; values.len() + 1];
        for (i, value) in values.iter().enumerate() {
            sums[i + 1] = sums[i] + value;
        }
        (0..values.len())
            .map(|i| {
                sums[i.saturating_add(after).saturating_add(1).min(values.len())]
                    - sums[i.saturating_sub(before)]
            })
            .collect()
    };
    let mut rows: Vec<f64> = Vec::with_capacity(map.len());
    for row in map.chunks(width.max(1)) {
        rows.extend(line(row.iter().map(|x| f64::from(*x)).collect()));
    }
    let mut result = vec![0.0; map.len()];
    let area = (window as f64).powi(2);
    for x in 0..width {
        let column = (0..height).map(|y| rows[y * width + x]).collect();
        for (y, sum) in line(column).into_iter().enumerate() {
            result[y * width + x] = (sum / area) as f32;
        }
    }
    result
}

/// The value below which a share of all values lies, linear between neighbours.
pub(crate) fn percentile(values: &[f32], share: f64) -> f32 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let place = share * last as f64;
    let (below, above) = (
        sorted[place.floor() as usize],
        sorted[place.ceil() as usize],
    );
    (f64::from(below) + (f64::from(above) - f64::from(below)) * place.fract()) as f32
}

/// A picture as the bytes of a PNG file.
///
/// # Errors
/// [`Error::Encode`] if it is too large for one.
pub fn encoded<P>(picture: &ImageBuffer<P, Vec<u8>>) -> Result<Vec<u8>, Error>
where
    P: PixelWithColorType<Subpixel = u8>,
{
    let mut bytes = Cursor::new(Vec::new());
    let done = picture.write_to(&mut bytes, ImageFormat::Png);
    done.map_err(|e| Error::encode("png", e))?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_averaged_with_zeros_beyond_the_edge() {
        let map = [9.0, 0.0, 0.0, 0.0, 0.0, 18.0];
        assert_eq!(smooth(&map, [2, 3], 3), [1.0, 3.0, 2.0, 1.0, 3.0, 2.0]);
        assert_eq!(smooth(&map, [2, 3], 1), map);
        // An even window extends further to the right, as in a convolution padded at its end.
        assert_eq!(smooth(&[4.0, 0.0, 8.0], [1, 3], 2), [1.0, 2.0, 2.0]);
    }

    #[test]
    fn percentiles_lie_between_values() {
        assert_eq!(percentile(&[4.0, 0.0, 2.0], 0.75), 3.0);
        assert_eq!(percentile(&[4.0, 0.0, 2.0], 1.0), 4.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }

    #[test]
    fn nothing_is_white_and_signs_have_colours() {
        assert_eq!(diverging(0.0), [255; 3]);
        assert_eq!(diverging(2.0), [255, 0, 0]);
        assert_eq!(diverging(-0.5), [128, 128, 255]);
    }
}
