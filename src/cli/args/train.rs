//! `bcosc train MODEL --data DIR -o OUT`

use std::path::PathBuf;
use std::thread::available_parallelism;

use anyhow::bail;
use bcosc::autodiff::training::{Exponent, Targets};
use bcosc::onnx::ExternalData;
use bcosc::passes::{Biases, Settings};
use bcosc::{
    CalibrationFiles, EngineChoice, EvaluateEvery, Options, PredictOptions, Ramp, Shape,
    TrainOptions, TrainingOptions, Verification, Verify,
};
use clap::Args;

use super::conversion::{ConversionArgs, b};
use super::device::RunArgs;
use super::images::{AugmentArg, HeldOutArgs, ImageArgs};
use super::published::Published;
use super::step::StepArgs;
use super::values::{above_zero, at_least_two, positive, result_file};

const EXAMPLES: &str = "\
Examples:
  bcosc train net.bcos.onnx --data cifar10/ -o tuned.onnx --epochs 10 --augment shift
  bcosc train resnet50.onnx --data imagenet/ -o tuned.onnx --input add-inverse --normalization imagenet \\
        --absorb-normalization --recipe cnn
  bcosc train net.bcos.onnx --data photos/ -o tuned.onnx --steps 400 --batch-size 128 --lr 1e-3
  bcosc train net.bcos.onnx --data photos/ -o tuned.onnx --steps 400 --resume

A model that is not a B-cos model is converted first, as `bcosc MODEL -o OUT` would with the same options, and calibrated \
on training images. Checkpoints and metrics are in the folder --work-dir. Ctrl-C writes a checkpoint and stops; --resume \
goes on from it.

--recipe cnn, vit or clip also sets the hyperparameters that B-cosification was published with: 90 epochs of Adam at 1e-4 with \
--agc, batches of 256, or for vit 1024 with --mixup-alpha 0.2; for clip --loss siglip. Options that are given count.";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct TrainArgs {
    /// The ONNX model: a converted model, or one to convert first
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Folder of pictures (jpg, png, webp): DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg, or DIR/CLASS/*.jpg, which is split. With --teacher, in any folders
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Output file for the tuned model; `-` is standard output
    #[arg(short, long = "out", value_name = "FILE", value_parser = result_file())]
    pub out: PathBuf,

    /// Passes over the training images [default: 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Training")]
    pub epochs: Option<u64>,
    /// Stop after so many steps; the learning rate falls over them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Training")]
    pub steps: Option<u64>,
    /// Images per step [default: 128]
    #[arg(short, long, value_name = "N", value_parser = above_zero, help_heading = "Training")]
    pub batch_size: Option<usize>,
    /// Largest learning rate [default: 0.001]
    #[arg(long, value_name = "RATE", value_parser = positive, help_heading = "Training")]
    pub lr: Option<f64>,
    /// Steps in which the learning rate rises
    #[arg(
        long,
        value_name = "STEPS",
        default_value_t = 0,
        help_heading = "Training"
    )]
    pub warmup: u64,
    /// How the learning rate falls
    #[arg(long, value_enum, default_value_t = Shape::Cosine, help_heading = "Training")]
    pub lr_schedule: Shape,
    /// Let B grow from this value to that of the model, over --b-steps
    #[arg(long, value_name = "B", value_parser = b, requires = "b_steps", conflicts_with = "learn_b", help_heading = "Training")]
    pub b_from: Option<f64>,
    /// Steps in which B grows
    #[arg(long, value_name = "STEPS", requires = "b_from", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Training")]
    pub b_steps: Option<u64>,
    /// Keep biases in the conversion, and let them decay to nothing over so many steps
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Training")]
    pub bias_decay: Option<u64>,
    /// Seed for the order of images and their augmentation
    #[arg(
        long,
        value_name = "SEED",
        default_value_t = 0,
        help_heading = "Training"
    )]
    pub seed: u64,
    /// What runs the training step
    #[arg(long, value_enum, default_value_t = EngineChoice::Auto, help_heading = "Training")]
    pub engine: EngineChoice,
    /// Threads of the engine [default: all]
    #[arg(long, value_name = "N", value_parser = above_zero, help_heading = "Training")]
    pub threads: Option<usize>,
    #[command(flatten)]
    pub run: RunArgs,

    /// Random changes of training images
    #[arg(long, value_enum, default_value_t = AugmentArg::Crop, help_heading = "Images")]
    pub augment: AugmentArg,
    #[command(flatten)]
    pub pictures: ImageArgs,

    /// Epochs between evaluations
    #[arg(long, value_name = "EPOCHS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..), help_heading = "Evaluation")]
    pub eval_every: u64,
    /// Steps between evaluations, instead of epochs
    #[arg(long, value_name = "STEPS", conflicts_with = "eval_every", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Evaluation")]
    pub eval_steps: Option<u64>,
    /// Explain so many validation images in each evaluation, and report the mean residual: the size of what contributions do not
    /// account for, in logits; 0 for none
    #[arg(
        long,
        value_name = "N",
        default_value_t = 16,
        help_heading = "Evaluation"
    )]
    pub completeness: usize,
    #[command(flatten)]
    pub held_out: HeldOutArgs,

    /// Folder for checkpoints and metrics [default: OUT with the extension .training]
    #[arg(long, value_name = "DIR", help_heading = "Results")]
    pub work_dir: Option<PathBuf>,
    /// Go on from the last checkpoint in --work-dir
    #[arg(long, help_heading = "Results")]
    pub resume: bool,
    /// Where to store weights
    #[arg(long, value_enum, default_value_t = ExternalData::Auto, help_heading = "Results")]
    pub external_data: ExternalData,

    #[command(flatten)]
    pub step: StepArgs,
    /// Train the model as it is, even if it is not a B-cos model
    #[arg(long, help_heading = "Conversion")]
    pub no_convert: bool,
    #[command(flatten)]
    pub conversion: ConversionArgs,
    /// Training images that norms are calibrated on
    #[arg(long, value_name = "N", default_value_t = CalibrationFiles::IMAGES, value_parser = at_least_two, help_heading = "Conversion")]
    pub calibrate_images: usize,
}

impl TrainArgs {
    /// The folder of the run.
    pub fn work_dir(&self) -> PathBuf {
        let beside = || self.out.with_extension("training");
        self.work_dir.clone().unwrap_or_else(beside)
    }

    /// The settings of the conversion: biases that are to decay are kept, unless they are carried.
    fn settings(&self) -> Settings {
        let mut settings = self.conversion.settings();
        if self.bias_decay.is_some() {
            settings.biases.get_or_insert(Biases::Keep);
        }
        settings
    }

    /// The options of the library.
    pub fn options(&self) -> anyhow::Result<TrainOptions> {
        let published = Published::of(self.conversion.recipe);
        let augmentation = self
            .pictures
            .augmentation(self.augment, published.mixup_alpha);
        let targets = match augmentation.mixup_alpha {
            Some(_) => Targets::Probabilities,
            None => Targets::Labels,
        };
        if self.warmup > self.steps.unwrap_or(u64::MAX) {
            bail!("--warmup {} is longer than --steps", self.warmup);
        }
        if self.bias_decay.is_some() && self.conversion.biases == Some(Biases::Remove) {
            bail!("--bias-decay contradicts --biases remove");
        }
        let mut training = TrainingOptions {
            input_shapes: self.conversion.input_shapes.clone(),
            ..self.step.options(targets, &published)?
        };
        let growth = self.b_from.zip(self.b_steps).map(|(from, steps)| Ramp {
            from,
            to: self.conversion.b,
            steps,
        });
        if growth.is_some() {
            training.step.exponent = Exponent::Input;
        }
        training.step.scale_biases = self.bias_decay.is_some();
        let threads = available_parallelism().map_or(1, usize::from);
        let input_shapes = self.conversion.input_shapes.clone();
        Ok(TrainOptions {
            conversion: (!self.no_convert).then(|| Options {
                recipe: self.conversion.recipe,
                settings: self.settings(),
                input_shapes: input_shapes.clone(),
                verification: Verification {
                    when: Verify::Final,
                    ..Verification::default()
                },
                device: self.run.on.device,
                ..Options::default()
            }),
            calibration_images: self.calibrate_images,
            training,
            predict: PredictOptions {
                normalization: self.conversion.normalized.given(),
                size: self.pictures.size,
                device: self.run.on.device,
                precision: self.run.precision,
                ..PredictOptions::default()
            },
            data: self.data.clone(),
            split: self.pictures.split(self.seed),
            labels: self.pictures.labels.clone(),
            batch_size: self.batch_size.unwrap_or(published.batch_size),
            epochs: self.epochs.unwrap_or(published.epochs),
            steps: self.steps,
            rate: self.lr.unwrap_or(published.lr),
            warmup: self.warmup,
            shape: self.lr_schedule,
            growth,
            bias_decay: self.bias_decay,
            augmentation,
            workers: self.pictures.workers,
            unreadable: self.pictures.unreadable(),
            eval_every: match self.eval_steps {
                Some(steps) => EvaluateEvery::Steps(steps),
                None => EvaluateEvery::Epochs(self.eval_every),
            },
            completeness: self.completeness,
            pointing: self.held_out.pointing(),
            sheet: self.held_out.sheet,
            val_images: self.held_out.val_images,
            seed: self.seed,
            work_dir: self.work_dir(),
            resume: self.resume,
            engine: self.engine,
            device: self.run.on.device,
            precision: self.run.precision,
            threads: self.threads.unwrap_or(threads),
        })
    }
}
