//! Preprocessing and prediction options, shared by all commands that run a model on pictures.

use std::path::PathBuf;

use bcosc::passes::InputContract;
use bcosc::{InputShape, PredictOptions, Probability};
use clap::{Args, ValueEnum};

use super::device::RunArgs;
use super::normalization::NormalizationArgs;
use super::values::{finite, size};

/// Preprocessing and prediction; defaults come from the metadata of the model.
#[derive(Args, Clone, Debug)]
pub struct PredictArgs {
    /// Input format of the model [default: from its metadata; otherwise `add-inverse` if the number of channels is
    /// even, `same` if it is odd]
    #[arg(long, value_enum, help_heading = "Input")]
    pub input: Option<InputContract>,
    #[command(flatten)]
    pub normalized: NormalizationArgs,
    /// Override the shape of an input: sizes, or names of dynamic dimensions; repeatable
    #[arg(long, value_name = "NAME:D,D,...", help_heading = "Input")]
    pub input_shapes: Vec<InputShape>,
    /// Height and width of pictures if they are dynamic in the model: one number for both, or two
    #[arg(long, value_name = "H[,W]", value_parser = size, help_heading = "Input")]
    pub size: Option<[usize; 2]>,
    /// Share of the shorter side that the centre crop keeps (crop_pct in timm)
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, value_parser = share, help_heading = "Input")]
    pub crop: f64,

    /// The output with the logits [default: the first floating-point output]
    #[arg(long = "output", value_name = "NAME", help_heading = "Prediction")]
    pub predicted: Option<String>,
    /// Constant that the model adds to every class logit [default: from its metadata or last node]
    #[arg(
        long,
        value_name = "NUMBER",
        value_parser = finite,
        allow_hyphen_values = true,
        help_heading = "Prediction"
    )]
    pub logit_bias: Option<f64>,
    /// How logits become probabilities
    #[arg(long, value_enum, default_value_t = ProbabilityArg::Auto, help_heading = "Prediction")]
    pub probability: ProbabilityArg,
    /// Class names: a text file (UTF-8) with one name per line, in the order of the logits and without a heading; or
    /// `imagenet`, whose 1,000 names are built in
    #[arg(long, value_name = "FILE", help_heading = "Prediction")]
    pub labels: Option<PathBuf>,

    #[command(flatten)]
    pub run: RunArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ProbabilityArg {
    /// Sigmoid if there is a logit bias, softmax otherwise
    Auto,
    /// Softmax over all classes
    Softmax,
    /// Sigmoid per class, as B-cos models are trained
    Sigmoid,
}

impl PredictArgs {
    /// The options of the library.
    pub fn options(&self) -> PredictOptions {
        PredictOptions {
            input_shapes: self.input_shapes.clone(),
            output: self.predicted.clone(),
            input: self.input,
            normalization: self.normalized.given(),
            size: self.size,
            crop: self.crop,
            logit_bias: self.logit_bias,
            probability: match self.probability {
                ProbabilityArg::Auto => None,
                ProbabilityArg::Softmax => Some(Probability::Softmax),
                ProbabilityArg::Sigmoid => Some(Probability::Sigmoid),
            },
            device: self.run.on.device,
            precision: self.run.precision,
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    match finite(text) {
        Ok(number) if number > 0.0 && number <= 1.0 => Ok(number),
        _ => Err("expected a number above 0 and at most 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_one_number_or_two() {
        assert_eq!(size("224"), Ok([224, 224]));
        assert_eq!(size("224, 160"), Ok([224, 160]));
        for wrong in ["", "0", "224,", "224x160", "1,2,3", "-4"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_share_lies_between_0_and_1() {
        assert_eq!(share("0.875"), Ok(0.875));
        for wrong in ["0", "1.01", "nan", "all"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
