//! How pictures enter a model: the same for every command that runs one on pictures.

use std::path::PathBuf;

use bcosc::passes::InputContract;
use bcosc::{InputShape, PredictOptions, Probability};
use clap::{Args, ValueEnum};

use super::normalization::NormalizationArgs;
use super::values::finite;

/// What a model does not say of itself.
#[derive(Args, Clone, Debug)]
pub struct PredictArgs {
    /// What the model takes [default: what its metadata says; else `add-inverse` if its number of channels
    /// is even, and `same` if not]
    #[arg(long, value_enum, help_heading = "Input")]
    pub input: Option<InputContract>,
    #[command(flatten)]
    pub normalized: NormalizationArgs,
    /// Give an input another shape: sizes, or names of those that stay open; for each input once
    #[arg(long, value_name = "NAME:D,D,...", help_heading = "Input")]
    pub input_shapes: Vec<InputShape>,
    /// Height and width of pictures, where the model leaves them open: one number for both, or two
    #[arg(long, value_name = "H[,W]", value_parser = size, help_heading = "Input")]
    pub size: Option<[usize; 2]>,
    /// How much of a picture's shorter side is kept when its centre is cut out: timm's crop_pct
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, value_parser = share, help_heading = "Input")]
    pub crop: f64,

    /// The output that holds the logits [default: the first that is floating point]
    #[arg(long = "output", value_name = "NAME", help_heading = "Prediction")]
    pub predicted: Option<String>,
    /// What the model adds to every class logit [default: what its metadata or its last node says]
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
    /// Names of the classes: a text file (UTF-8) with one name a line, in the order of the logits and without a heading;
    /// or `imagenet`, whose 1,000 names are built in
    #[arg(long, value_name = "FILE", help_heading = "Prediction")]
    pub labels: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ProbabilityArg {
    /// Sigmoid where there is a logit bias, softmax where there is none
    Auto,
    /// One distribution over all classes
    Softmax,
    /// Each class for itself, as B-cos models are trained
    Sigmoid,
}

impl PredictArgs {
    /// What the library is asked for.
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
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    match finite(text) {
        Ok(number) if number > 0.0 && number <= 1.0 => Ok(number),
        _ => Err("a number above 0, and at most 1, is needed".to_owned()),
    }
}

fn size(text: &str) -> Result<[usize; 2], String> {
    let (height, width) = text.split_once(',').unwrap_or((text, text));
    let side = |text: &str| text.trim().parse().ok().filter(|side| *side > 0);
    match (side(height), side(width)) {
        (Some(height), Some(width)) => Ok([height, width]),
        _ => {
            Err("a size such as 224 is needed, or a height and a width such as 224,160".to_owned())
        }
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
    fn a_share_is_of_something() {
        assert_eq!(share("0.875"), Ok(0.875));
        for wrong in ["0", "1.01", "nan", "all"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
