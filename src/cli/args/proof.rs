//! Options of the comparison of outputs, for conversions and for `bcosc verify A.onnx B.onnx`.

use std::path::PathBuf;

use bcosc::{InputShape, Verification};
use clap::Args;

use super::device::DeviceArgs;
use super::values::{at_least_two, result_file};

/// Seeded inputs and tolerance.
#[derive(Args, Clone, Copy, Debug)]
pub struct ProofArgs {
    /// Relative tolerance: largest accepted difference of an output, relative to its largest magnitude
    #[arg(long, value_name = "TOLERANCE", default_value_t = 1e-4, value_parser = tolerance, help_heading = "Proof")]
    pub rtol: f64,
    /// Number of seeded inputs; the second is a batch of two if the batch size is dynamic
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = at_least_two, help_heading = "Proof")]
    pub samples: usize,
    /// Seed for the inputs
    #[arg(long, value_name = "SEED", default_value_t = 0, help_heading = "Proof")]
    pub seed: u64,
}

impl From<ProofArgs> for Verification {
    fn from(args: ProofArgs) -> Self {
        Verification {
            rtol: args.rtol,
            samples: args.samples,
            seed: args.seed,
            ..Verification::default()
        }
    }
}

#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// The reference model
    #[arg(value_name = "A.onnx")]
    pub reference: PathBuf,
    /// The model to check. For models converted by bcosc, inputs are converted to the input format and the logit
    /// bias is ignored
    #[arg(value_name = "B.onnx")]
    pub candidate: PathBuf,
    #[command(flatten)]
    pub inputs: ProofArgs,
    #[command(flatten)]
    pub on: DeviceArgs,
    /// Override the shape of an input of both models; repeatable
    #[arg(long, value_name = "NAME:D,D,...")]
    pub input_shapes: Vec<InputShape>,
    /// Write the figures as JSON; `-` is standard output
    #[arg(long, value_name = "FILE.json", value_parser = result_file())]
    pub report: Option<PathBuf>,
}

fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rtol) if rtol > 0.0 && rtol < 1.0 => Ok(rtol),
        _ => Err("expected a number between 0 and 1".to_owned()),
    }
}
