//! Changes of brightness and colour, as Pillow computes them.

use crate::vision::images::Pixels;

/// `degenerate + factor * (picture - degenerate)`, cut off at 0 and 255.
fn blended(degenerate: u8, value: u8, factor: f32) -> u8 {
    let (from, to) = (f32::from(degenerate), f32::from(value));
    (from + factor * (to - from)) as u8
}

/// Towards black at factor 0.
pub(super) fn brightness(pixels: &mut Pixels, factor: f64) {
    let factor = factor as f32;
    map(pixels, |value| blended(0, value, factor));
}

/// Towards the mean of the grey picture.
pub(super) fn contrast(pixels: &mut Pixels, factor: f64) {
    let greys = pixels.data.chunks_exact(pixels.channels).map(grey);
    let sum: u64 = greys.map(u64::from).sum();
    let count = (pixels.height * pixels.width).max(1);
    let (mean, factor) = ((sum as f64 / count as f64 + 0.5) as u8, factor as f32);
    map(pixels, |value| blended(mean, value, factor));
}

/// Towards the grey picture.
pub(super) fn colour(pixels: &mut Pixels, factor: f64) {
    let factor = factor as f32;
    for pixel in pixels.data.chunks_exact_mut(pixels.channels) {
        let grey = grey(pixel);
        for value in pixel {
            *value = blended(grey, *value, factor);
        }
    }
}

/// Towards a smooth picture: the mean of 3 x 3 pixels, the middle one five times. The outermost pixels stay.
pub(super) fn sharpness(pixels: &mut Pixels, factor: f64) {
    let &mut Pixels {
        channels,
        height,
        width,
        ..
    } = pixels;
    if height < 3 || width < 3 {
        return;
    }
    let factor = factor as f32;
    let before = pixels.data.clone();
    let row_bytes = width * channels;
    for y in 1..height - 1 {
        for at in y * row_bytes + channels..(y + 1) * row_bytes - channels {
            let around = |row: usize| {
                [row - channels, row, row + channels].map(|place| u32::from(before[place]))
            };
            let rows = [at - row_bytes, at, at + row_bytes].map(around);
            let sum = rows.as_flattened().iter().sum::<u32>() + 4 * rows[1][1];
            // Rounded: thirteenths are never half a number.
            let smooth = ((2 * sum + 13) / 26) as u8;
            pixels.data[at] = blended(smooth, before[at], factor);
        }
    }
}

/// Keeps the highest bits.
pub(super) fn posterize(pixels: &mut Pixels, bits: u32) {
    let mask = !(0xff_u32 >> bits.min(8)) as u8;
    map(pixels, |value| value & mask);
}

/// Inverts what is not below a threshold.
pub(super) fn solarize(pixels: &mut Pixels, threshold: f64) {
    map(pixels, |value| match f64::from(value) < threshold {
        true => value,
        false => 255 - value,
    });
}

/// Stretches each channel to the whole range.
pub(super) fn autocontrast(pixels: &mut Pixels) {
    map_channels(pixels, |histogram| {
        let low = histogram.iter().position(|count| *count > 0)?;
        let high = histogram.iter().rposition(|count| *count > 0)?;
        if high <= low {
            return None;
        }
        let scale = 255.0 / (high - low) as f64;
        let offset = -(low as f64) * scale;
        Some(std::array::from_fn(|value| {
            (value as f64 * scale + offset) as u8
        }))
    });
}

/// Makes all values of a channel about equally frequent.
pub(super) fn equalize(pixels: &mut Pixels) {
    map_channels(pixels, |histogram| {
        let total: u64 = histogram.iter().sum();
        let largest = histogram.iter().rfind(|count| **count > 0)?;
        let step = (total - largest) / 255;
        if step == 0 {
            return None;
        }
        let mut below = step / 2;
        Some(histogram.map(|count| {
            let value = below / step;
            below += count;
            value.min(255) as u8
        }))
    });
}

/// The brightness of a pixel (ITU-R 601-2, in fixed point).
fn grey(pixel: &[u8]) -> u8 {
    match *pixel {
        [red, green, blue] => {
            let [red, green, blue] = [red, green, blue].map(u32::from);
            ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16) as u8
        }
        _ => pixel.first().copied().unwrap_or_default(),
    }
}

fn map(pixels: &mut Pixels, change: impl Fn(u8) -> u8) {
    let table: [u8; 256] = std::array::from_fn(|value| change(value as u8));
    for value in &mut pixels.data {
        *value = table[usize::from(*value)];
    }
}

/// Maps each channel by a table made of its histogram, or leaves it.
fn map_channels(pixels: &mut Pixels, table: impl Fn([u64; 256]) -> Option<[u8; 256]>) {
    for channel in 0..pixels.channels {
        let mut histogram = [0; 256];
        for value in pixels.plane(channel) {
            histogram[usize::from(value)] += 1;
        }
        let Some(table) = table(histogram) else {
            continue;
        };
        let plane = pixels.data.iter_mut().skip(channel);
        for value in plane.step_by(pixels.channels) {
            *value = table[usize::from(*value)];
        }
    }
}
