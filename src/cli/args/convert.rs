//! `bcosc MODEL -o OUT`

use std::path::PathBuf;

use bcosc::onnx::ExternalData;
use bcosc::passes::{InputContract, Settings};
use bcosc::{
    Calibration, CalibrationFiles, InputShape, Options, Recipe, Selection, Verification, Verify,
};
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};

use super::normalization::NormalizationArgs;
use super::proof::ProofArgs;
use super::values::{Bias, at_least_two, logit_bias, result_file};

#[derive(Args, Debug)]
pub struct ConvertArgs {
    /// The ONNX model to convert
    #[arg(value_name = "MODEL", required_unless_present = "list_passes")]
    pub model: Option<PathBuf>,
    /// Output file; `-` is standard output
    #[arg(short, long = "out", value_name = "FILE", value_parser = result_file(), required_unless_present_any = ["list_passes", "dry_run"])]
    pub output: Option<PathBuf>,

    /// Exponent of the B-cos transform; at least 1
    #[arg(long, value_name = "B", default_value_t = 2.0, value_parser = b, help_heading = "Conversion")]
    pub b: f64,
    /// Recipe: the list of passes for a kind of network
    #[arg(long, value_enum, default_value_t = Recipe::Auto, help_heading = "Conversion")]
    pub recipe: Recipe,
    /// Keep biases
    #[arg(long, help_heading = "Conversion")]
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
    /// Rewrite for fast inference on the CPU with ONNX Runtime
    #[arg(long, help_heading = "Conversion")]
    pub deploy: bool,

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
    /// Outputs to keep, such as the logits without auxiliary heads [default: all]
    #[arg(
        long = "output",
        value_name = "NAME,...",
        value_delimiter = ',',
        help_heading = "Input"
    )]
    pub outputs: Vec<String>,

    /// Measure norm statistics on images: a folder (jpg, png, webp), or a .npy array of float32
    /// [N,C,H,W] in the input format of the converted model
    #[arg(long, value_name = "DIR|FILE.npy", help_heading = "Calibration")]
    pub calibrate: Option<PathBuf>,
    /// Maximum number of calibration images; they are spread evenly over the folder
    #[arg(long, value_name = "N", default_value_t = CalibrationFiles::IMAGES, requires = "calibrate", value_parser = at_least_two,
        help_heading = "Calibration")]
    pub calibrate_images: usize,

    /// When to compare with the original
    #[arg(long, value_enum, default_value_t = Verify::Final, help_heading = "Proof")]
    pub verify: Verify,
    #[command(flatten)]
    pub inputs: ProofArgs,

    /// Run exactly these passes, in this order, instead of those of the recipe
    #[arg(long, value_name = "PASS,...", value_delimiter = ',', value_parser = pass_names(), hide_possible_values = true,
        help_heading = "Passes")]
    pub passes: Option<Vec<String>>,
    /// Passes to skip
    #[arg(long, value_name = "PASS,...", value_delimiter = ',', value_parser = pass_names(), hide_possible_values = true,
        help_heading = "Passes")]
    pub skip_pass: Vec<String>,
    /// Stop after this pass
    #[arg(long, value_name = "PASS", value_parser = pass_names(), hide_possible_values = true, help_heading = "Passes")]
    pub stop_after: Option<String>,
    /// List all passes and exit
    #[arg(long, exclusive = true, help_heading = "Passes")]
    pub list_passes: bool,
    /// Write the model as text to this folder after every pass
    #[arg(long, value_name = "DIR", help_heading = "Passes")]
    pub dump_ir: Option<PathBuf>,

    /// Upgrade the model to this opset version first
    #[arg(long, value_name = "VERSION", help_heading = "Output")]
    pub opset: Option<i64>,
    /// Where to store weights
    #[arg(long, value_enum, default_value_t = ExternalData::Auto, help_heading = "Output")]
    pub external_data: ExternalData,
    /// Write additional graphs next to the output: `out.onnx` gets `out.explain.onnx`
    #[arg(
        long,
        value_enum,
        value_name = "GRAPH,...",
        value_delimiter = ',',
        help_heading = "Output"
    )]
    pub emit: Vec<EmitArg>,
    /// Write a report of the passes and the proof as JSON; `-` is standard output
    #[arg(long, value_name = "FILE.json", value_parser = result_file(), help_heading = "Output")]
    pub report: Option<PathBuf>,
    /// Convert and verify, but do not write the model
    #[arg(long, help_heading = "Output")]
    pub dry_run: bool,
}

/// Graphs that can be written next to the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EmitArg {
    /// Explanation graph: logits, W(x) and contributions
    Explain,
}

fn b(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(b) if b.is_finite() && b >= 1.0 => Ok(b),
        _ => Err("expected a number of at least 1".to_owned()),
    }
}

fn pass_names() -> PossibleValuesParser {
    PossibleValuesParser::new(bcosc::all_passes().iter().map(|pass| pass.name))
}

impl ConvertArgs {
    /// The options of the library.
    pub fn options(&self) -> Options {
        Options {
            recipe: self.recipe,
            passes: Selection {
                only: self.passes.clone(),
                skip: self.skip_pass.clone(),
                stop_after: self.stop_after.clone(),
            },
            settings: Settings {
                b: self.b,
                input: self.input,
                normalization: self.normalized.given(),
                absorb_normalization: self.absorb_normalization,
                keep_biases: self.keep_biases,
                keep_max_pool: self.keep_max_pool,
                keep_head: self.keep_head,
                attention_unpool: self.attention_unpool,
                bcos_projection: self.bcos_projection,
                logit_bias: self.logit_bias.0,
                deploy: self.deploy,
                opset: self.opset,
                ..Settings::default()
            },
            input_shapes: self.input_shapes.clone(),
            outputs: self.outputs.clone(),
            verification: Verification {
                when: self.verify,
                ..self.inputs.into()
            },
            calibration: self.calibrate.as_ref().map(|source| {
                Calibration::Files(CalibrationFiles {
                    images: self.calibrate_images,
                    ..CalibrationFiles::new(source)
                })
            }),
        }
    }
}
