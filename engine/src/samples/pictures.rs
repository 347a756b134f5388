//! Synthetic pictures: a few waves over a coloured background, and noise.

use std::f64::consts::TAU;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt};

const WAVES: usize = 5;
const NOISE: f64 = 0.08;

/// Draws a picture with values in [0, 1], planes first.
///
/// It has smooth regions as well as fine texture, and all draws
/// differ in both.
pub(crate) fn picture(
    rng: &mut Xoshiro256PlusPlus,
    channels: usize,
    height: usize,
    width: usize,
) -> Vec<f64> {
    let waves: [(Vec<f64>, Vec<f64>); WAVES] =
        std::array::from_fn(|_| (wave(rng, height), wave(rng, width)));
    let mut pixels = Vec::with_capacity(channels * height * width);
    for _ in 0..channels {
        let ground = rng.random_range(0.3..0.7);
        let strengths: [f64; WAVES] = std::array::from_fn(|_| rng.random_range(-0.25..0.25));
        for y in 0..height {
            let row: [f64; WAVES] = std::array::from_fn(|k| strengths[k] * waves[k].0[y]);
            for x in 0..width {
                let light: f64 = row.iter().zip(&waves).map(|(s, wave)| s * wave.1[x]).sum();
                let noise = NOISE * (2.0 * unit(rng) - 1.0);
                pixels.push((ground + light + noise).clamp(0.0, 1.0));
            }
        }
    }
    pixels
}

/// A cosine along one side, of up to six periods.
fn wave(rng: &mut Xoshiro256PlusPlus, length: usize) -> Vec<f64> {
    let step = rng.random_range(0.3..6.0) / length.max(1) as f64;
    let phase = unit(rng);
    (0..length)
        .map(|i| (TAU * (step * i as f64 + phase)).cos())
        .collect()
}

/// A number in [0, 1).
fn unit(rng: &mut impl Rng) -> f64 {
    rng.random()
}
