//! Settings of the passes.

use serde::Serialize;

/// Input format of the converted model.
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InputContract {
    /// The input of the original; the graph computes [x, -x]
    #[default]
    Same,
    /// [x, 1-x] with x in [0, 1]: twice the channels
    AddInverse,
    /// x in [0, 1]; the graph computes [x, 1-x]
    Rgb,
}

/// What becomes of the biases of layers and norms.
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Biases {
    /// Removed
    #[default]
    Remove,
    /// Kept, as constants that no contribution explains
    Keep,
    /// Kept as weights on x + (1-x), so that contributions explain them (requires --input add-inverse or rgb)
    Carry,
}

/// Per-channel mean and standard deviation that the original's input was normalised with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Normalization {
    /// One mean per channel, for images in [0, 1].
    pub mean: Vec<f64>,
    /// One standard deviation per channel, for images in [0, 1].
    pub std: Vec<f64>,
}

/// The constant added to every class logit.
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
    /// Exponent of the B-cos transform; at least 1.
    pub b: f64,
    /// Exponent of the last B-cos layers before the outputs, where it is another.
    pub b_last: Option<f64>,
    /// Exponents of layers whose names match a pattern. Of several that match, the last counts.
    pub b_layers: Vec<(String, f64)>,
    /// Input format of the converted model.
    pub input: InputContract,
    /// Normalisation of the original's input; required by input formats that take raw images.
    pub normalization: Option<Normalization>,
    /// Fold the normalisation into the first layer.
    pub absorb_normalization: bool,
    /// What becomes of biases; by default they are removed, unless something else needs them. See [`Settings::biases`].
    pub biases: Option<Biases>,
    /// Keep max pooling.
    pub keep_max_pool: bool,
    /// Keep the head after the mean over positions.
    pub keep_head: bool,
    /// Make attention pools output every position.
    pub attention_unpool: bool,
    /// Convert the output projection of an attention pool.
    pub bcos_projection: bool,
    /// The constant added to the logits.
    pub logit_bias: LogitBias,
    /// Rewrite for fast inference on the CPU with ONNX Runtime.
    pub deploy: bool,
    /// The opset to upgrade the model to.
    pub opset: Option<i64>,
    /// Largest constant that folding may create, in bytes, beyond the size of the parameters it replaces.
    pub largest_constant: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            b: 2.0,
            b_last: None,
            b_layers: Vec::new(),
            input: InputContract::Same,
            normalization: None,
            absorb_normalization: false,
            biases: None,
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

impl Settings {
    /// What becomes of biases.
    pub fn biases(&self) -> Biases {
        self.biases.unwrap_or_default()
    }

    /// The same with one exponent for all layers.
    pub fn with_b(&self, b: f64) -> Self {
        Settings {
            b,
            b_last: None,
            b_layers: Vec::new(),
            ..self.clone()
        }
    }
}
