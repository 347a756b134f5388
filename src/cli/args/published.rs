//! The hyperparameters that B-cosification (arXiv 2411.00715) was published with, by recipe.
//!
//! Facts from its experiments on ImageNet: 90 epochs of Adam at 1e-4 without warm-up, half a cosine wave, adaptive clipping
//! with factor 0.01; transformers in batches of 1024 with mixup 0.2; CLIP image encoders by the loss of SigLIP between student
//! and teacher.

use bcosc::Recipe;

use super::step::{LossArg, OptimizerArg};

/// Defaults that take the place of the usual ones.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    pub epochs: u64,
    pub batch_size: usize,
    pub lr: f64,
    pub optimizer: OptimizerArg,
    pub agc: Option<f64>,
    pub mixup_alpha: Option<f64>,
    pub loss: LossArg,
}

impl Published {
    /// What is used where no recipe is chosen.
    pub const USUAL: Published = Published {
        epochs: 10,
        batch_size: 128,
        lr: 1e-3,
        optimizer: OptimizerArg::Adamw,
        agc: None,
        mixup_alpha: None,
        loss: LossArg::Bce,
    };

    const CNN: Published = Published {
        epochs: 90,
        batch_size: 256,
        lr: 1e-4,
        optimizer: OptimizerArg::Adam,
        agc: Some(0.01),
        ..Self::USUAL
    };

    const VIT: Published = Published {
        batch_size: 1024,
        mixup_alpha: Some(0.2),
        ..Self::CNN
    };

    const CLIP: Published = Published {
        loss: LossArg::Siglip,
        ..Self::CNN
    };

    /// The hyperparameters of a recipe.
    pub fn of(recipe: Recipe) -> Self {
        match recipe {
            Recipe::Cnn => Self::CNN,
            Recipe::Vit => Self::VIT,
            Recipe::Clip => Self::CLIP,
            Recipe::Auto | Recipe::None => Self::USUAL,
        }
    }
}
