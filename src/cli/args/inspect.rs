//! `bcosc inspect MODEL`

use std::path::PathBuf;

use clap::Args;

#[derive(Args, Debug)]
pub struct InspectArgs {
    /// The ONNX model
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Print JSON
    #[arg(long, conflicts_with = "text")]
    pub json: bool,
    /// Print the graph in ONNX's textual syntax
    #[arg(long)]
    pub text: bool,
    /// With --text: print all weights instead of abbreviating them
    #[arg(long, requires = "text")]
    pub full: bool,
}
