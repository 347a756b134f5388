//! What is trained, in which order.

use std::sync::Arc;

use bcosc_autodiff::training::{
    Adam, Alignment, Exponent, Loss, NormStatistics, Optimiser, Reference, Segment, StepOptions,
    Tap, Targets,
};

use super::options::{AlignOptions, Method, TrainOn};
use super::prepare::Prepared;
use crate::training::{Schedule, alignment_step_of, step_of};
use crate::{Error, Shape, TrainingOptions, TrainingStep};

/// Smaller tensors learn as if they had this root mean square.
const LEAST: f64 = 1e-3;

/// A phase, as it is shown before it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// What is trained.
    pub name: String,
    /// Places where the model is compared with its original.
    pub places: Vec<String>,
    /// Trained tensors, where not all are.
    pub parameters: Option<usize>,
    /// Layers in it.
    pub layers: usize,
    /// Steps.
    pub steps: u64,
}

/// A training step that runs for some steps.
#[derive(Clone, Debug)]
pub(super) struct Phase {
    pub planned: Planned,
    schedule: Schedule,
    /// The share of its steps in which the learning rate rises, where no number of steps is asked for.
    rise: f64,
    /// Its share of a budget of time.
    pub share: f64,
    work: Work,
}

#[derive(Clone, Debug)]
enum Work {
    /// The parameters of a segment that are not frozen, against the values that leave it in the original.
    Segment(usize),
    /// All parameters that are not frozen, against values of the original; B may grow over the steps.
    Joint { taps: Vec<Tap>, grows: bool },
    /// All parameters that are not frozen, against probabilities or labels.
    Train(TrainOn),
}

/// What a segment is compared at.
pub(super) fn taps(segment: &Segment) -> Vec<Tap> {
    match segment.values.is_empty() {
        true => vec![Tap::Output],
        false => segment.values.iter().cloned().map(Tap::Value).collect(),
    }
}

/// Names of taps, for people.
fn places(taps: &[Tap]) -> Vec<String> {
    taps.iter().map(|tap| tap.place().to_owned()).collect()
}

/// The phases of a method.
pub(super) fn phases(segments: &[Segment], options: &AlignOptions) -> Vec<Phase> {
    let mut found = Vec::new();
    let schedule = |rate: f64, steps: u64| Schedule {
        rate,
        warmup: 0,
        steps,
        shape: Shape::Cosine,
    };
    let layers: usize = segments.iter().map(|segment| segment.layers).sum();
    let counts = segments.iter().map(|segment| segment.parameters.len());
    let parameters = (!options.freeze.is_empty()).then(|| counts.sum());
    if options.method != Method::Joint {
        let shares = shares(segments);
        let rate = options.block_rate();
        let trained = |(_, segment): &(usize, &Segment)| !segment.parameters.is_empty();
        for (index, segment) in segments.iter().enumerate().filter(trained) {
            let taps = taps(segment);
            found.push(Phase {
                planned: Planned {
                    name: format!("segment {}", index + 1),
                    places: places(&taps),
                    parameters: Some(segment.parameters.len()),
                    layers: segment.layers,
                    steps: options.block_steps,
                },
                schedule: schedule(rate, options.block_steps),
                rise: 0.0,
                share: shares[index],
                work: Work::Segment(index),
            });
        }
    }
    if options.method != Method::Blocks {
        let taps = spread_taps(segments, options.taps());
        let (growing, all) = (options.growing(), options.joint_steps());
        let grown = Schedule {
            shape: Shape::Constant,
            ..schedule(options.joint_rate(), growing)
        };
        let settled = schedule(options.joint_rate(), all - growing);
        let rise = if growing > 0 { 0.05 } else { 0.0 };
        for (name, schedule, rise, grows) in [
            ("joint, B grows", grown, 0.2, true),
            ("joint", settled, rise, false),
        ] {
            if schedule.steps == 0 {
                continue;
            }
            found.push(Phase {
                planned: Planned {
                    name: name.to_owned(),
                    places: places(&taps),
                    parameters,
                    layers,
                    steps: schedule.steps,
                },
                schedule,
                rise,
                share: schedule.steps as f64 / all as f64,
                work: Work::Joint {
                    taps: taps.clone(),
                    grows,
                },
            });
        }
    }
    if options.then_train > 0 {
        found.push(Phase {
            planned: Planned {
                name: "end to end".to_owned(),
                places: vec!["output".to_owned()],
                parameters,
                layers,
                steps: options.then_train,
            },
            schedule: schedule(options.train_rate, options.then_train),
            rise: 0.0,
            share: 0.5,
            work: Work::Train(options.train_on),
        });
    }
    let all: f64 = found.iter().map(|phase| phase.share).sum();
    for phase in &mut found {
        phase.share /= all;
    }
    found
}

/// Shares of segments in a budget. If every error falls with one over the steps, their sum is smallest where the time of a segment
/// grows with the square root of the cost of its steps: costly segments get more time, but fewer steps.
fn shares(segments: &[Segment]) -> Vec<f64> {
    let roots = segments.iter().map(|s| (s.cost.max(1) as f64).sqrt());
    let all: f64 = roots.clone().sum();
    roots.map(|root| root / all).collect()
}

/// The output, and the values that leave some segments: the last before the output, and others at even distances in layers.
fn spread_taps(segments: &[Segment], count: usize) -> Vec<Tap> {
    let mut depth = 0;
    let mut inner = Vec::new();
    for segment in segments.iter().filter(|s| !s.values.is_empty()) {
        depth += segment.layers;
        inner.push((depth, segment));
    }
    let mut found = Vec::new();
    for place in 1..=count {
        let wanted = depth * place / count;
        let nearest = inner.iter().min_by_key(|(depth, _)| depth.abs_diff(wanted));
        found.extend(nearest.into_iter().flat_map(|(_, segment)| taps(segment)));
    }
    found.dedup();
    found.push(Tap::Output);
    found
}

impl Phase {
    /// Whether B grows in it.
    pub fn grows(&self) -> bool {
        matches!(&self.work, Work::Joint { grows: true, .. })
    }

    /// Whether biases decay in it.
    pub fn decays(&self, options: &AlignOptions) -> bool {
        options.bias_decay.is_some() && matches!(&self.work, Work::Joint { grows: false, .. })
    }

    /// The learning rate over its steps, of which a budget of time may allow another number than planned.
    pub fn schedule(&self, steps: Option<u64>, options: &AlignOptions) -> Schedule {
        let steps = steps.unwrap_or(self.schedule.steps);
        let rise = (steps as f64 * self.rise) as u64;
        Schedule {
            steps,
            warmup: options.warmup.unwrap_or(rise).min(steps / 2),
            ..self.schedule
        }
    }

    /// What norms divide by in it. Running statistics follow what a growing B does to a layer. At one B they would follow what the layer
    /// learns: gradients through them do not see that the norm undoes a change of scale, and repeat it without end.
    fn norm_statistics(&self, prepared: &Prepared, options: &AlignOptions) -> NormStatistics {
        let chosen = options.norm_statistics;
        chosen.unwrap_or(match (prepared.starts_exact, self.grows()) {
            (true, true) => NormStatistics::Running,
            (true, false) => NormStatistics::Fixed,
            (false, _) => NormStatistics::Batch,
        })
    }

    /// The number of the segment that it trains.
    pub fn segment(&self) -> Option<usize> {
        match &self.work {
            Work::Segment(index) => Some(*index),
            Work::Joint { .. } | Work::Train(_) => None,
        }
    }

    /// The training step from the model as it is now; gradients of convolutions stay whole for engines that compute them.
    pub fn step(
        &self,
        prepared: &Prepared,
        model: &bcosc_ir::Model,
        options: &AlignOptions,
        whole_gradients: bool,
    ) -> Result<TrainingStep, Error> {
        let norm_statistics = self.norm_statistics(prepared, options);
        let step = StepOptions {
            optimiser: Optimiser::Adam(Adam {
                betas: [0.9, 0.999],
                eps: 1e-8,
                // Weights that norms were folded into differ by a factor of a hundred in size.
                relative: Some(LEAST),
            }),
            exponent: match self.grows() {
                true => Exponent::Input,
                false => Exponent::Fixed,
            },
            scale_biases: self.decays(options),
            norm_statistics,
            norm_momentum: options.norm_momentum.unwrap_or(match norm_statistics {
                NormStatistics::Running => AlignOptions::RUNNING_MOMENTUM,
                NormStatistics::Batch | NormStatistics::Fixed => AlignOptions::BATCH_MOMENTUM,
            }),
            whole_gradients,
            ..StepOptions::default()
        };
        let (label, model) = (&prepared.label, model.clone());
        match &self.work {
            Work::Segment(index) => {
                let segment = &prepared.segments[*index];
                let alignment = Alignment {
                    from: &segment.reads,
                    taps: &taps(segment),
                    reference: Reference::Targets,
                };
                let is_trained = |name: &str| segment.parameters.iter().any(|own| own == name);
                alignment_step_of(model, &alignment, &is_trained, &step, label)
            }
            Work::Joint { taps, .. } => {
                let alignment = Alignment {
                    from: &[],
                    taps,
                    reference: Reference::Original(&prepared.original),
                };
                let is_trained = |name: &str| !prepared.frozen.contains(name);
                alignment_step_of(model, &alignment, &is_trained, &step, label)
            }
            Work::Train(on) => {
                let (targets, teacher) = match on {
                    TrainOn::Original => {
                        let original = Arc::new(prepared.original.clone());
                        (Targets::Teacher, Some(original))
                    }
                    TrainOn::Labels => (Targets::Labels, None),
                };
                let training = TrainingOptions {
                    step: StepOptions {
                        loss: Loss::default(),
                        targets,
                        teacher,
                        ..step
                    },
                    freeze: options.freeze.clone(),
                    ..TrainingOptions::default()
                };
                step_of(model, &training, label)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(name: &str, layers: usize) -> Segment {
        Segment {
            reads: Vec::new(),
            values: (!name.is_empty())
                .then(|| name.to_owned())
                .into_iter()
                .collect(),
            parameters: Vec::new(),
            layers,
            cost: 0,
        }
    }

    #[test]
    fn costly_segments_get_more_time_but_fewer_steps() {
        let costs = [1, 4, 25].map(|cost| Segment {
            cost,
            ..segment("block", 2)
        });
        assert_eq!(shares(&costs), [1.0 / 8.0, 2.0 / 8.0, 5.0 / 8.0]);
    }

    #[test]
    fn taps_are_at_even_depths() {
        // The stem, nine blocks and the head of a ResNet-20.
        let layers = [2, 2, 2, 3, 2, 2, 3, 2, 2];
        let mut network = vec![segment("stem", 1)];
        for (index, layers) in layers.into_iter().enumerate() {
            network.push(segment(&format!("block{}", index + 1), layers));
        }
        network.push(segment("", 1));
        let named = |count| places(&spread_taps(&network, count)).join(" ");
        assert_eq!(named(3), "block3 block6 block9 output");
        assert_eq!(named(1), "block9 output");
        assert_eq!(named(0), "output");
        assert_eq!(named(50).split(' ').count(), 11);
        assert_eq!(places(&spread_taps(&network[10..], 3)), ["output"]);
    }
}
