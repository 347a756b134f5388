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
    /// Where to write the result; `-` is standard output
    #[arg(short, long = "out", value_name = "FILE", value_parser = result_file(), required_unless_present_any = ["list_passes", "dry_run"])]
    pub output: Option<PathBuf>,

    /// Exponent of the B-cos transform, at least 1
    #[arg(long, value_name = "B", default_value_t = 2.0, value_parser = b, help_heading = "Conversion")]
    pub b: f64,
    /// Which passes run: those for a kind of network
    #[arg(long, value_enum, default_value_t = Recipe::Auto, help_heading = "Conversion")]
    pub recipe: Recipe,
    /// Leave biases in
    #[arg(long, help_heading = "Conversion")]
    pub keep_biases: bool,
    /// Leave max pooling in instead of averaging
    #[arg(long, help_heading = "Conversion")]
    pub keep_max_pool: bool,
    /// Leave the head behind the mean over positions
    #[arg(long, help_heading = "Conversion")]
    pub keep_head: bool,
    /// Put out a unit vector for every position, where an attention pool puts out one for the image
    #[arg(long, help_heading = "Conversion")]
    pub attention_unpool: bool,
    /// Make the layer behind an attention pool a B-cos layer too
    #[arg(long, help_heading = "Conversion")]
    pub bcos_projection: bool,
    /// What is added to every class logit: `auto` is -ln(K-1) for K classes
    #[arg(long, value_name = "auto|none|NUMBER", default_value = "auto", value_parser = logit_bias,
        allow_hyphen_values = true, help_heading = "Conversion")]
    pub logit_bias: Bias,
    /// Rewrite for fast inference on the CPU with ONNX Runtime
    #[arg(long, help_heading = "Conversion")]
    pub deploy: bool,

    /// What the converted model takes
    #[arg(long, value_enum, default_value_t = InputContract::Same, help_heading = "Input")]
    pub input: InputContract,
    #[command(flatten)]
    pub normalized: NormalizationArgs,
    /// Fold the normalisation into the first layer (with --input add-inverse or rgb)
    #[arg(long, help_heading = "Input")]
    pub absorb_normalization: bool,
    /// Give an input another shape: sizes, or names of those that stay open; for each input once
    #[arg(long, value_name = "NAME:D,D,...", help_heading = "Input")]
    pub input_shapes: Vec<InputShape>,
    /// Keep these outputs of the model only, such as logits without auxiliary heads or hidden states
    #[arg(
        long = "output",
        value_name = "NAME,...",
        value_delimiter = ',',
        help_heading = "Input"
    )]
    pub outputs: Vec<String>,

    /// Measure norm statistics on images: a folder of jpg, png or webp, or a .npy array of float32
    /// [N,C,H,W] in the form that the converted model takes
    #[arg(long, value_name = "DIR|FILE.npy", help_heading = "Calibration")]
    pub calibrate: Option<PathBuf>,
    /// How many of them to use at most, spread evenly
    #[arg(long, value_name = "N", default_value_t = CalibrationFiles::IMAGES, requires = "calibrate", value_parser = at_least_two,
        help_heading = "Calibration")]
    pub calibrate_images: usize,

    /// When to compare with the original
    #[arg(long, value_enum, default_value_t = Verify::Final, help_heading = "Proof")]
    pub verify: Verify,
    #[command(flatten)]
    pub inputs: ProofArgs,

    /// Run exactly these passes, in this order, instead of the recipe's
    #[arg(long, value_name = "PASS,...", value_delimiter = ',', value_parser = pass_names(), hide_possible_values = true,
        help_heading = "Passes")]
    pub passes: Option<Vec<String>>,
    /// Leave passes out
    #[arg(long, value_name = "PASS,...", value_delimiter = ',', value_parser = pass_names(), hide_possible_values = true,
        help_heading = "Passes")]
    pub skip_pass: Vec<String>,
    /// Run no pass after this one
    #[arg(long, value_name = "PASS", value_parser = pass_names(), hide_possible_values = true, help_heading = "Passes")]
    pub stop_after: Option<String>,
    /// List all passes and end
    #[arg(long, exclusive = true, help_heading = "Passes")]
    pub list_passes: bool,
    /// Write the model as text into this folder after every pass
    #[arg(long, value_name = "DIR", help_heading = "Passes")]
    pub dump_ir: Option<PathBuf>,

    /// Raise the model to this version of the ONNX operator set
    #[arg(long, value_name = "VERSION", help_heading = "Output")]
    pub opset: Option<i64>,
    /// Where large weights go: `auto` puts them beside the model if they came so, or pass 2 GB
    #[arg(long, value_enum, default_value_t = ExternalData::Auto, help_heading = "Output")]
    pub external_data: ExternalData,
    /// Write other graphs of the result beside it: `out.onnx` gets `out.explain.onnx`
    #[arg(
        long,
        value_enum,
        value_name = "GRAPH,...",
        value_delimiter = ',',
        help_heading = "Output"
    )]
    pub emit: Vec<EmitArg>,
    /// Write what was done and how the result compares, as JSON; `-` is standard output
    #[arg(long, value_name = "FILE.json", value_parser = result_file(), help_heading = "Output")]
    pub report: Option<PathBuf>,
    /// Do everything but write the model
    #[arg(long, help_heading = "Output")]
    pub dry_run: bool,
}

/// Graphs that can be written beside the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EmitArg {
    /// Computes logits, W(x) and contributions
    Explain,
}

fn b(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(b) if b.is_finite() && b >= 1.0 => Ok(b),
        _ => Err("a number of at least 1 is needed".to_owned()),
    }
}

fn pass_names() -> PossibleValuesParser {
    PossibleValuesParser::new(bcosc::all_passes().iter().map(|pass| pass.name))
}

impl ConvertArgs {
    /// What the library is asked for.
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
