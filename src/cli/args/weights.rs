//! `bcosc extract MODEL -o WEIGHTS` and `bcosc merge MODEL WEIGHTS -o OUT`

use std::path::PathBuf;

use bcosc::onnx::ExternalData;
use clap::Args;

use super::values::result_file;

#[derive(Args, Debug)]
pub struct ExtractArgs {
    /// The ONNX model
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Output file, in the safetensors format; `-` is standard output
    #[arg(short, long = "out", value_name = "FILE", value_parser = result_file())]
    pub out: PathBuf,
}

#[derive(Args, Debug)]
pub struct MergeArgs {
    /// The ONNX model
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Weights in the safetensors format, by the names that they have in the model; optimizer state is left out
    #[arg(value_name = "WEIGHTS")]
    pub weights: PathBuf,
    /// Output file; `-` is standard output
    #[arg(short, long = "out", value_name = "FILE", value_parser = result_file())]
    pub out: PathBuf,
    /// Use the moving averages of the parameters (see `train --ema`)
    #[arg(long)]
    pub ema: bool,
    /// Where to store weights
    #[arg(long, value_enum, default_value_t = ExternalData::Auto)]
    pub external_data: ExternalData,
}
