//! `bcosc train-graph MODEL -o OUT`

use std::path::PathBuf;

use bcosc::InputShape;
use bcosc::onnx::ExternalData;
use clap::Args;

use super::step::StepArgs;
use super::values::result_file;

#[derive(Args, Debug)]
pub struct TrainGraphArgs {
    /// The ONNX model: a converted model, or any other whose output is one vector per image
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Output file; `-` is standard output. The inputs are those of the model, `targets`, `learning_rate`, `step`
    /// and the state; the outputs are `loss`, `logits` and the new state
    #[arg(
        short,
        long = "out",
        value_name = "FILE",
        required_unless_present = "dry_run",
        value_parser = result_file()
    )]
    pub out: Option<PathBuf>,
    /// Where to write the initial state: parameters, optimizer state and running statistics
    /// [default: FILE with the extension .safetensors]
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Write the model with the step as its TrainingInfoProto, as the ONNX standard has it, instead of a graph of its own; the
    /// state is in the same file
    #[arg(long, conflicts_with = "state")]
    pub training_info: bool,
    /// Take B of all B-cos layers as an input, `b`
    #[arg(long, conflicts_with = "learn_b")]
    pub b_input: bool,
    /// List the parameters and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Take a target for every class (float, N x K) instead of labels (int64, N)
    #[arg(long)]
    pub soft_targets: bool,
    #[command(flatten)]
    pub step: StepArgs,
    /// The output to train [default: the first floating-point output]
    #[arg(long = "output", value_name = "NAME", help_heading = "Model")]
    pub trained: Option<String>,
    /// Override the shape of an input: sizes, or names of dynamic dimensions; repeatable
    #[arg(long, value_name = "NAME:D,D,...", help_heading = "Model")]
    pub input_shapes: Vec<InputShape>,
    /// Where to store weights
    #[arg(long, value_enum, default_value_t = ExternalData::Auto, help_heading = "Model")]
    pub external_data: ExternalData,
}
