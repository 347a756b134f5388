//! What a conversion does, for commands that convert.

use bcosc::passes::{Biases, InputContract, Settings};
use bcosc::{InputShape, Recipe};
use clap::Args;

use super::normalization::NormalizationArgs;
use super::values::{Bias, logit_bias};

/// Options that change the converted model.
#[derive(Args, Clone, Debug)]
pub struct ConversionArgs {
    /// Exponent of the B-cos transform; at least 1
    #[arg(long, value_name = "B", default_value_t = 2.0, value_parser = b, help_heading = "Conversion")]
    pub b: f64,
    /// B of the last layer before each output
    #[arg(long, value_name = "B", value_parser = b, help_heading = "Conversion")]
    pub b_last: Option<f64>,
    /// B of the layers whose names match a pattern such as `layer4.*`; repeatable, the last that matches counts
    #[arg(long, value_name = "PATTERN=B", value_parser = layer_b, help_heading = "Conversion")]
    pub b_layer: Vec<(String, f64)>,
    /// Recipe: the list of passes for a kind of network
    #[arg(long, value_enum, default_value_t = Recipe::Auto, help_heading = "Conversion")]
    pub recipe: Recipe,
    /// What becomes of biases [default: remove; carry with --method grow; keep with --bias-decay]
    #[arg(long, value_enum, help_heading = "Conversion")]
    pub biases: Option<Biases>,
    /// The same as --biases keep
    #[arg(long, conflicts_with = "biases", help_heading = "Conversion")]
    pub keep_biases: bool,
    /// Keep max pooling instead of replacing it by average pooling
    #[arg(long, help_heading = "Conversion")]
    pub keep_max_pool: bool,
    /// Keep the head after the mean over positions
    #[arg(long, help_heading = "Conversion")]
    pub keep_head: bool,
    /// Output a unit vector for every position instead of one for the image (models with an attention pool)
    #[arg(long, help_heading = "Conversion")]
    pub attention_unpool: bool,
    /// Convert the output projection of an attention pool too
    #[arg(long, help_heading = "Conversion")]
    pub bcos_projection: bool,
    /// Constant added to every class logit; `auto` is -ln(K-1) for K classes
    #[arg(long, value_name = "auto|none|NUMBER", default_value = "auto", value_parser = logit_bias,
        allow_hyphen_values = true, help_heading = "Conversion")]
    pub logit_bias: Bias,
    /// Input format of the converted model
    #[arg(long, value_enum, default_value_t = InputContract::Same, help_heading = "Input")]
    pub input: InputContract,
    #[command(flatten)]
    pub normalized: NormalizationArgs,
    /// Fold the normalisation into the first layer (requires --input add-inverse or rgb)
    #[arg(long, help_heading = "Input")]
    pub absorb_normalization: bool,
    /// Override the shape of an input: sizes, or names of dynamic dimensions; repeatable
    #[arg(long, value_name = "NAME:D,D,...", help_heading = "Input")]
    pub input_shapes: Vec<InputShape>,
}

pub fn b(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(b) if b.is_finite() && b >= 1.0 => Ok(b),
        _ => Err("expected a number of at least 1".to_owned()),
    }
}

fn layer_b(text: &str) -> Result<(String, f64), String> {
    let parts = text
        .rsplit_once('=')
        .filter(|(pattern, _)| !pattern.is_empty());
    let (pattern, number) = parts.ok_or("expected PATTERN=B, such as layer4.*=1.25")?;
    Ok((pattern.to_owned(), b(number)?))
}

impl ConversionArgs {
    /// The settings of the passes.
    pub fn settings(&self) -> Settings {
        Settings {
            b: self.b,
            b_last: self.b_last,
            b_layers: self.b_layer.clone(),
            input: self.input,
            normalization: self.normalized.given(),
            absorb_normalization: self.absorb_normalization,
            biases: match self.keep_biases {
                true => Some(Biases::Keep),
                false => self.biases,
            },
            keep_max_pool: self.keep_max_pool,
            keep_head: self.keep_head,
            attention_unpool: self.attention_unpool,
            bcos_projection: self.bcos_projection,
            logit_bias: self.logit_bias.0,
            ..Settings::default()
        }
    }
}
