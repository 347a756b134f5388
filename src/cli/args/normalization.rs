//! Options for the normalisation of images.

use bcosc::Preset;
use bcosc::passes::Normalization;
use clap::Args;

use super::values::finite;

/// A preset, or mean and standard deviation.
#[derive(Args, Clone, Debug)]
pub struct NormalizationArgs {
    /// Normalisation of images for the given model
    #[arg(long, value_enum, conflicts_with_all = ["mean", "std"], help_heading = "Input")]
    pub normalization: Option<Preset>,
    /// Mean of each channel, for images in [0,1] (instead of --normalization)
    #[arg(
        long,
        value_name = "M,M,M",
        value_delimiter = ',',
        value_parser = finite,
        requires = "std",
        allow_hyphen_values = true,
        help_heading = "Input"
    )]
    pub mean: Option<Vec<f64>>,
    /// Standard deviation of each channel
    #[arg(
        long,
        value_name = "S,S,S",
        value_delimiter = ',',
        value_parser = finite,
        requires = "mean",
        allow_hyphen_values = true,
        help_heading = "Input"
    )]
    pub std: Option<Vec<f64>>,
}

impl NormalizationArgs {
    /// The normalisation that the flags give.
    pub fn given(&self) -> Option<Normalization> {
        match (&self.normalization, &self.mean, &self.std) {
            (Some(preset), ..) => Some(preset.normalization()),
            (None, Some(mean), Some(std)) => Some(Normalization {
                mean: mean.clone(),
                std: std.clone(),
            }),
            _ => None,
        }
    }
}
