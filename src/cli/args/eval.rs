//! `bcosc eval`

use std::path::{Path, PathBuf};

use bcosc::data::Unreadable;
use bcosc::{EvaluateOptions, PerturbationOptions, PointingOptions};
use clap::Args;

use super::predict::PredictArgs;
use super::values::{above_zero, result_file};

const EXAMPLES: &str = "\
Examples:
  bcosc eval net.bcos.onnx --data val/
  bcosc eval net.bcos.onnx --data val/ --gridpg --perturb --compare net.onnx --normalization imagenet
  bcosc eval net.bcos.onnx --data val/ --gridpg --cells 3 --grids 500 --report net.json --plot net.svg

Pictures are resized so that the shorter side fits the model, then centre-cropped. If the height and width of a model \
are dynamic, bcosc uses the median of the shorter sides, at most 224 (override with --size).";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct EvalArgs {
    /// The ONNX model: a B-cos model or any other image classifier
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Folder of pictures (jpg, png, webp) with one subfolder per class: DIR/CLASS/*.jpg. Sorted folders map to the
    /// model's classes, as with torchvision's ImageFolder; if there are fewer folders than classes, use --labels
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Evaluate another model for comparison; repeatable. The metadata of each model then takes precedence over
    /// flags for input format and logit bias
    #[arg(long, value_name = "OTHER.onnx")]
    pub compare: Vec<PathBuf>,
    /// Maximum number of pictures, spread evenly over the sorted files [default: all]
    #[arg(long, value_name = "N", value_parser = above_zero)]
    pub images: Option<usize>,
    /// Leave out pictures that cannot be read, instead of stopping
    #[arg(long)]
    pub skip_unreadable: bool,
    /// Seed for the layout of grids and the random order of pixels
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub seed: u64,

    /// Grid pointing game: the share of positive contributions inside the picture of the explained class, in grids
    /// of correctly and confidently classified pictures
    #[arg(long, help_heading = "Explanations")]
    pub gridpg: bool,
    /// Number of grids per size
    #[arg(long, value_name = "N", default_value_t = PointingOptions::default().grids, value_parser = above_zero,
        requires = "gridpg", help_heading = "Explanations")]
    pub grids: usize,
    /// Grid sizes: 3 is a grid of 3x3 pictures [default: 3,2]
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        value_parser = cells,
        requires = "gridpg",
        help_heading = "Explanations"
    )]
    pub cells: Option<Vec<usize>>,
    /// Side of the window that contributions are averaged over, in pixels; 0 disables averaging
    #[arg(long, value_name = "PIXELS", default_value_t = PointingOptions::default().smooth, requires = "gridpg",
        help_heading = "Explanations")]
    pub smooth: usize,
    /// Pixel deletion and insertion in order of contribution, in 20 steps: area under the curve of the probability
    /// of the predicted class. Deletion replaces pixels by the mean of the normalisation (or 0.5); insertion starts
    /// from a blurred picture. Random order is measured as the baseline
    #[arg(long, help_heading = "Explanations")]
    pub perturb: bool,
    /// Maximum number of pictures for --perturb, spread evenly
    #[arg(long, value_name = "N", default_value_t = PerturbationOptions::default().images, value_parser = above_zero,
        requires = "perturb", help_heading = "Explanations")]
    pub perturb_images: usize,
    /// Explain every picture and report the share of the logit that contributions do not account for
    #[arg(long, help_heading = "Explanations")]
    pub completeness: bool,

    /// Write all figures as JSON; `-` is standard output
    #[arg(long, value_name = "FILE.json", value_parser = result_file(), help_heading = "Results")]
    pub report: Option<PathBuf>,
    /// Plot reliability, deletion, insertion and the pointing game as SVG; `-` is standard output
    #[arg(long, value_name = "FILE.svg", value_parser = result_file(), help_heading = "Results")]
    pub plot: Option<PathBuf>,

    #[command(flatten)]
    pub predict: PredictArgs,
}

impl EvalArgs {
    /// Output files.
    pub fn results(&self) -> impl Iterator<Item = &Path> {
        [&self.report, &self.plot]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
    }

    /// The options of the library.
    pub fn options(&self) -> EvaluateOptions {
        EvaluateOptions {
            predict: self.predict.options(),
            labels: self.predict.labels.clone(),
            images: self.images,
            pointing: self.gridpg.then(|| PointingOptions {
                grids: self.grids,
                cells: self.cells.clone(),
                smooth: self.smooth,
            }),
            perturbation: self.perturb.then_some(PerturbationOptions {
                images: self.perturb_images,
            }),
            completeness: self.completeness.then_some(usize::MAX),
            unreadable: match self.skip_unreadable {
                true => Unreadable::Skip,
                false => Unreadable::Fail,
            },
            seed: self.seed,
        }
    }
}

fn cells(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(cells) if (2..=16).contains(&cells) => Ok(cells),
        _ => Err("expected a whole number from 2 to 16".to_owned()),
    }
}
