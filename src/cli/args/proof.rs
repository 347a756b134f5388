//! How outputs are compared, by conversions and by `bcosc verify A.onnx B.onnx`.

use std::path::PathBuf;

use bcosc::{InputShape, Verification};
use clap::Args;

use super::values::{at_least_two, result_file};

/// Seeded inputs and how close outputs must be.
#[derive(Args, Clone, Copy, Debug)]
pub struct ProofArgs {
    /// Largest accepted difference of an output, relative to the largest magnitude in it
    #[arg(long, value_name = "TOLERANCE", default_value_t = 1e-4, value_parser = tolerance, help_heading = "Proof")]
    pub rtol: f64,
    /// Number of seeded inputs to compare on; the second is a batch of two where the batch is dynamic
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = at_least_two, help_heading = "Proof")]
    pub samples: usize,
    /// Seed that they are drawn from
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
    /// The model to compare with
    #[arg(value_name = "A.onnx")]
    pub reference: PathBuf,
    /// The model that is checked; if bcosc made it, it is fed as its input contract says, and its
    /// logit bias is left out of the comparison
    #[arg(value_name = "B.onnx")]
    pub candidate: PathBuf,
    #[command(flatten)]
    pub inputs: ProofArgs,
    /// Give an input of both models this shape; for each input once
    #[arg(long, value_name = "NAME:D,D,...")]
    pub input_shapes: Vec<InputShape>,
    /// Write the figures as JSON; `-` is standard output
    #[arg(long, value_name = "FILE.json", value_parser = result_file())]
    pub report: Option<PathBuf>,
}

fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rtol) if rtol > 0.0 && rtol < 1.0 => Ok(rtol),
        _ => Err("a number between 0 and 1 is needed".to_owned()),
    }
}
