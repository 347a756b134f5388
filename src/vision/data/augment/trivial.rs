//! torchvision's `TrivialAugmentWide`: one operation a picture, of random strength.

use rand::RngExt;

use super::{affine, crop, tone};
use crate::vision::images::Pixels;
use crop::Padding;

/// Number of magnitudes of an operation.
const BINS: usize = 31;

/// An operation of TrivialAugment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Color,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
}

impl Operation {
    /// All of them, in torchvision's order.
    pub const ALL: [Operation; 14] = [
        Operation::Identity,
        Operation::ShearX,
        Operation::ShearY,
        Operation::TranslateX,
        Operation::TranslateY,
        Operation::Rotate,
        Operation::Brightness,
        Operation::Color,
        Operation::Contrast,
        Operation::Sharpness,
        Operation::Posterize,
        Operation::Solarize,
        Operation::AutoContrast,
        Operation::Equalize,
    ];

    /// The magnitudes, and whether their sign is random too.
    pub fn magnitudes(self) -> Option<([f32; BINS], bool)> {
        Some(match self {
            Operation::Identity | Operation::AutoContrast | Operation::Equalize => return None,
            Operation::ShearX
            | Operation::ShearY
            | Operation::Brightness
            | Operation::Color
            | Operation::Contrast
            | Operation::Sharpness => (linear(0.0, 0.99), true),
            Operation::TranslateX | Operation::TranslateY => (linear(0.0, 32.0), true),
            Operation::Rotate => (linear(0.0, 135.0), true),
            Operation::Posterize => {
                let bits = |i: usize| 8.0 - (i as f32 / 5.0).round_ties_even();
                (std::array::from_fn(bits), false)
            }
            Operation::Solarize => (linear(255.0, 0.0), false),
        })
    }

    /// Changes a picture.
    pub fn apply(self, mut pixels: Pixels, magnitude: f64) -> Pixels {
        let factor = 1.0 + magnitude;
        let whole = magnitude as i64;
        match self {
            Operation::Identity => {}
            Operation::ShearX => return affine::shear_x(&pixels, magnitude),
            Operation::ShearY => return affine::shear_y(&pixels, magnitude),
            Operation::TranslateX => return crop::shifted(&pixels, [0, whole], Padding::Zeros),
            Operation::TranslateY => return crop::shifted(&pixels, [whole, 0], Padding::Zeros),
            Operation::Rotate => return affine::rotated(&pixels, magnitude),
            Operation::Brightness => tone::brightness(&mut pixels, factor),
            Operation::Color => tone::colour(&mut pixels, factor),
            Operation::Contrast => tone::contrast(&mut pixels, factor),
            Operation::Sharpness => tone::sharpness(&mut pixels, factor),
            Operation::Posterize => tone::posterize(&mut pixels, magnitude as u32),
            Operation::Solarize => tone::solarize(&mut pixels, magnitude),
            Operation::AutoContrast => tone::autocontrast(&mut pixels),
            Operation::Equalize => tone::equalize(&mut pixels),
        }
        pixels
    }
}

/// An operation and its magnitude.
pub(super) fn draw(rng: &mut impl RngExt) -> (Operation, f64) {
    let operation = Operation::ALL[rng.random_range(0..Operation::ALL.len())];
    let Some((magnitudes, signed)) = operation.magnitudes() else {
        return (operation, 0.0);
    };
    let magnitude = f64::from(magnitudes[rng.random_range(0..BINS)]);
    match signed && rng.random() {
        true => (operation, -magnitude),
        false => (operation, magnitude),
    }
}

/// Evenly spaced numbers, computed like `torch.linspace` from the nearer end.
fn linear(first: f32, last: f32) -> [f32; BINS] {
    let step = (last - first) / (BINS - 1) as f32;
    std::array::from_fn(|i| match i < BINS / 2 {
        true => first + step * i as f32,
        false => last - step * (BINS - 1 - i) as f32,
    })
}
