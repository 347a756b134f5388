//! `bcosc align MODEL --data DIR -o OUT`, and the options of `bcosc MODEL -o OUT --align DIR`

use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::bail;
use bcosc::engine::Precision;
use bcosc::onnx::ExternalData;
use bcosc::passes::{InputContract, Settings};
use bcosc::{AlignOptions, EngineChoice, Growth, Method, Options, PredictOptions, Source, TrainOn};
use clap::{Args, Parser};

use super::conversion::{ConversionArgs, b};
use super::device::RunArgs;
use super::images::{AugmentArg, HeldOutArgs, ImageArgs};
use super::step::NormStatisticsArg;
use super::values::{above_zero, at_least_two, bytes, duration, fraction, positive, result_file};

const EXAMPLES: &str = "\
Examples:
  bcosc align resnet50.onnx --data photos/ -o aligned.onnx --normalization imagenet
  bcosc align resnet50.onnx --data photos/ -o aligned.onnx --normalization imagenet --budget 10min
  bcosc align net.bcos.onnx --teacher net.onnx --data photos/ -o aligned.onnx --method joint
  bcosc align net.onnx --data photos/ --normalization imagenet --dry-run

The original is the teacher: no labels are used, except with --train-on labels. Where class folders match the classes of the model, accuracy and the grid \
pointing game are measured on images that are held out. A model that is not a B-cos model is converted first, as `bcosc MODEL -o OUT` \
would with the same options, and calibrated on the training images; with a known normalisation its input is [x, 1-x], and the \
first layer absorbs the normalisation, unless --input says otherwise. Ctrl-C writes a checkpoint and stops; --resume goes on from it.";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct AlignArgs {
    /// The ONNX model: the original, or a converted model with --teacher
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Folder of pictures (jpg, png, webp) in any folders, which is split; or with the folders DIR/train and DIR/val
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Output file for the aligned model; `-` is standard output
    #[arg(short, long = "out", value_name = "FILE", value_parser = result_file(), required_unless_present = "dry_run")]
    pub out: Option<PathBuf>,
    /// The original of a converted model
    #[arg(long, value_name = "MODEL.onnx", help_heading = "Alignment")]
    pub teacher: Option<PathBuf>,
    /// List what would be trained, and exit
    #[arg(long, help_heading = "Alignment")]
    pub dry_run: bool,
    #[command(flatten)]
    pub alignment: AlignmentArgs,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub conversion: ConversionArgs,
    /// Training images that norms are calibrated on
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = at_least_two, help_heading = "Conversion")]
    pub calibrate_images: usize,
    /// Where to store weights
    #[arg(long, value_enum, default_value_t = ExternalData::Auto, help_heading = "Results")]
    pub external_data: ExternalData,
}

/// How a model is aligned with its original.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Alignment")]
pub struct AlignmentArgs {
    /// What is trained together
    #[arg(long, value_enum, default_value_t = Method::default())]
    pub method: Method,
    /// Number of training images, spread evenly over the folder [default: all]
    #[arg(long, value_name = "N", value_parser = at_least_two)]
    pub images: Option<usize>,
    /// Steps of each segment, or of --method joint or grow [default: 80 a segment, 250 joint, 400 where B grows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: Option<u64>,
    /// With --method blocks+joint: steps of the joint part [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub joint_steps: Option<u64>,
    /// Largest learning rate, as a share of the size of each tensor [default: 0.06 for blocks, or 0.03 with attention; 0.015 for joint, 0.005 where B grows]
    #[arg(long, value_name = "RATE", value_parser = positive)]
    pub lr: Option<f64>,
    /// With --method blocks+joint: largest learning rate of the joint part, likewise [default: 0.008]
    #[arg(long, value_name = "RATE", value_parser = positive)]
    pub joint_lr: Option<f64>,
    /// Time for all steps, such as 90s, 10min or 1h; it sets their numbers (at least 8 a phase), so results depend on the speed of the machine
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "steps")]
    pub budget: Option<Duration>,
    /// Number of segments [default: one for every two layers, at most 24]
    #[arg(long, value_name = "N", value_parser = above_zero)]
    pub segments: Option<usize>,
    /// Places inside at which the joint part compares [default: 3, or 6 where B grows]
    #[arg(long, value_name = "N")]
    pub taps: Option<usize>,
    /// Steps end to end, after the alignment
    #[arg(long, value_name = "STEPS", default_value_t = 0)]
    pub then_train: u64,
    /// What --then-train learns from
    #[arg(long, value_enum, default_value_t = TrainOn::default(), requires = "then_train")]
    pub train_on: TrainOn,
    /// Largest learning rate of --then-train, likewise
    #[arg(long, value_name = "RATE", default_value_t = 3e-3, value_parser = positive)]
    pub train_lr: f64,
    /// Steps in which the learning rate rises [default: 0; where B grows a fifth of those steps, and a twentieth of the others]
    #[arg(long, value_name = "STEPS")]
    pub warmup: Option<u64>,
    /// In the joint part, let B grow from this value to that of the model [default for grow: 1]
    #[arg(long, value_name = "B", value_parser = b)]
    pub b_from: Option<f64>,
    /// Steps in which B grows [default: half of the joint part]
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    pub b_steps: Option<u64>,
    /// In the joint part, let biases decay to 0 in so many steps at the final B; until then they are kept, or carried
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..), conflicts_with_all = ["budget", "then_train"])]
    pub bias_decay: Option<u64>,
    /// What batch norms divide by while they are trained [default: batch; for a model that is converted first and aligned with
    /// --method grow running while B grows, then fixed]
    #[arg(long, value_enum)]
    pub norm_statistics: Option<NormStatisticsArg>,
    /// Share of a batch's statistics in the new running statistics of norms [default: 0.1; 0.04 with --norm-statistics running]
    #[arg(long, value_name = "X", value_parser = fraction)]
    pub norm_momentum: Option<f64>,
    /// Do not train the parameters whose names match; `*` is any text; repeatable
    #[arg(long, value_name = "PATTERN")]
    pub freeze: Vec<String>,
    /// Images per step [default: 128, or 16 where steps compute the whole model on images of more than 64 x 64]
    #[arg(short, long, value_name = "N", value_parser = above_zero)]
    pub batch_size: Option<usize>,
    /// Memory for features between segments, such as 500MB or 4GB; what does not fit is in files in --work-dir
    #[arg(long, value_name = "SIZE", default_value = "2GB", value_parser = bytes)]
    pub feature_memory: u64,
    /// Seed for the order of images and their augmentation
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub seed: u64,
    /// What runs the steps
    #[arg(long, value_enum, default_value_t = EngineChoice::Auto)]
    pub engine: EngineChoice,
    /// Threads of the engine [default: all]
    #[arg(long, value_name = "N", value_parser = above_zero)]
    pub threads: Option<usize>,

    /// Random changes of training images
    #[arg(long, value_enum, default_value_t = AugmentArg::ShiftEighth, help_heading = "Images")]
    pub augment: AugmentArg,
    #[command(flatten)]
    pub pictures: ImageArgs,
    #[command(flatten)]
    pub held_out: HeldOutArgs,

    /// Folder for checkpoints and metrics [default: OUT with the extension .alignment]
    #[arg(long, value_name = "DIR", help_heading = "Results")]
    pub work_dir: Option<PathBuf>,
    /// Go on from the last checkpoint in --work-dir
    #[arg(long, help_heading = "Results")]
    pub resume: bool,
}

impl AlignArgs {
    /// The options of the library.
    pub fn options(&self) -> anyhow::Result<AlignOptions> {
        let conversion = Options {
            recipe: self.conversion.recipe,
            settings: absorbed(self.conversion.settings()),
            input_shapes: self.conversion.input_shapes.clone(),
            device: self.run.on.device,
            ..Options::default()
        };
        let mut options = self.alignment.options(
            &self.data,
            self.out.as_deref(),
            conversion,
            self.run.precision,
        )?;
        options.teacher = self.teacher.as_ref().map(Source::from);
        options.calibration_images = self.calibrate_images;
        Ok(options)
    }
}

/// The alignment behind a conversion, with the defaults of `bcosc align`.
pub fn after_conversion(
    data: &Path,
    out: &Path,
    conversion: Options,
) -> anyhow::Result<AlignOptions> {
    #[derive(Parser)]
    struct Defaults {
        #[command(flatten)]
        alignment: AlignmentArgs,
    }
    let Defaults { alignment } = Defaults::parse_from(["align"]);
    let conversion = Options {
        settings: absorbed(conversion.settings),
        ..conversion
    };
    alignment.options(data, Some(out), conversion, Precision::Fp32)
}

/// With a known normalisation, the first layer absorbs it.
fn absorbed(mut settings: Settings) -> Settings {
    if settings.input == InputContract::Same && settings.normalization.is_some() {
        settings.input = InputContract::AddInverse;
        settings.absorb_normalization = true;
    }
    settings
}

impl AlignmentArgs {
    /// The options of the library, for a conversion.
    pub fn options(
        &self,
        data: &Path,
        out: Option<&Path>,
        conversion: Options,
        precision: Precision,
    ) -> anyhow::Result<AlignOptions> {
        let has_joint = !matches!(self.method, Method::Auto | Method::Blocks);
        for (name, given) in [
            ("--b-from", self.b_from.is_some()),
            ("--bias-decay", self.bias_decay.is_some()),
        ] {
            if given && !has_joint {
                bail!("{name} requires --method grow, joint or blocks+joint");
            }
        }
        let grown = match self.method {
            Method::Grow => Some(self.b_from.unwrap_or(1.0)),
            _ => self.b_from,
        };
        if self.b_steps.is_some() && grown.is_none() {
            bail!("--b-steps requires --method grow or --b-from");
        }
        let is_second = self.joint_steps.is_some() || self.joint_lr.is_some();
        if is_second && self.method != Method::BlocksJoint {
            bail!(
                "--joint-steps and --joint-lr are for --method blocks+joint; use --steps and --lr"
            );
        }
        let from_labels = self.then_train > 0 && self.train_on == TrainOn::Labels;
        if from_labels && self.pictures.mixup_alpha.is_some() {
            bail!("--mixup-alpha mixes no labels of --train-on labels; leave one of them out");
        }
        let beside = || out.map(|out| out.with_extension("alignment"));
        let both = self.method == Method::BlocksJoint;
        let threads = available_parallelism().map_or(1, usize::from);
        let options = AlignOptions {
            teacher: None,
            calibration_images: 256,
            predict: PredictOptions {
                input_shapes: conversion.input_shapes.clone(),
                normalization: conversion.settings.normalization.clone(),
                size: self.pictures.size,
                device: conversion.device,
                precision,
                ..PredictOptions::default()
            },
            device: conversion.device,
            precision,
            conversion,
            data: data.to_owned(),
            split: self.pictures.split(self.seed),
            labels: self.pictures.labels.clone(),
            images: self.images,
            method: self.method,
            segments: self.segments,
            taps: self.taps,
            block_steps: self.steps.unwrap_or(AlignOptions::BLOCK_STEPS),
            joint_steps: if both { self.joint_steps } else { self.steps },
            block_rate: self.lr,
            joint_rate: if both { self.joint_lr } else { self.lr },
            budget: self.budget,
            then_train: self.then_train,
            train_rate: self.train_lr,
            train_on: self.train_on,
            warmup: self.warmup,
            growth: grown.map(|from| Growth {
                from,
                steps: self.b_steps,
            }),
            bias_decay: self.bias_decay,
            norm_statistics: self.norm_statistics.map(Into::into),
            norm_momentum: self.norm_momentum,
            freeze: self.freeze.clone(),
            batch_size: self.batch_size,
            feature_memory: self.feature_memory,
            augmentation: self.pictures.augmentation(self.augment, None),
            workers: self.pictures.workers,
            unreadable: self.pictures.unreadable(),
            val_images: self.held_out.val_images,
            pointing: self.held_out.pointing(),
            sheet: self.held_out.sheet,
            seed: self.seed,
            work_dir: self.work_dir.clone().or_else(beside).unwrap_or_default(),
            resume: self.resume,
            engine: self.engine,
            threads: self.threads.unwrap_or(threads),
        };
        let left = options.joint_steps() - options.growing();
        if has_joint && left == 0 {
            bail!(
                "--b-steps leaves no steps at the final B: the joint part has {}",
                options.joint_steps()
            );
        }
        if let Some(decay) = self.bias_decay.filter(|decay| *decay > left) {
            bail!(
                "--bias-decay {decay} is too long: the joint part has {left} steps at the final B"
            );
        }
        Ok(options)
    }
}
