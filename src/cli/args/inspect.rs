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
    /// Print the graph in the ONNX textual syntax
    #[arg(long)]
    pub text: bool,
    /// With --text: do not abbreviate weights
    #[arg(long, requires = "text")]
    pub full: bool,
}
