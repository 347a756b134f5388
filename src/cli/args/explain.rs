//! `bcosc explain MODEL IMAGE... -o DIR`

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::predict::PredictArgs;
use super::values::result_file;

#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// The ONNX model: a B-cos model, an explanation graph, or any model whose output is dynamic linear
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Pictures (jpg, png or webp), or folders of them
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<PathBuf>,
    /// Output folder. For each picture: NAME.explanation.png (W(x) in colour, with the weight as opacity),
    /// NAME.overlay.png (the same over the picture) and NAME.contributions.png (red adds to the logit, blue
    /// subtracts). Names include the class if several are explained. Optional with --sheet or --report
    #[arg(short, long = "out", value_name = "DIR", required_unless_present_any = ["sheet", "report"])]
    pub out: Option<PathBuf>,

    /// Classes to explain, by number or, with --labels, by name [default: the predicted one]
    #[arg(
        long,
        value_name = "CLASS,...",
        conflicts_with = "top",
        help_heading = "Prediction"
    )]
    pub class: Vec<String>,
    /// Explain the K most likely classes
    #[arg(
        long,
        value_name = "K",
        default_value_t = 1,
        help_heading = "Prediction"
    )]
    pub top: usize,
    #[command(flatten)]
    pub predict: PredictArgs,

    /// Also write the arrays as DIR/NAME.npz, DIR/NAME.safetensors or both: weights, contributions, logits,
    /// residual, preprocessing
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT,...",
        value_delimiter = ',',
        num_args = 0..,
        require_equals = true,
        default_missing_value = "npz,safetensors",
        requires = "out",
        help_heading = "Output"
    )]
    pub raw: Vec<RawArg>,
    /// Write pictures, explanations and contributions side by side to one file: FILE.png, or a self-contained
    /// FILE.html
    #[arg(long, value_name = "FILE", value_parser = sheet, help_heading = "Output")]
    pub sheet: Option<PathBuf>,
    /// Write classes, logits, probabilities and residuals as JSON; `-` is standard output
    #[arg(long, value_name = "FILE.json", value_parser = result_file(), help_heading = "Output")]
    pub report: Option<PathBuf>,
}

impl ExplainArgs {
    /// Output files that cover all pictures.
    pub fn results(&self) -> impl Iterator<Item = &Path> {
        [&self.sheet, &self.report]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
    }
}

/// File formats of arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum RawArg {
    /// NumPy archive
    Npz,
    /// Hugging Face safetensors
    Safetensors,
}

fn sheet(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let extension = path.extension().and_then(|e| e.to_str());
    match extension.map(str::to_ascii_lowercase).as_deref() {
        Some("png" | "html" | "htm") => Ok(path),
        _ => Err("expected a file name that ends in .png or .html".to_owned()),
    }
}
