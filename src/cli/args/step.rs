//! Options of a training step, shared by `train` and `train-graph`.

use std::path::PathBuf;

use anyhow::bail;
use bcosc::autodiff::training::{
    Adam, Clip, Exponent, Loss, NormStatistics, Optimiser, StepOptions, Targets,
};
use bcosc::{Source, TrainingOptions};
use clap::{Args, ValueEnum};

use super::published::Published;
use super::values::{decay, fraction, positive};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LossArg {
    /// Binary cross-entropy of every logit; the targets of other classes are --off-label
    Bce,
    /// Cross-entropy of the softmax, with --label-smoothing
    CrossEntropy,
    /// Mean squared difference from the outputs of --teacher
    Mse,
    /// One minus the cosine between outputs and those of --teacher
    Cosine,
    /// Whether an output and one of --teacher are of one image, for all pairs of the batch: the loss of SigLIP
    Siglip,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OptimizerArg {
    /// Adam with decoupled weight decay
    Adamw,
    /// Adam
    Adam,
    /// Stochastic gradient descent with --momentum
    Sgd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NormStatisticsArg {
    /// The statistics of the batch
    Batch,
    /// The running statistics, as in inference, while they move: for statistics that change slowly, as those of a growing B
    Running,
    /// The statistics of the model, which stay as they are: for batches too small to measure a variance
    Fixed,
}

impl From<NormStatisticsArg> for NormStatistics {
    fn from(value: NormStatisticsArg) -> Self {
        match value {
            NormStatisticsArg::Batch => NormStatistics::Batch,
            NormStatisticsArg::Running => NormStatistics::Running,
            NormStatisticsArg::Fixed => NormStatistics::Fixed,
        }
    }
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Training step")]
pub struct StepArgs {
    /// The function that training minimises [default: bce]
    #[arg(long, value_enum)]
    pub loss: Option<LossArg>,
    /// With --loss bce: target of the classes that are not the label; 0 is plain binary cross-entropy
    /// [default: 1 / number of classes]
    #[arg(long, value_name = "X", value_parser = fraction)]
    pub off_label: Option<f64>,
    /// With --loss cross-entropy: the share of the target that is spread over all classes
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = fraction)]
    pub label_smoothing: f64,
    /// Learn from another model instead of labels: its outputs, or with --loss bce or cross-entropy its softmax, are the
    /// targets
    #[arg(long, value_name = "MODEL.onnx")]
    pub teacher: Option<PathBuf>,
    /// The optimizer, with PyTorch's formulas [default: adamw]
    #[arg(long, visible_alias = "opt", value_enum)]
    pub optimizer: Option<OptimizerArg>,
    /// Momentum of sgd
    #[arg(long, value_name = "X", default_value_t = 0.9, value_parser = fraction)]
    pub momentum: f64,
    /// Use Nesterov momentum
    #[arg(long)]
    pub nesterov: bool,
    /// Decay of Adam's two moving averages
    #[arg(long, value_name = "B1,B2", value_delimiter = ',', num_args = 1, default_values_t = [0.9, 0.999], value_parser = fraction)]
    pub betas: Vec<f64>,
    /// Epsilon of Adam
    #[arg(long, value_name = "X", default_value_t = 1e-8, value_parser = positive)]
    pub eps: f64,
    /// Weight decay
    #[arg(long, visible_alias = "wd", value_name = "X", default_value_t = 0.0, value_parser = decay)]
    pub weight_decay: f64,
    /// Weight decay of scales and biases of norms [default: --weight-decay]
    #[arg(long, value_name = "X", value_parser = decay)]
    pub norm_weight_decay: Option<f64>,
    /// Adaptive gradient clipping: limit the norm of a unit's gradient to this share of the norm of its weights
    #[arg(long, value_name = "FACTOR", num_args = 0..=1, default_missing_value = "0.01", value_parser = positive, conflicts_with = "clip_grad_norm")]
    pub agc: Option<f64>,
    /// Limit the norm of all gradients together
    #[arg(long, value_name = "NORM", value_parser = positive)]
    pub clip_grad_norm: Option<f64>,
    /// Average the gradients of so many batches before each update
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub accumulate: u32,
    /// Keep an exponential moving average of the parameters with this decay
    #[arg(long, value_name = "DECAY", num_args = 0..=1, default_missing_value = "0.999", value_parser = fraction)]
    pub ema: Option<f64>,
    /// What batch norms divide by while they are trained
    #[arg(long, value_enum, default_value_t = NormStatisticsArg::Batch)]
    pub norm_statistics: NormStatisticsArg,
    /// Share of a batch's statistics in the new running statistics of norms
    #[arg(long, value_name = "X", default_value_t = 0.1, value_parser = fraction)]
    pub norm_momentum: f64,
    /// Learn B of every B-cos layer
    #[arg(long)]
    pub learn_b: bool,
    /// Do not train the parameters whose names match; `*` is any text; repeatable
    #[arg(long, value_name = "PATTERN")]
    pub freeze: Vec<String>,
}

/// A value as it is on the command line.
fn name(value: LossArg) -> String {
    let found = value.to_possible_value();
    found.map_or_else(String::new, |found| found.get_name().to_owned())
}

impl StepArgs {
    /// The options of the library, with the defaults of a recipe.
    pub fn options(
        &self,
        targets: Targets,
        published: &Published,
    ) -> anyhow::Result<TrainingOptions> {
        let chosen = self.loss.unwrap_or(published.loss);
        let loss = match chosen {
            LossArg::Bce => Loss::BinaryCrossEntropy {
                off_label: self.off_label,
            },
            LossArg::CrossEntropy => Loss::CrossEntropy {
                label_smoothing: self.label_smoothing,
            },
            LossArg::Mse => Loss::MeanSquare,
            LossArg::Cosine => Loss::Cosine,
            LossArg::Siglip => Loss::SIGMOID_PAIRS,
        };
        if loss.needs_teacher() && self.teacher.is_none() {
            bail!("--loss {} requires --teacher MODEL.onnx", name(chosen));
        }
        let &[first, second] = &self.betas[..] else {
            bail!("--betas takes two numbers, such as 0.9,0.999");
        };
        let adam = Adam {
            betas: [first, second],
            eps: self.eps,
            ..Adam::default()
        };
        let clip = match (self.agc, self.clip_grad_norm) {
            (None, Some(limit)) => Some(Clip::GlobalNorm { limit }),
            (agc, _) => agc
                .or(published.agc)
                .map(|factor| Clip::Adaptive { factor, eps: 1e-3 }),
        };
        Ok(TrainingOptions {
            step: StepOptions {
                loss,
                targets,
                teacher: None,
                exponent: match self.learn_b {
                    true => Exponent::Learned,
                    false => Exponent::Fixed,
                },
                optimiser: match self.optimizer.unwrap_or(published.optimizer) {
                    OptimizerArg::Adamw => Optimiser::AdamW(adam),
                    OptimizerArg::Adam => Optimiser::Adam(adam),
                    OptimizerArg::Sgd => Optimiser::Sgd {
                        momentum: self.momentum,
                        nesterov: self.nesterov,
                    },
                },
                clip,
                norm_statistics: self.norm_statistics.into(),
                norm_momentum: self.norm_momentum,
                accumulate: self.accumulate,
                average: self.ema,
                scale_biases: false,
                whole_gradients: false,
                biases_removed: false,
            },
            teacher: self.teacher.as_ref().map(Source::from),
            weight_decay: self.weight_decay,
            norm_weight_decay: self.norm_weight_decay,
            freeze: self.freeze.clone(),
            ..TrainingOptions::default()
        })
    }
}
