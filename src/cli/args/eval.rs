//! `bcosc eval`

use std::path::{Path, PathBuf};

use bcosc::{EvaluateOptions, PerturbationOptions, PointingOptions};
use clap::Args;

use super::predict::PredictArgs;
use super::values::result_file;

const EXAMPLES: &str = "\
Examples:
  bcosc eval net.bcos.onnx --data val/
  bcosc eval net.bcos.onnx --data val/ --gridpg --perturb --compare net.onnx --normalization imagenet
  bcosc eval net.bcos.onnx --data val/ --gridpg --cells 3 --grids 500 --report net.json --plot net.svg

Pictures are scaled so that their shorter side fits the model, and the centre is cut out. Where a model leaves \
height and width open, it gets the median of the shorter sides, and no more than 224 (--size says otherwise).";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct EvalArgs {
    /// The ONNX model: a B-cos model, or any other that classifies pictures
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Pictures (jpg, png, webp), one folder a class: DIR/CLASS/*.jpg. The sorted folders are the model's classes,
    /// as torchvision's ImageFolder has it; where there are fewer, --labels says which is which
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Evaluate another model too, in the same table; can be given several times. What a model's metadata says of
    /// its input and its logit bias then goes before flags
    #[arg(long, value_name = "OTHER.onnx")]
    pub compare: Vec<PathBuf>,
    /// How many pictures to use at most, spread evenly over the sorted ones [default: all]
    #[arg(long, value_name = "N", value_parser = above_zero)]
    pub images: Option<usize>,
    /// Seed of what is left to chance: where pictures lie in grids, random orders of pixels
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub seed: u64,

    /// Play the grid pointing game: of each class in a grid of pictures, the share of positive contributions that
    /// is in the class's own picture. Grids are made of pictures that are right and confident
    #[arg(long, help_heading = "Explanations")]
    pub gridpg: bool,
    /// How many grids of each size
    #[arg(long, value_name = "N", default_value_t = PointingOptions::default().grids, value_parser = above_zero,
        requires = "gridpg", help_heading = "Explanations")]
    pub grids: usize,
    /// Pictures along a side of a grid: sizes of grids [default: 3,2]
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        value_parser = cells,
        requires = "gridpg",
        help_heading = "Explanations"
    )]
    pub cells: Option<Vec<usize>>,
    /// Average contributions over a window of so many pixels a side before they are added up; 0 for none
    #[arg(long, value_name = "PIXELS", default_value_t = PointingOptions::default().smooth, requires = "gridpg",
        help_heading = "Explanations")]
    pub smooth: usize,
    /// Delete and insert pixels, most contributing first, in 20 steps: areas under the curves of the probability of
    /// the predicted class. Deletion replaces pixels by the mean of the normalisation (or 0.5), insertion begins
    /// with the blurred picture. With random order beside it
    #[arg(long, help_heading = "Explanations")]
    pub perturb: bool,
    /// On how many of the pictures at most, spread evenly
    #[arg(long, value_name = "N", default_value_t = PerturbationOptions::default().images, value_parser = above_zero,
        requires = "perturb", help_heading = "Explanations")]
    pub perturb_images: usize,
    /// Explain every picture, and report what contributions leave of the logit, as a share of it
    #[arg(long, help_heading = "Explanations")]
    pub completeness: bool,

    /// Write all figures as JSON; `-` is standard output
    #[arg(long, value_name = "FILE.json", value_parser = result_file(), help_heading = "Results")]
    pub report: Option<PathBuf>,
    /// Draw reliability, deletion and insertion, and the pointing game; `-` is standard output
    #[arg(long, value_name = "FILE.svg", value_parser = result_file(), help_heading = "Results")]
    pub plot: Option<PathBuf>,

    #[command(flatten)]
    pub predict: PredictArgs,
}

impl EvalArgs {
    /// Files that figures go to.
    pub fn results(&self) -> impl Iterator<Item = &Path> {
        [&self.report, &self.plot]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
    }

    /// What the library is asked for.
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
            completeness: self.completeness,
            seed: self.seed,
        }
    }
}

fn above_zero(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("a whole number of at least 1 is needed".to_owned()),
    }
}

fn cells(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(cells) if (2..=16).contains(&cells) => Ok(cells),
        _ => Err("a whole number from 2 to 16 is needed".to_owned()),
    }
}
