//! Options of a conversion.

use std::path::PathBuf;
use std::str::FromStr;

use bcosc_ir::{Dim, Tensor};
use bcosc_passes::{Biases, InputContract, Normalization, Settings};
use bytes::Bytes;
use serde::{Serialize, Serializer};

use crate::{DeviceChoice, Error};

/// The source of a model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Source {
    /// A file; external data is read from the same folder.
    Path(PathBuf),
    /// A model in memory, without external data.
    Bytes(Bytes),
}

impl From<PathBuf> for Source {
    fn from(path: PathBuf) -> Self {
        Source::Path(path)
    }
}

impl From<&PathBuf> for Source {
    fn from(path: &PathBuf) -> Self {
        Source::Path(path.clone())
    }
}

impl From<&std::path::Path> for Source {
    fn from(path: &std::path::Path) -> Self {
        Source::Path(path.to_owned())
    }
}

impl From<&str> for Source {
    fn from(path: &str) -> Self {
        Source::Path(path.into())
    }
}

impl From<Bytes> for Source {
    fn from(bytes: Bytes) -> Self {
        Source::Bytes(bytes)
    }
}

impl From<Vec<u8>> for Source {
    fn from(bytes: Vec<u8>) -> Self {
        Source::Bytes(bytes.into())
    }
}

/// The list of passes to run.
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Recipe {
    /// Chosen by the structure of the model
    #[default]
    Auto,
    /// Convolutional networks
    Cnn,
    /// Transformers, mixers and networks with layer norms
    Vit,
    /// CLIP image encoders
    Clip,
    /// No passes: copy the model
    None,
}

impl Recipe {
    /// The recipe's name on the command line and in metadata.
    pub fn name(self) -> &'static str {
        match self {
            Recipe::Auto => "auto",
            Recipe::Cnn => "cnn",
            Recipe::Vit => "vit",
            Recipe::Clip => "clip",
            Recipe::None => "none",
        }
    }
}

/// Selection of passes of a recipe, by the names in `bcosc --list-passes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Selection {
    /// Run exactly these, in this order, instead of the recipe's list.
    pub only: Option<Vec<String>>,
    /// Skip these.
    pub skip: Vec<String>,
    /// Stop after this one.
    pub stop_after: Option<String>,
}

/// When to compare the model with the original.
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// Never
    Off,
    /// After all passes
    #[default]
    Final,
    /// After every pass: a failure names the first pass that is wrong
    Each,
}

/// Options of the comparison with the original.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verification {
    /// When to compare.
    pub when: Verify,
    /// Largest accepted difference of an output, relative to the largest magnitude in it.
    pub rtol: f64,
    /// Number of inputs, at least 2: a single input cannot show whether outputs depend on the input.
    pub samples: usize,
    /// Seed for the inputs.
    pub seed: u64,
}

impl Default for Verification {
    fn default() -> Self {
        Verification {
            when: Verify::Final,
            rtol: 1e-4,
            samples: 2,
            seed: 0,
        }
    }
}

/// Images to measure norm statistics on.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Calibration {
    /// A batch `[N, C, ...]` in the input format of the converted model.
    Batch(#[serde(serialize_with = "dims_of")] Tensor),
    /// Images on disk.
    #[cfg(feature = "vision")]
    Files(CalibrationFiles),
}

fn dims_of<S: Serializer>(batch: &Tensor, serializer: S) -> Result<S::Ok, S::Error> {
    batch.dims().serialize(serializer)
}

/// Calibration images on disk.
#[cfg(feature = "vision")]
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CalibrationFiles {
    /// A folder of images (searched recursively), or a `.npy` array `[N,C,H,W]` of float32 in the
    /// input format of the converted model.
    pub source: PathBuf,
    /// Maximum number of images, spread evenly over the sorted folder.
    pub images: usize,
    /// The images of the folder to choose from; all if it is empty.
    #[serde(skip)]
    pub among: Vec<PathBuf>,
    /// Leave out images that cannot be read, instead of failing.
    #[serde(skip)]
    pub skip_unreadable: bool,
}

#[cfg(feature = "vision")]
impl CalibrationFiles {
    /// Default number of images.
    pub const IMAGES: usize = 64;

    /// Calibration on at most [`CalibrationFiles::IMAGES`] images.
    pub fn new(source: impl Into<PathBuf>) -> Self {
        CalibrationFiles {
            source: source.into(),
            images: Self::IMAGES,
            among: Vec::new(),
            skip_unreadable: false,
        }
    }
}

/// A new shape for one input of the model, such as `image:1,3,224,224`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InputShape {
    /// Name of the input.
    pub input: String,
    /// All dimensions, outermost first.
    #[serde(serialize_with = "as_text")]
    pub dims: Vec<Dim>,
}

impl FromStr for InputShape {
    type Err = String;

    /// Parses `NAME:D,D,...`, where D is a size or the name of a dynamic dimension. The name of the input
    /// may contain colons.
    fn from_str(text: &str) -> Result<Self, String> {
        let (input, dims) = text
            .rsplit_once(':')
            .ok_or_else(|| "expected NAME:D,D,..., such as image:1,3,224,224".to_owned())?;
        if input.is_empty() {
            return Err("expected the name of an input before the colon".to_owned());
        }
        let dims = dims
            .split(',')
            .map(|dim| dimension(dim.trim()))
            .collect::<Result<_, _>>()?;
        Ok(InputShape {
            input: input.to_owned(),
            dims,
        })
    }
}

fn as_text<S: Serializer>(dims: &[Dim], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(dims.iter().map(ToString::to_string))
}

fn dimension(text: &str) -> Result<Dim, String> {
    let is_name = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    match text.parse() {
        Ok(size) if size > 0 => Ok(Dim::Known(size)),
        Err(_) if is_name => Ok(Dim::Symbol(text.to_owned())),
        _ => Err(format!(
            "`{text}` is not a dimension: expected a positive whole number or a name"
        )),
    }
}

/// Mean and standard deviation that well-known networks were trained with, on images in [0, 1].
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Default of torchvision and timm
    Imagenet,
    /// OpenAI CLIP
    Clip,
    /// Images scaled to [-1, 1]
    Inception,
    /// Images in [0, 1], unchanged
    None,
}

impl Preset {
    /// The mean and standard deviation: one number per channel, or one for all channels.
    pub fn normalization(self) -> Normalization {
        let (mean, std): (&[f64], &[f64]) = match self {
            Preset::Imagenet => (&[0.485, 0.456, 0.406], &[0.229, 0.224, 0.225]),
            Preset::Clip => (
                &[0.481_454_66, 0.457_827_5, 0.408_210_73],
                &[0.268_629_54, 0.261_302_58, 0.275_777_11],
            ),
            Preset::Inception => (&[0.5], &[0.5]),
            Preset::None => (&[0.0], &[1.0]),
        };
        Normalization {
            mean: mean.to_vec(),
            std: std.to_vec(),
        }
    }
}

/// Options of a conversion. The default converts with B = 2 and verifies the result.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Options {
    /// The list of passes to run.
    pub recipe: Recipe,
    /// Selection of its passes.
    pub passes: Selection,
    /// B, the input format, the opset, and other settings of the passes. A mean or standard
    /// deviation of length 1 applies to all channels.
    pub settings: Settings,
    /// New shapes of inputs.
    pub input_shapes: Vec<InputShape>,
    /// The outputs to keep, by name, in this order; all where empty.
    pub outputs: Vec<String>,
    /// How the result is compared with the original.
    pub verification: Verification,
    /// Images to measure norm statistics on.
    pub calibration: Option<Calibration>,
    /// Where models run, for calibration and the comparison.
    pub device: DeviceChoice,
}

impl Options {
    /// Checks everything that does not need a model.
    ///
    /// # Errors
    /// [`Error::Options`] if a number is out of range or two options conflict.
    pub fn validate(&self) -> Result<(), Error> {
        let fail = |text: String| Err(Error::Options(text));
        let settings = &self.settings;
        if !settings.b.is_finite() || settings.b < 1.0 {
            return fail(format!("B is {}, but must be at least 1", settings.b));
        }
        let others = settings
            .b_layers
            .iter()
            .map(|(_, b)| *b)
            .chain(settings.b_last);
        if let Some(b) = others.into_iter().find(|b| !b.is_finite() || *b < 1.0) {
            return fail(format!("B of a layer is {b}, but must be at least 1"));
        }
        if let Some(normalization) = &settings.normalization {
            check_normalization(normalization)?;
        }
        if settings.absorb_normalization && settings.input == InputContract::Same {
            return fail("absorbing the normalisation requires input format `add-inverse` or `rgb`: with `same` the model takes normalised images".to_owned());
        }
        if settings.biases() == Biases::Carry && settings.input == InputContract::Same {
            return fail("carrying biases requires input format `add-inverse` or `rgb`: x and 1-x add up to a constant, x and -x to 0".to_owned());
        }
        if let bcosc_passes::LogitBias::Value(bias) = settings.logit_bias
            && !bias.is_finite()
        {
            return fail(format!("the logit bias is {bias}, but must be finite"));
        }
        let verification = &self.verification;
        if !verification.rtol.is_finite() || verification.rtol <= 0.0 || verification.rtol >= 1.0 {
            return fail(format!(
                "the tolerance is {}, but must be between 0 and 1",
                verification.rtol
            ));
        }
        if verification.samples < 2 {
            return fail(
                "at least 2 samples are needed to check that outputs depend on the input"
                    .to_owned(),
            );
        }
        let images = match &self.calibration {
            Some(Calibration::Batch(batch)) => batch.dims().first().copied(),
            #[cfg(feature = "vision")]
            Some(Calibration::Files(files)) => Some(files.images as u64),
            None => return Ok(()),
        };
        match images {
            Some(2..) => Ok(()),
            _ => fail("at least 2 images are needed to measure statistics".to_owned()),
        }
    }
}

/// Checks that images can be normalised with these numbers.
pub(crate) fn check_normalization(normalization: &Normalization) -> Result<(), Error> {
    let fail = |text: String| Err(Error::Options(text));
    let Normalization { mean, std } = normalization;
    if mean.len() != std.len() && mean.len() != 1 && std.len() != 1 {
        return fail(format!(
            "the mean has {} channels and the standard deviation has {}",
            mean.len(),
            std.len()
        ));
    }
    if mean.is_empty() || std.is_empty() {
        return fail("mean and standard deviation need at least one number each".to_owned());
    }
    if mean.iter().any(|m| !m.is_finite()) {
        return fail("the mean must consist of finite numbers".to_owned());
    }
    if std.iter().any(|s| !s.is_finite() || *s <= 0.0) {
        return fail("the standard deviation must consist of numbers above 0".to_owned());
    }
    Ok(())
}

/// Name of an input format on the command line and in metadata.
pub(crate) fn contract_name(contract: InputContract) -> &'static str {
    match contract {
        InputContract::Same => "same",
        InputContract::AddInverse => "add-inverse",
        InputContract::Rgb => "rgb",
    }
}
