//! `bcosc explain-graph MODEL -o OUT`

use std::path::PathBuf;

use bcosc::InputShape;
use bcosc::onnx::ExternalData;
use clap::Args;

use super::values::result_file;

#[derive(Args, Debug)]
pub struct ExplainGraphArgs {
    /// The ONNX model: a B-cos model, or another whose output is dynamic linear
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Where to write the graph. Inputs: the model's, and `target`, the class of each image (-1: the
    /// predicted one). Outputs: `logits`, `class`, `weights` and `contributions`. `-` is standard output
    #[arg(short, long = "out", value_name = "FILE", value_parser = result_file())]
    pub out: PathBuf,
    /// The output to explain
    #[arg(long = "output", value_name = "NAME")]
    pub explained: Option<String>,
    /// Give an input another shape: sizes, or names of those that stay open; for each input once
    #[arg(long, value_name = "NAME:D,D,...")]
    pub input_shapes: Vec<InputShape>,
    /// Where large weights go
    #[arg(long, value_enum, default_value_t = ExternalData::Auto)]
    pub external_data: ExternalData,
}
