//! The command line.

mod convert;
mod eval;
mod explain;
mod explain_graph;
mod inspect;
mod normalization;
mod predict;
mod proof;
mod values;

use clap::builder::{Styles, styling::AnsiColor};
use clap::{ArgAction, Args, Parser, Subcommand};

pub use convert::{ConvertArgs, EmitArg};
pub use eval::EvalArgs;
pub use explain::{ExplainArgs, RawArg};
pub use explain_graph::ExplainGraphArgs;
pub use inspect::InspectArgs;
pub use proof::VerifyArgs;

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

Exit status: 0 if all went well, 1 on an error (a conversion writes nothing then), 2 on a wrong command line.";

/// Compile a pretrained ONNX model into a B-cos model, and prove that it still computes what it must.
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
    /// Compare what two models compute on seeded inputs
    Verify(VerifyArgs),
    /// Show what a model consists of, and what each recipe would do to it
    Inspect(InspectArgs),
    /// Explain a model's predictions on pictures: colour pictures, contribution maps, arrays
    Explain(ExplainArgs),
    /// Write the graph that computes a model's explanations: for B-cos models from anywhere
    ExplainGraph(ExplainGraphArgs),
    /// Measure how good models and their explanations are on a folder of labelled pictures
    Eval(EvalArgs),
}

/// How much is told; the same for every command.
#[derive(Args, Clone, Copy, Debug)]
pub struct OutputArgs {
    /// Print nothing but errors
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        help_heading = "Messages"
    )]
    pub quiet: bool,
    /// Tell more; twice for every detail
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Messages")]
    pub verbose: u8,
}
