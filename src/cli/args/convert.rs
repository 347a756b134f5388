//! `bcosc MODEL -o OUT`

use std::path::PathBuf;

#[cfg(feature = "cuda")]
use bcosc::engine::Precision;
use bcosc::onnx::ExternalData;
use bcosc::passes::Settings;
use bcosc::{Calibration, CalibrationFiles, Options, Selection, Verification, Verify};
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};

use super::conversion::ConversionArgs;
use super::device::DeviceArgs;
use super::proof::ProofArgs;
use super::values::{at_least_two, result_file};

#[derive(Args, Debug)]
pub struct ConvertArgs {
    /// The ONNX model to convert
    #[arg(value_name = "MODEL", required_unless_present = "list_passes")]
    pub model: Option<PathBuf>,
    /// Output file; `-` is standard output
    #[arg(short, long = "out", value_name = "FILE", value_parser = result_file(), required_unless_present_any = ["list_passes", "dry_run"])]
    pub output: Option<PathBuf>,

    #[command(flatten)]
    pub conversion: ConversionArgs,
    /// Rewrite for fast inference on the CPU with ONNX Runtime
    #[arg(long, help_heading = "Conversion")]
    pub deploy: bool,
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

    /// Also align the model with its original, on a folder of pictures without labels; `bcosc align` has the options
    #[arg(long, value_name = "DIR", conflicts_with_all = ["deploy", "emit", "report", "dry_run", "dump_ir"], help_heading = "Alignment")]
    pub align: Option<PathBuf>,

    /// When to compare with the original
    #[arg(long, value_enum, default_value_t = Verify::Final, help_heading = "Proof")]
    pub verify: Verify,
    #[command(flatten)]
    pub inputs: ProofArgs,
    #[command(flatten)]
    pub on: DeviceArgs,

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
    /// Write additional graphs next to the output: `out.onnx` gets `out.explain.onnx`, `out.train.onnx` and
    /// `out.train.safetensors`, or the folder `out.cuda`
    #[arg(
        long,
        value_enum,
        value_name = "GRAPH,...",
        value_delimiter = ',',
        help_heading = "Output"
    )]
    pub emit: Vec<EmitArg>,
    /// Images per step of --emit cuda
    #[cfg(feature = "cuda")]
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..), requires = "emit",
        help_heading = "Output")]
    pub emit_batch: u64,
    /// How the step of --emit cuda rounds products: `fp32` not at all, `tf32` factors, `bf16` factors and results
    #[cfg(feature = "cuda")]
    #[arg(
        long,
        value_name = "fp32|tf32|bf16",
        default_value_t,
        requires = "emit",
        help_heading = "Output"
    )]
    pub emit_precision: Precision,
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
    /// Training-step graph and its initial state, with the defaults of `train-graph`
    Train,
    /// Folder with a training step for NVIDIA GPUs: kernels, plan, weights, and a program that runs it
    #[cfg(feature = "cuda")]
    Cuda,
}

fn pass_names() -> PossibleValuesParser {
    PossibleValuesParser::new(bcosc::all_passes().iter().map(|pass| pass.name))
}

impl ConvertArgs {
    /// The options of the library.
    pub fn options(&self) -> Options {
        Options {
            recipe: self.conversion.recipe,
            passes: Selection {
                only: self.passes.clone(),
                skip: self.skip_pass.clone(),
                stop_after: self.stop_after.clone(),
            },
            settings: Settings {
                deploy: self.deploy,
                opset: self.opset,
                ..self.conversion.settings()
            },
            input_shapes: self.conversion.input_shapes.clone(),
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
            device: self.on.device,
        }
    }
}
