//! What the user can choose.

use serde::Serialize;

/// Form of the converted model's input.
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InputContract {
    /// What the original took; the graph builds [xn, -xn].
    #[default]
    Same,
    /// [x, 1-x] with x in [0, 1]: twice the channels.
    AddInverse,
    /// x in [0, 1]; the graph builds [x, 1-x].
    Rgb,
}

/// Per-channel mean and standard deviation that the original's input was normalised with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Normalization {
    /// One mean a channel, on images in [0, 1].
    pub mean: Vec<f64>,
    /// One standard deviation a channel, on images in [0, 1].
    pub std: Vec<f64>,
}

/// What is added to every class logit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogitBias {
    /// `-ln(K - 1)` for K classes: sigmoids start at the prior probability 1/K.
    #[default]
    Prior,
    /// Nothing.
    None,
    /// A given number.
    Value(f64),
}

/// Settings of a conversion.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// Exponent of the B-cos transform, at least 1.
    pub b: f64,
    /// Form of the converted model's input.
    pub input: InputContract,
    /// How the original's input was normalised; needed by contracts that take raw images.
    pub normalization: Option<Normalization>,
    /// Fold the normalisation into the first layer.
    pub absorb_normalization: bool,
    /// Leave biases in.
    pub keep_biases: bool,
    /// Leave max pooling in.
    pub keep_max_pool: bool,
    /// Leave the head behind the mean over positions.
    pub keep_head: bool,
    /// Let attention pools put out every position.
    pub attention_unpool: bool,
    /// Make the layer behind an attention pool a B-cos layer.
    pub bcos_projection: bool,
    /// What is added to the logits.
    pub logit_bias: LogitBias,
    /// Rewrite for fast inference on the CPU with ONNX Runtime.
    pub deploy: bool,
    /// The opset to raise the model to.
    pub opset: Option<i64>,
    /// Constants that folding may create, in bytes, beyond what they replace.
    pub largest_constant: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            b: 2.0,
            input: InputContract::Same,
            normalization: None,
            absorb_normalization: false,
            keep_biases: false,
            keep_max_pool: false,
            keep_head: false,
            attention_unpool: false,
            bcos_projection: false,
            logit_bias: LogitBias::Prior,
            deploy: false,
            opset: None,
            largest_constant: 64 * 1024,
        }
    }
}
