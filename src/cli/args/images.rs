//! Images that models learn from, and how models are evaluated on those that are held out.

use std::path::PathBuf;

use bcosc::PointingOptions;
use bcosc::data::{Augmentation, Distance, SplitOptions, Unreadable};
use clap::{Args, ValueEnum};

use super::values::{above_zero, fraction, positive, size};

/// Random changes of training images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AugmentArg {
    /// A random part of the image, resized, and a random flip: usual for photographs
    Crop,
    /// Shifts by up to 4 pixels, with black moving in, and a random flip: usual for small images
    Shift,
    /// Shifts by up to an eighth of the image, with black moving in, and a random flip
    ShiftEighth,
    /// The centre of the image
    None,
}

impl From<AugmentArg> for Augmentation {
    fn from(augment: AugmentArg) -> Self {
        match augment {
            AugmentArg::Crop => Augmentation::random_resized_crop(),
            AugmentArg::Shift => Augmentation::shift(4),
            AugmentArg::ShiftEighth => Augmentation::shift_by(Distance::Share(0.125)),
            AugmentArg::None => Augmentation::NONE,
        }
    }
}

/// Images for training.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Images")]
pub struct ImageArgs {
    /// Also apply one operation of torchvision's TrivialAugmentWide to each image
    #[arg(long)]
    pub trivial_augment: bool,
    /// Mix pairs of images, by a share from Beta(ALPHA, ALPHA)
    #[arg(long, value_name = "ALPHA", num_args = 0..=1, default_missing_value = "0.2", value_parser = positive)]
    pub mixup_alpha: Option<f64>,
    /// Threads that decode and change images
    #[arg(short = 'j', long, value_name = "N", default_value_t = 2)]
    pub workers: usize,
    /// Share of the images, or of each class, that is held out for evaluation, where DIR has no folder `val`
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = fraction)]
    pub val_split: f64,
    /// Skip images that cannot be read, instead of stopping
    #[arg(long)]
    pub skip_unreadable: bool,
    /// Height and width of pictures if they are dynamic in the model: one number for both, or two
    #[arg(long, value_name = "H[,W]", value_parser = size)]
    pub size: Option<[usize; 2]>,
    /// Class names, one per line, in the order of the logits; or `imagenet`
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
}

impl ImageArgs {
    /// What is changed at random. Without `--mixup-alpha`, images are mixed by `usual_mixup`.
    pub fn augmentation(&self, augment: AugmentArg, usual_mixup: Option<f64>) -> Augmentation {
        Augmentation {
            trivial_augment: self.trivial_augment,
            mixup_alpha: self.mixup_alpha.or(usual_mixup),
            ..augment.into()
        }
    }

    /// How images are divided.
    pub fn split(&self, seed: u64) -> SplitOptions {
        SplitOptions {
            validation: self.val_split,
            seed,
            ..SplitOptions::default()
        }
    }

    /// What happens if an image cannot be read.
    pub fn unreadable(&self) -> Unreadable {
        match self.skip_unreadable {
            true => Unreadable::Skip,
            false => Unreadable::Fail,
        }
    }
}

/// Evaluation on images that are held out.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Evaluation")]
pub struct HeldOutArgs {
    /// Maximum number of held-out images for evaluation, spread evenly [default: all]
    #[arg(long, value_name = "N", value_parser = above_zero)]
    pub val_images: Option<usize>,
    /// Explain so many held-out images before and after training, side by side in one picture; 0 for none
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub sheet: usize,
    /// Play the grid pointing game on held-out images before and after training, if they have labels
    #[arg(long)]
    pub gridpg: bool,
    /// Number of grids
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = above_zero, requires = "gridpg")]
    pub grids: usize,
    /// Side of the window that contributions are averaged over in the game, in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = PointingOptions::default().smooth, requires = "gridpg")]
    pub smooth: usize,
}

impl HeldOutArgs {
    /// The grid pointing game, if it is played.
    pub fn pointing(&self) -> Option<PointingOptions> {
        self.gridpg.then(|| PointingOptions {
            grids: self.grids,
            cells: Some(vec![3]),
            smooth: self.smooth,
        })
    }
}
