//! The command line.

mod align;
mod conversion;
mod convert;
mod device;
mod eval;
mod explain;
mod explain_graph;
mod images;
mod inspect;
mod normalization;
mod predict;
mod proof;
mod published;
mod step;
mod train;
mod train_graph;
mod values;
mod weights;

use clap::builder::{Styles, styling::AnsiColor};
use clap::{ArgAction, Args, Parser, Subcommand};

pub use align::{AlignArgs, after_conversion};
pub use convert::{ConvertArgs, EmitArg};
pub use eval::EvalArgs;
pub use explain::{ExplainArgs, RawArg};
pub use explain_graph::ExplainGraphArgs;
pub use inspect::InspectArgs;
pub use proof::VerifyArgs;
pub use published::Published;
pub use train::TrainArgs;
pub use train_graph::TrainGraphArgs;
pub use weights::{ExtractArgs, MergeArgs};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const EXAMPLES: &str = "\
Examples:
  bcosc resnet50.onnx -o resnet50.bcos.onnx
  bcosc resnet50.onnx -o out.onnx --input add-inverse --normalization imagenet --calibrate images/
  bcosc inspect resnet50.onnx
  bcosc verify resnet50.onnx out.onnx
  bcosc explain out.onnx cat.jpg -o explained/
  bcosc explain-graph out.onnx -o out.explain.onnx
  bcosc eval out.onnx --data val/ --gridpg
  bcosc resnet50.onnx -o aligned.onnx --normalization imagenet --align photos/
  bcosc train out.onnx --data photos/ -o tuned.onnx
  bcosc train-graph out.onnx -o out.train.onnx

Exit status: 0 on success, 1 on an error (no model is written), 2 on a usage error.";

/// Convert a pretrained ONNX model to a B-cos model, and verify the conversion.
#[derive(Debug, Parser)]
#[command(
    name = "bcosc",
    version,
    styles = STYLES,
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub convert: ConvertArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compare the outputs of two models on seeded inputs
    Verify(VerifyArgs),
    /// Show the structure of a model and what each recipe would change
    Inspect(InspectArgs),
    /// Explain predictions on pictures: colour pictures, contribution maps, arrays
    Explain(ExplainArgs),
    /// Write an ONNX graph that computes the explanations of a model
    ExplainGraph(ExplainGraphArgs),
    /// Evaluate models and their explanations on labelled pictures
    Eval(EvalArgs),
    /// Train a converted model to compute what its original computes, on images without labels
    Align(Box<AlignArgs>),
    /// Train a model on a folder of labelled pictures
    Train(Box<TrainArgs>),
    /// Write an ONNX graph that computes one step of training, and its initial state
    TrainGraph(TrainGraphArgs),
    /// Write the weights of a model as safetensors
    Extract(ExtractArgs),
    /// Put weights from a safetensors file into a model
    Merge(MergeArgs),
}

/// Verbosity, shared by all commands.
#[derive(Args, Clone, Copy, Debug)]
pub struct OutputArgs {
    /// Print errors only
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        help_heading = "Messages"
    )]
    pub quiet: bool,
    /// Verbose; repeat for more detail
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Messages")]
    pub verbose: u8,
}
