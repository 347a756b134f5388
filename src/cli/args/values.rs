//! Values of options that several commands share.

use std::path::{Path, PathBuf};

use bcosc::passes::{InputContract, LogitBias};
use bcosc::{Preset, Recipe, Verify};
use bcosc_onnx::{ExternalData, STDOUT};
use clap::ValueEnum;
use clap::builder::{PathBufValueParser, TypedValueParser};

/// A file for a result; `-` is standard output.
pub fn result_file() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(|path| match path == Path::new("-") {
        true => STDOUT.into(),
        false => path,
    })
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RecipeArg {
    /// The recipe that fits: it looks for attention
    Auto,
    /// Classic convolutional networks
    Cnn,
    /// Transformers, mixers and networks with layer norms
    Vit,
    /// CLIP image towers
    Clip,
    /// No passes: copy the model
    None,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum InputArg {
    /// What the original took
    Same,
    /// [x, 1-x] with x in [0,1]: twice the channels
    AddInverse,
    /// x in [0,1]
    Rgb,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PresetArg {
    /// torchvision's and timm's default
    Imagenet,
    /// OpenAI's CLIP
    Clip,
    /// Images scaled to [-1,1]
    Inception,
    /// Images in [0,1] as they are
    None,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum VerifyArg {
    /// Once, at the end
    Final,
    /// After every pass too, which finds the pass at fault
    Each,
    /// Never
    Off,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ExternalArg {
    Auto,
    Always,
    Never,
}

/// A logit bias as given.
#[derive(Clone, Copy, Debug)]
pub struct Bias(pub LogitBias);

impl From<RecipeArg> for Recipe {
    fn from(arg: RecipeArg) -> Self {
        match arg {
            RecipeArg::Auto => Recipe::Auto,
            RecipeArg::Cnn => Recipe::Cnn,
            RecipeArg::Vit => Recipe::Vit,
            RecipeArg::Clip => Recipe::Clip,
            RecipeArg::None => Recipe::None,
        }
    }
}

impl From<InputArg> for InputContract {
    fn from(arg: InputArg) -> Self {
        match arg {
            InputArg::Same => InputContract::Same,
            InputArg::AddInverse => InputContract::AddInverse,
            InputArg::Rgb => InputContract::Rgb,
        }
    }
}

impl From<PresetArg> for Preset {
    fn from(arg: PresetArg) -> Self {
        match arg {
            PresetArg::Imagenet => Preset::Imagenet,
            PresetArg::Clip => Preset::Clip,
            PresetArg::Inception => Preset::Inception,
            PresetArg::None => Preset::None,
        }
    }
}

impl From<VerifyArg> for Verify {
    fn from(arg: VerifyArg) -> Self {
        match arg {
            VerifyArg::Final => Verify::Final,
            VerifyArg::Each => Verify::Each,
            VerifyArg::Off => Verify::Off,
        }
    }
}

impl From<ExternalArg> for ExternalData {
    fn from(arg: ExternalArg) -> Self {
        match arg {
            ExternalArg::Auto => ExternalData::Auto,
            ExternalArg::Always => ExternalData::Always,
            ExternalArg::Never => ExternalData::Never,
        }
    }
}
pub fn at_least_two(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count >= 2 => Ok(count),
        _ => Err("a whole number of at least 2 is needed".to_owned()),
    }
}

pub fn logit_bias(text: &str) -> Result<Bias, String> {
    match text {
        "auto" => Ok(Bias(LogitBias::Prior)),
        "none" => Ok(Bias(LogitBias::None)),
        number => match number.parse::<f64>() {
            Ok(bias) if bias.is_finite() => Ok(Bias(LogitBias::Value(bias))),
            _ => Err("`auto`, `none` or a number is needed".to_owned()),
        },
    }
}

pub fn finite(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err("a finite number is needed".to_owned()),
    }
}
