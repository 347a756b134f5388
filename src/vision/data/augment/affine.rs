//! Affine maps as Pillow computes them: nearest pixel, in fixed point, with black around the picture.

use crate::vision::images::Pixels;

/// `[a, b, c, d, e, f]`: the output's pixel at (x, y) is the input's at (a x + b y + c, d x + e y + f), where pixels are at half
/// numbers.
type Matrix = [f64; 6];

/// Bits after the point.
const POINT: u32 = 16;

/// Moves a pixel at (x, y) to (x + factor y, y).
pub(super) fn shear_x(pixels: &Pixels, factor: f64) -> Pixels {
    transformed(pixels, [1.0, factor, 0.0, 0.0, 1.0, 0.0])
}

/// Moves a pixel at (x, y) to (x, y + factor x).
pub(super) fn shear_y(pixels: &Pixels, factor: f64) -> Pixels {
    transformed(pixels, [1.0, 0.0, 0.0, factor, 1.0, 0.0])
}

/// Turns counter-clockwise around the centre.
pub(super) fn rotated(pixels: &Pixels, degrees: f64) -> Pixels {
    let angle = -degrees.rem_euclid(360.0).to_radians();
    // Right angles are exact.
    let rounded = |x: f64| (x * 1e15).round_ties_even() / 1e15;
    let (cos, sin) = (rounded(angle.cos()), rounded(angle.sin()));
    let [x, y] = [pixels.width, pixels.height].map(|side| side as f64 / 2.0);
    let right = cos * -x + sin * -y + x;
    let down = -sin * -x + cos * -y + y;
    transformed(pixels, [cos, sin, right, -sin, cos, down])
}

fn transformed(pixels: &Pixels, [a, b, c, d, e, f]: Matrix) -> Pixels {
    let fixed = |x: f64| (x * f64::from(1 << POINT) + 0.5).floor() as i64;
    let &Pixels {
        channels,
        height,
        width,
        ..
    } = pixels;
    let step = [a, d].map(fixed);
    let next_row = [b, e].map(fixed);
    let mut start = [c + a * 0.5 + b * 0.5, f + d * 0.5 + e * 0.5].map(fixed);
    let mut data = vec![0; pixels.data.len()];
    for row in data.chunks_exact_mut((width * channels).max(1)) {
        let [mut x, mut y] = start;
        for pixel in row.chunks_exact_mut(channels) {
            let place = [(x >> POINT, width), (y >> POINT, height)];
            let place = place.map(|(at, side)| usize::try_from(at).ok().filter(|at| *at < side));
            if let [Some(column), Some(row)] = place {
                let from = (row * width + column) * channels;
                pixel.copy_from_slice(&pixels.data[from..][..channels]);
            }
            x += step[0];
            y += step[1];
        }
        start = [start[0] + next_row[0], start[1] + next_row[1]];
    }
    Pixels { data, ..*pixels }
}
