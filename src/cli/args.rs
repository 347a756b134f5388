//! The command line.

mod eval;
mod predict;

use std::path::PathBuf;

use bcosc::passes::{InputContract, LogitBias, Normalization, Settings};
use bcosc::{Calibration, InputShape, Options, Preset, Recipe, Selection, Verification, Verify};
use bcosc_onnx::ExternalData;
use clap::builder::{PossibleValuesParser, Styles, styling::AnsiColor};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

pub use eval::EvalArgs;
pub use predict::PredictArgs;

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
  bcosc explain-graph out.onnx -o out.explain.onnx
  bcosc eval out.onnx --data val/ --gridpg

Exit status: 0 if all went well, 1 on an error (no output is written), 2 on a wrong command line.";

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

#[derive(Args, Debug)]
pub struct ConvertArgs {
    /// The ONNX model to convert
    #[arg(value_name = "MODEL", required_unless_present = "list_passes")]
    pub model: Option<PathBuf>,
    /// Where to write the result
    #[arg(short, long = "out", value_name = "FILE", required_unless_present_any = ["list_passes", "dry_run"])]
    pub output: Option<PathBuf>,

    /// Exponent of the B-cos transform, at least 1
    #[arg(long, value_name = "B", default_value_t = 2.0, value_parser = b, help_heading = "Conversion")]
    pub b: f64,
    /// Which passes run: those for a kind of network
    #[arg(long, value_enum, default_value_t = RecipeArg::Auto, help_heading = "Conversion")]
    pub recipe: RecipeArg,
    /// Leave biases in
    #[arg(long, help_heading = "Conversion")]
    pub keep_biases: bool,
    /// Leave max pooling in instead of averaging
    #[arg(long, help_heading = "Conversion")]
    pub keep_max_pool: bool,
    /// Leave the head behind the mean over positions
    #[arg(long, help_heading = "Conversion")]
    pub keep_head: bool,
    /// Put out a unit vector for every position, where an attention pool puts out one for the image
    #[arg(long, help_heading = "Conversion")]
    pub attention_unpool: bool,
    /// Make the layer behind an attention pool a B-cos layer too
    #[arg(long, help_heading = "Conversion")]
    pub bcos_projection: bool,
    /// What is added to every class logit: `auto` is -ln(K-1) for K classes
    #[arg(long, value_name = "auto|none|NUMBER", default_value = "auto", value_parser = logit_bias,
        allow_hyphen_values = true, help_heading = "Conversion")]
    pub logit_bias: Bias,
    /// Rewrite for fast inference
    #[arg(long, help_heading = "Conversion")]
    pub deploy: bool,

    /// What the converted model takes
    #[arg(long, value_enum, default_value_t = InputArg::Same, help_heading = "Input")]
    pub input: InputArg,
    /// How images were normalised for the original model
    #[arg(long, value_enum, conflicts_with_all = ["mean", "std"], help_heading = "Input")]
    pub normalization: Option<PresetArg>,
    /// The same as numbers: the mean of each channel on images in [0,1]
    #[arg(
        long,
        value_name = "M,M,M",
        value_delimiter = ',',
        requires = "std",
        allow_hyphen_values = true,
        help_heading = "Input"
    )]
    pub mean: Option<Vec<f64>>,
    /// The standard deviation of each channel
    #[arg(
        long,
        value_name = "S,S,S",
        value_delimiter = ',',
        requires = "mean",
        allow_hyphen_values = true,
        help_heading = "Input"
    )]
    pub std: Option<Vec<f64>>,
    /// Fold the normalisation into the first layer (with --input add-inverse or rgb)
    #[arg(long, help_heading = "Input")]
    pub absorb_normalization: bool,
    /// Give an input another shape: sizes, or names of those that stay open; for each input once
    #[arg(long, value_name = "NAME:D,D,...", help_heading = "Input")]
    pub input_shapes: Vec<InputShape>,
    /// Keep these outputs of the model only, such as logits without auxiliary heads or hidden states
    #[arg(
        long = "output",
        value_name = "NAME,...",
        value_delimiter = ',',
        help_heading = "Input"
    )]
    pub outputs: Vec<String>,

    /// Measure norm statistics on images: a folder of jpg, png or webp, or a .npy array of float32
    /// [N,C,H,W] in the form that the converted model takes
    #[arg(long, value_name = "DIR|FILE.npy", help_heading = "Calibration")]
    pub calibrate: Option<PathBuf>,
    /// How many of them to use at most, spread evenly
    #[arg(long, value_name = "N", default_value_t = Calibration::IMAGES, requires = "calibrate", value_parser = at_least_two,
        help_heading = "Calibration")]
    pub calibrate_images: usize,

    /// When to compare with the original
    #[arg(long, value_enum, default_value_t = VerifyArg::Final, help_heading = "Proof")]
    pub verify: VerifyArg,
    #[command(flatten)]
    pub inputs: ProofArgs,

    /// Run exactly these passes, in this order, instead of the recipe's
    #[arg(long, value_name = "PASS,...", value_delimiter = ',', value_parser = pass_names(), hide_possible_values = true,
        help_heading = "Passes")]
    pub passes: Option<Vec<String>>,
    /// Leave passes out
    #[arg(long, value_name = "PASS,...", value_delimiter = ',', value_parser = pass_names(), hide_possible_values = true,
        help_heading = "Passes")]
    pub skip_pass: Vec<String>,
    /// Run no pass after this one
    #[arg(long, value_name = "PASS", value_parser = pass_names(), hide_possible_values = true, help_heading = "Passes")]
    pub stop_after: Option<String>,
    /// List all passes and end
    #[arg(long, exclusive = true, help_heading = "Passes")]
    pub list_passes: bool,
    /// Write the model as text into this folder after every pass
    #[arg(long, value_name = "DIR", help_heading = "Passes")]
    pub dump_ir: Option<PathBuf>,

    /// Raise the model to this version of the ONNX operator set
    #[arg(long, value_name = "VERSION", help_heading = "Output")]
    pub opset: Option<i64>,
    /// Where large weights go: `auto` puts them beside the model if they came so, or pass 2 GB
    #[arg(long, value_enum, default_value_t = ExternalArg::Auto, help_heading = "Output")]
    pub external_data: ExternalArg,
    /// Write other graphs of the result beside it: `out.onnx` gets `out.explain.onnx`
    #[arg(
        long,
        value_enum,
        value_name = "GRAPH,...",
        value_delimiter = ',',
        help_heading = "Output"
    )]
    pub emit: Vec<EmitArg>,
    /// Write what was done and how the result compares, as JSON
    #[arg(long, value_name = "FILE.json", help_heading = "Output")]
    pub report: Option<PathBuf>,
    /// Do everything but write the model
    #[arg(long, help_heading = "Output")]
    pub dry_run: bool,
}

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
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE.json")]
    pub report: Option<PathBuf>,
}

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

#[derive(Args, Debug)]
pub struct ExplainGraphArgs {
    /// The ONNX model: a B-cos model, or another whose output is dynamic linear
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Where to write the graph. Inputs: the model's, and `target`, the class of each image (-1: the
    /// predicted one). Outputs: `logits`, `class`, `weights` and `contributions`
    #[arg(short, long = "out", value_name = "FILE")]
    pub out: PathBuf,
    /// The output to explain
    #[arg(long = "output", value_name = "NAME")]
    pub explained: Option<String>,
    /// Give an input another shape: sizes, or names of those that stay open; for each input once
    #[arg(long, value_name = "NAME:D,D,...")]
    pub input_shapes: Vec<InputShape>,
    /// Where large weights go
    #[arg(long, value_enum, default_value_t = ExternalArg::Auto)]
    pub external_data: ExternalArg,
}

/// Graphs that can be written beside the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EmitArg {
    /// Computes logits, W(x) and contributions
    Explain,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RecipeArg {
    /// The recipe that fits: it looks for attention
    Auto,
    /// Classic convolutional networks
    Cnn,
    /// Vision transformers (not available yet)
    Vit,
    /// CLIP image towers (not available yet)
    Clip,
    /// No passes: copy the model
    None,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum InputArg {
    /// What the original took
    Same,
    /// [x, 1-x] with x in [0,1]: twice the channels
    AddInverse,
    /// x in [0,1]
    Rgb,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PresetArg {
    /// torchvision's and timm's default
    Imagenet,
    /// OpenAI's CLIP
    Clip,
    /// Images scaled to [-1,1]
    Inception,
    /// Images in [0,1] as they are
    None,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum VerifyArg {
    /// Once, at the end
    Final,
    /// After every pass too, which finds the pass at fault
    Each,
    /// Never
    Off,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ExternalArg {
    Auto,
    Always,
    Never,
}

/// A logit bias as given.
#[derive(Clone, Copy, Debug)]
pub struct Bias(LogitBias);

fn b(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(b) if b.is_finite() && b >= 1.0 => Ok(b),
        _ => Err("a number of at least 1 is needed".to_owned()),
    }
}

fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rtol) if rtol > 0.0 && rtol < 1.0 => Ok(rtol),
        _ => Err("a number between 0 and 1 is needed".to_owned()),
    }
}

fn at_least_two(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count >= 2 => Ok(count),
        _ => Err("a whole number of at least 2 is needed".to_owned()),
    }
}

fn logit_bias(text: &str) -> Result<Bias, String> {
    match text {
        "auto" => Ok(Bias(LogitBias::Prior)),
        "none" => Ok(Bias(LogitBias::None)),
        number => match number.parse::<f64>() {
            Ok(bias) if bias.is_finite() => Ok(Bias(LogitBias::Value(bias))),
            _ => Err("`auto`, `none` or a number is needed".to_owned()),
        },
    }
}

fn pass_names() -> PossibleValuesParser {
    PossibleValuesParser::new(bcosc::all_passes().iter().map(|pass| pass.name()))
}

impl ConvertArgs {
    /// What the library is asked for.
    pub fn options(&self) -> Options {
        let normalization = match (&self.normalization, &self.mean, &self.std) {
            (Some(preset), ..) => Some(Preset::from(*preset).normalization()),
            (None, Some(mean), Some(std)) => Some(Normalization {
                mean: mean.clone(),
                std: std.clone(),
            }),
            _ => None,
        };
        Options {
            recipe: self.recipe.into(),
            passes: Selection {
                only: self.passes.clone(),
                skip: self.skip_pass.clone(),
                stop_after: self.stop_after.clone(),
            },
            settings: Settings {
                b: self.b,
                input: self.input.into(),
                normalization,
                absorb_normalization: self.absorb_normalization,
                keep_biases: self.keep_biases,
                keep_max_pool: self.keep_max_pool,
                keep_head: self.keep_head,
                attention_unpool: self.attention_unpool,
                bcos_projection: self.bcos_projection,
                logit_bias: self.logit_bias.0,
                deploy: self.deploy,
                opset: self.opset,
                ..Settings::default()
            },
            input_shapes: self.input_shapes.clone(),
            outputs: self.outputs.clone(),
            verification: Verification {
                when: self.verify.into(),
                ..self.inputs.into()
            },
            calibration: self.calibrate.as_ref().map(|source| Calibration {
                images: self.calibrate_images,
                ..Calibration::new(source)
            }),
        }
    }
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

impl From<RecipeArg> for Recipe {
    fn from(arg: RecipeArg) -> Self {
        match arg {
            RecipeArg::Auto => Recipe::Auto,
            RecipeArg::Cnn => Recipe::Cnn,
            RecipeArg::Vit => Recipe::Vit,
            RecipeArg::Clip => Recipe::Clip,
            RecipeArg::None => Recipe::None,
        }
    }
}

impl From<InputArg> for InputContract {
    fn from(arg: InputArg) -> Self {
        match arg {
            InputArg::Same => InputContract::Same,
            InputArg::AddInverse => InputContract::AddInverse,
            InputArg::Rgb => InputContract::Rgb,
        }
    }
}

impl From<PresetArg> for Preset {
    fn from(arg: PresetArg) -> Self {
        match arg {
            PresetArg::Imagenet => Preset::Imagenet,
            PresetArg::Clip => Preset::Clip,
            PresetArg::Inception => Preset::Inception,
            PresetArg::None => Preset::None,
        }
    }
}

impl From<VerifyArg> for Verify {
    fn from(arg: VerifyArg) -> Self {
        match arg {
            VerifyArg::Final => Verify::Final,
            VerifyArg::Each => Verify::Each,
            VerifyArg::Off => Verify::Off,
        }
    }
}

impl From<ExternalArg> for ExternalData {
    fn from(arg: ExternalArg) -> Self {
        match arg {
            ExternalArg::Auto => ExternalData::Auto,
            ExternalArg::Always => ExternalData::Always,
            ExternalArg::Never => ExternalData::Never,
        }
    }
}
