//! `bcosc explain-graph MODEL -o OUT`

use std::path::PathBuf;

use bcosc::InputShape;
use bcosc::onnx::ExternalData;
use clap::Args;

use super::values::result_file;

#[derive(Args, Debug)]
pub struct ExplainGraphArgs {
    /// The ONNX model: a B-cos model, or any model whose output is dynamic linear
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Output file; `-` is standard output. The graph has the inputs of the model and `target`, the class of each
    /// image (-1: the predicted class), and the outputs `logits`, `class`, `weights` and `contributions`
    #[arg(short, long = "out", value_name = "FILE", value_parser = result_file())]
    pub out: PathBuf,
    /// The output to explain [default: the first floating-point output]
    #[arg(long = "output", value_name = "NAME")]
    pub explained: Option<String>,
    /// Override the shape of an input: sizes, or names of dynamic dimensions; repeatable
    #[arg(long, value_name = "NAME:D,D,...")]
    pub input_shapes: Vec<InputShape>,
    /// Where to store weights
    #[arg(long, value_enum, default_value_t = ExternalData::Auto)]
    pub external_data: ExternalData,
}
