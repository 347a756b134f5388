//! Options of an alignment.

use std::path::PathBuf;
use std::time::Duration;

use bcosc_autodiff::training::NormStatistics;
use bcosc_engine::{Precision, SessionOptions};
use bcosc_passes::{Biases, InputContract};

use crate::data::{Augmentation, SplitOptions, Unreadable};
use crate::{DeviceChoice, EngineChoice, Options, PointingOptions, PredictOptions, Source};

/// What is trained together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Method {
    /// `grow` for networks that are deep, have depthwise convolutions or concatenate features; otherwise `blocks`
    #[default]
    Auto,
    /// One segment after the other, each on the outputs of those before it
    Blocks,
    /// All segments at once, compared with the original at a few places
    Joint,
    /// `joint` from B = 1 with carried biases, so that the model starts as its original; then B grows
    Grow,
    /// First blocks, then joint
    #[cfg_attr(feature = "cli", value(name = "blocks+joint"))]
    BlocksJoint,
}

/// What end-to-end steps learn from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum TrainOn {
    /// The original's probabilities
    #[default]
    Original,
    /// The class folders of the images
    Labels,
}

/// How B grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    /// B at the first step.
    pub from: f64,
    /// Steps in which it grows, in a straight line; by default half of all.
    pub steps: Option<u64>,
}

/// Options of an alignment.
#[derive(Clone, Debug)]
pub struct AlignOptions {
    /// The original, if the model is converted already.
    pub teacher: Option<Source>,
    /// How a model that is not converted is converted first, calibrated on the training images.
    pub conversion: Options,
    /// Images that norms are calibrated on.
    pub calibration_images: usize,
    /// How images enter the models; the shapes of inputs are those of the original.
    pub predict: PredictOptions,
    /// The folder of images.
    pub data: PathBuf,
    /// How one folder is split; labels decide on `each_class`.
    pub split: SplitOptions,
    /// A file with class names, one per line, in the order of the logits.
    pub labels: Option<PathBuf>,
    /// Most training images, spread evenly.
    pub images: Option<usize>,
    /// What is trained together.
    pub method: Method,
    /// Number of segments; by default one for every two layers.
    pub segments: Option<usize>,
    /// Places at which the models are compared in the joint part, apart from the output; see [`AlignOptions::taps`].
    pub taps: Option<usize>,
    /// Steps of each segment.
    pub block_steps: u64,
    /// Steps of the joint part; see [`AlignOptions::joint_steps`].
    pub joint_steps: Option<u64>,
    /// The largest learning rate of blocks, by default [`AlignOptions::BLOCK_RATE`] or [`AlignOptions::ATTENTION_RATE`]. Rates are shares of
    /// the root mean square of each tensor.
    pub block_rate: Option<f64>,
    /// The largest learning rate of the joint part; see [`AlignOptions::joint_rate`].
    pub joint_rate: Option<f64>,
    /// The time for all steps. It sets their numbers, so the result depends on the speed of the machine.
    pub budget: Option<Duration>,
    /// End-to-end steps behind the alignment.
    pub then_train: u64,
    /// What these learn from.
    pub train_on: TrainOn,
    /// The largest learning rate of these.
    pub train_rate: f64,
    /// Steps in which the learning rate rises, in each phase; by default a fifth of those in which B grows, so that what is exact is not
    /// lost in the first steps of Adam, a twentieth of those that follow, and otherwise none.
    pub warmup: Option<u64>,
    /// How B grows in the joint part, to that of the model.
    pub growth: Option<Growth>,
    /// Steps at the final B of the joint part in which biases decay to 0, in a straight line. Until then they are kept, unless they are
    /// carried.
    pub bias_decay: Option<u64>,
    /// What norms divide by while they are trained. By default the statistics of the batch; of a model that is converted first
    /// ([`AlignOptions::from_one`]), running statistics while B grows from 1, and fixed ones then.
    pub norm_statistics: Option<NormStatistics>,
    /// The share of the batch's statistics in the new running statistics of norms; by default [`AlignOptions::BATCH_MOMENTUM`] or
    /// [`AlignOptions::RUNNING_MOMENTUM`].
    pub norm_momentum: Option<f64>,
    /// Patterns of the names of parameters that are not trained; `*` is any text.
    pub freeze: Vec<String>,
    /// Images per step. By default 128, or 16 where steps compute the whole model on images of more than 64 x 64.
    pub batch_size: Option<usize>,
    /// Memory for images and features that are kept between the steps of segments, in bytes. What does not fit is in files in
    /// `work_dir`, which have no names. After as many images as fit, at least [`AlignOptions::KEPT`], they come again, changed in the
    /// same way.
    pub feature_memory: u64,
    /// Random changes of images, which both models see.
    pub augmentation: Augmentation,
    /// Threads that prepare images.
    pub workers: usize,
    /// What happens if an image cannot be read.
    pub unreadable: Unreadable,
    /// Most images for the comparison with the original.
    pub val_images: Option<usize>,
    /// Measure the grid pointing game, where images have labels.
    pub pointing: Option<PointingOptions>,
    /// Images that are explained before and after; 0 for none.
    pub sheet: usize,
    /// Seed of all random numbers.
    pub seed: u64,
    /// The folder for checkpoints and metrics.
    pub work_dir: PathBuf,
    /// Go on from the last checkpoint in the folder.
    pub resume: bool,
    /// What runs the steps.
    pub engine: EngineChoice,
    /// Where they run; [`PredictOptions::device`] is where evaluations do.
    pub device: DeviceChoice,
    /// How products are rounded in steps, and where features are computed; [`PredictOptions::precision`] is for evaluations.
    pub precision: Precision,
    /// Threads of the engine.
    pub threads: usize,
}

impl AlignOptions {
    /// Steps of each segment, unless there is a joint part too.
    pub const BLOCK_STEPS: u64 = 80;
    /// The learning rate of blocks.
    pub const BLOCK_RATE: f64 = 0.06;
    /// That of networks with attention.
    pub const ATTENTION_RATE: f64 = 0.03;
    /// The momentum of norms that use the statistics of the batch.
    pub const BATCH_MOMENTUM: f64 = 0.1;
    /// The momentum of norms that use running statistics: the noise of small batches should not enter what is computed.
    pub const RUNNING_MOMENTUM: f64 = 0.04;
    /// The fewest images whose features are kept, or all if there are fewer.
    pub const KEPT: usize = 1024;

    /// The largest learning rate of blocks: what is asked for, or what suits the network.
    pub(super) fn block_rate(&self) -> f64 {
        self.block_rate.unwrap_or(Self::BLOCK_RATE)
    }

    /// Steps of the joint part: by default 250, 400 where B grows, and 100 behind blocks.
    pub fn joint_steps(&self) -> u64 {
        self.joint_steps.unwrap_or(self.of_joint(250, 400, 100))
    }

    /// The largest learning rate of the joint part: by default 0.015, 0.005 where B grows, so that what the original has learned is not
    /// lost, and 0.008 behind blocks.
    pub fn joint_rate(&self) -> f64 {
        self.joint_rate
            .unwrap_or(self.of_joint(0.015, 0.005, 0.008))
    }

    /// Places at which the joint part compares: by default 3, and 6 where B grows.
    pub fn taps(&self) -> usize {
        self.taps.unwrap_or(self.of_joint(3, 6, 3))
    }

    /// What a joint part has by default: alone, with a growing B, behind blocks.
    fn of_joint<T>(&self, alone: T, grown: T, behind: T) -> T {
        match (self.method, self.growth) {
            (Method::BlocksJoint, _) => behind,
            (Method::Grow, _) | (_, Some(_)) => grown,
            (_, None) => alone,
        }
    }

    /// Steps in which B grows.
    pub fn growing(&self) -> u64 {
        let all = self.joint_steps();
        let asked = self.growth.and_then(|growth| growth.steps);
        match self.growth.is_some() || self.method == Method::Grow {
            true => asked.unwrap_or(all / 2).min(all),
            false => 0,
        }
    }

    /// Makes [`Method::Grow`] the joint method with a B that grows and with biases that stay. Unless something else was asked for, they are
    /// carried where the input allows it, and otherwise kept.
    pub fn grow(&mut self) {
        self.method = Method::Joint;
        self.growth.get_or_insert(Growth {
            from: 1.0,
            steps: None,
        });
        let settings = &mut self.conversion.settings;
        settings.biases.get_or_insert(match settings.input {
            InputContract::Same => Biases::Keep,
            InputContract::AddInverse | InputContract::Rgb => Biases::Carry,
        });
    }

    /// Whether training begins with B = 1. Norms of a model that is converted first are not measured at its own B then, so that it starts
    /// as the original, if biases are not removed.
    pub fn from_one(&self) -> bool {
        let grows = self.growth.is_some_and(|growth| growth.from == 1.0);
        grows && self.method == Method::Joint
    }

    /// What sessions of training steps need.
    pub(super) fn session(&self) -> SessionOptions {
        SessionOptions {
            threads: self.threads,
            precision: self.precision,
            ..SessionOptions::default()
        }
    }
}
