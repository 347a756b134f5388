//! Random changes of training pictures, in the order of torchvision's recipes: crop, flip, TrivialAugment.

mod affine;
mod crop;
mod tone;
mod trivial;

#[cfg(test)]
mod reference;

use rand::RngExt;

use crate::Error;
use crate::vision::images::{Frame, Pixels, framed, resized};

pub use crop::Padding;

/// What is changed at random.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augmentation {
    /// Which part of a picture is taken.
    pub crop: Crop,
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// One operation of torchvision's `TrivialAugmentWide` a picture.
    pub trivial_augment: bool,
    /// Mixes each picture of a batch with the one before it, and their targets too: `share * x[i] + (1 - share) * x[i - 1]`,
    /// where one share for the batch is drawn from Beta(alpha, alpha).
    pub mixup_alpha: Option<f64>,
}

/// Which part of a picture is taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Crop {
    /// The centre, as in evaluation.
    Center,
    /// The centre, shifted at random: torchvision's `RandomCrop` with padding.
    Shift {
        /// Maximum distance along each axis.
        distance: Distance,
        /// What moves in.
        padding: Padding,
    },
    /// A region of random size and shape: torchvision's `RandomResizedCrop`.
    RandomResized {
        /// Bounds of its share of the area.
        scale: [f64; 2],
        /// Bounds of its width divided by its height.
        ratio: [f64; 2],
    },
}

/// How far a picture is shifted at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distance {
    /// So many pixels.
    Pixels(usize),
    /// A share of the shorter side, but at least a pixel.
    Share(f64),
}

impl Distance {
    fn pixels(self, [height, width]: [usize; 2]) -> usize {
        match self {
            Distance::Pixels(pixels) => pixels,
            Distance::Share(share) => ((height.min(width) as f64 * share) as usize).max(1),
        }
    }
}

impl Augmentation {
    /// Nothing is changed.
    pub const NONE: Self = Augmentation {
        crop: Crop::Center,
        flip: 0.0,
        trivial_augment: false,
        mixup_alpha: None,
    };

    /// Shifts by up to `pixels`, with zeros around the picture, and flips: usual for small pictures, with 4 pixels.
    pub fn shift(pixels: usize) -> Self {
        Augmentation::shift_by(Distance::Pixels(pixels))
    }

    /// Shifts by up to a distance, with zeros around the picture, and flips.
    pub fn shift_by(distance: Distance) -> Self {
        Augmentation {
            crop: Crop::Shift {
                distance,
                padding: Padding::Zeros,
            },
            flip: 0.5,
            ..Augmentation::NONE
        }
    }

    /// Random regions of 8% to 100% of the area and aspect ratios of 3/4 to 4/3, and flips: usual for ImageNet.
    pub fn random_resized_crop() -> Self {
        Augmentation {
            crop: Crop::RandomResized {
                scale: [0.08, 1.0],
                ratio: [3.0 / 4.0, 4.0 / 3.0],
            },
            flip: 0.5,
            ..Augmentation::NONE
        }
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// [`Error::Options`] for what is out of range.
    pub(super) fn check(&self, [height, width]: [usize; 2]) -> Result<(), Error> {
        let fail = |problem: String| Err(Error::Options(problem));
        let ordered = |[low, high]: [f64; 2]| low > 0.0 && low <= high && high.is_finite();
        match self.crop {
            Crop::Center => {}
            Crop::Shift { distance, padding } => {
                if let Distance::Share(share) = distance
                    && !(share > 0.0 && share <= 1.0)
                {
                    return fail(format!(
                        "pictures cannot be shifted by a share of {share}: it is above 0 and at most 1"
                    ));
                }
                let (least, pixels) = (height.min(width), distance.pixels([height, width]));
                let limit = match padding {
                    Padding::Zeros => least,
                    Padding::Reflect => least.saturating_sub(1),
                };
                if pixels > limit {
                    return fail(format!(
                        "pictures of {height} x {width} cannot be shifted by {pixels} pixels, but by at most {limit}"
                    ));
                }
            }
            Crop::RandomResized { scale, ratio } => {
                if !ordered(scale) || scale[1] > 1.0 {
                    return fail(format!(
                        "a random crop of {} to {} of the area is not possible: bounds are above 0 and at most 1",
                        scale[0], scale[1]
                    ));
                }
                if !ordered(ratio) {
                    return fail(format!(
                        "a random crop with aspect ratios of {} to {} is not possible: bounds are above 0, the smaller first",
                        ratio[0], ratio[1]
                    ));
                }
            }
        }
        if !(0.0..=1.0).contains(&self.flip) {
            return fail(format!(
                "the probability of a flip is {}, and must be between 0 and 1",
                self.flip
            ));
        }
        match self.mixup_alpha {
            Some(alpha) if !(alpha > 0.0 && alpha.is_finite()) => fail(format!(
                "the alpha of mixup is {alpha}, and must be above 0"
            )),
            _ => Ok(()),
        }
    }

    /// What can be done once for a picture, before anything random.
    pub(super) fn prepare(&self, decoded: Pixels, frame: Frame) -> Result<Pixels, String> {
        match self.crop {
            Crop::RandomResized { .. } => Ok(decoded),
            Crop::Center | Crop::Shift { .. } => framed(&decoded, frame),
        }
    }

    /// The picture that a batch gets, of a prepared one.
    pub(super) fn apply(
        &self,
        prepared: &Pixels,
        frame: Frame,
        rng: &mut impl RngExt,
    ) -> Result<Pixels, String> {
        let mut pixels = match self.crop {
            Crop::Center => prepared.clone(),
            Crop::Shift { distance, padding } => {
                let reach = distance.pixels([frame.height, frame.width]) as i64;
                let [down, right] = [(); 2].map(|()| rng.random_range(-reach..=reach));
                crop::shifted(prepared, [down, right], padding)
            }
            Crop::RandomResized { scale, ratio } => {
                let region = crop::random_region(prepared, scale, ratio, rng);
                resized(prepared, region, [frame.height, frame.width])?
            }
        };
        if rng.random::<f64>() < self.flip {
            crop::flip(&mut pixels);
        }
        if self.trivial_augment {
            let (operation, magnitude) = trivial::draw(rng);
            pixels = operation.apply(pixels, magnitude);
        }
        Ok(pixels)
    }
}
