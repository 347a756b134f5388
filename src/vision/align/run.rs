//! The loop over phases and steps.

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bcosc_engine::Engine;
use bcosc_ir::{Model, Tensors};
use serde::Serialize;

use super::budget::Budget;
use super::events::{AlignEvent, Aligned, Phased, Tell};
use super::features::Features;
use super::feed::{self, Feed, Source as Inputs};
use super::lines::{MeasureLine, PhaseLine, StepLine};
use super::measure::{Agreement, agreement};
use super::numbers::numbers;
use super::options::AlignOptions;
use super::phases::{Phase, Planned, phases};
use super::place::{self, Place};
use super::prepare::{Prepared, of_converted};
use crate::data::{Loader, Unreadable};
use crate::metadata::BIASES_KEPT;
use crate::probabilities::before_probabilities;
use crate::training::{Metrics, Schedule, Stepped};
use crate::vision::explain::side_by_side::{SHEET, SideBySide};
use crate::vision::predict::Reference;
use crate::{Error, Numbers, Source, Trainer, Weights, weights};

/// Steps whose errors are averaged for the error after a phase.
const LAST_STEPS: usize = 5;
/// Time between checkpoints.
const BETWEEN: Duration = Duration::from_secs(120);

/// What [`align`] would train, in its order.
///
/// # Errors
/// If the model cannot be read, converted or cut.
pub fn plan_alignment(
    source: impl Into<Source>,
    options: &AlignOptions,
    tell: &mut dyn FnMut(AlignEvent<'_>) -> ControlFlow<()>,
) -> Result<Vec<Planned>, Error> {
    let prepared = Prepared::of(source.into(), options, tell)?;
    let phases = phases(&prepared.segments, &prepared.options);
    Ok(phases.into_iter().map(|phase| phase.planned).collect())
}

/// Aligns a model with its original on a folder of images; labels are used for evaluation, and for training
/// where [`TrainOn::Labels`](super::TrainOn::Labels) says so. `tell` hears of every step, and stops
/// the run if it breaks: a checkpoint is written then.
///
/// # Errors
/// If the model cannot be converted, cut or trained, images cannot be used, the loss becomes NaN or infinite, or a file
/// cannot be written. The last checkpoint stays.
pub fn align(
    source: impl Into<Source>,
    options: &AlignOptions,
    tell: &mut dyn FnMut(AlignEvent<'_>) -> ControlFlow<()>,
) -> Result<Aligned, Error> {
    let engine = options.engine.open(options.device)?;
    let engine = engine.in_precision(options.precision)?;
    let prepared = Prepared::of(source.into(), options, tell)?;
    let options = &prepared.options;
    let phases = phases(&prepared.segments, options);
    let loader = prepared.loader()?;
    let failed = |source| Error::File {
        path: options.work_dir.clone(),
        source,
    };
    fs::create_dir_all(&options.work_dir).map_err(failed)?;
    let settings = place::settings(&prepared, options, &phases);
    let mut model = prepared.model.clone();
    let mut changed = Weights::default();
    let mut place = Place {
        phase: 0,
        step: 0,
        total: 0,
        steps: None,
        batches: None,
        errors: Vec::new(),
        done: Vec::new(),
        settings,
    };
    let mut restored = None;
    if options.resume
        && let Some((found, state)) = Place::read(&options.work_dir, &place.settings)?
    {
        place = found;
        changed = state.model_only();
        if !changed.is_empty() {
            weights::replace(&mut model, &changed, false, &prepared.label)?;
        }
        restored = Some(state);
    }
    let metrics = Metrics::open(&options.work_dir, place.total).map_err(failed)?;
    let planned: Vec<Planned> = phases.iter().map(|phase| phase.planned.clone()).collect();
    let _ = tell(AlignEvent::Started {
        phases: &planned,
        images: [loader.samples().len(), prepared.pictures.held_out.len()],
        batch_size: prepared.batch_size(),
        engine: engine.name(),
        notes: &prepared.pictures.notes,
        done: place.total,
    });
    Run {
        options,
        prepared: &prepared,
        engine: &*engine,
        loader,
        metrics,
        place,
        model,
        changed,
        restored,
        begun: Instant::now(),
    }
    .all(&phases, tell)
}

/// An alignment on its way.
struct Run<'a> {
    options: &'a AlignOptions,
    prepared: &'a Prepared,
    engine: &'a dyn Engine,
    loader: Loader,
    metrics: Metrics,
    place: Place,
    /// The model after the phases that are done.
    model: Model,
    /// Its parameters and statistics that are no longer those of the converted model.
    changed: Weights,
    /// The state of a phase that goes on.
    restored: Option<Weights>,
    begun: Instant,
}

impl<'a> Run<'a> {
    fn all(mut self, phases: &[Phase], tell: Tell<'_>) -> Result<Aligned, Error> {
        let _ = tell(AlignEvent::Preparing("running the original"));
        let prepared = self.prepared;
        let held_out = prepared.pictures.held_out.clone();
        let unreadable = self.options.unreadable;
        let reference = Reference::of(&prepared.teacher, held_out, prepared.size, unreadable)?;
        let before = self.measure(&reference, &self.prepared.model, 0, tell)?;
        let mut interrupted = false;
        let mut features = None;
        while let Some(phase) = phases.get(self.place.phase) {
            let left: f64 = phases[self.place.phase..].iter().map(|p| p.share).sum();
            let share = phase.share / left;
            interrupted = self.one(phase, share, &mut features, tell)?.is_break();
            if interrupted {
                break;
            }
        }
        let mut aligned = Aligned {
            model: self.model.clone(),
            interrupted,
            phases: self.place.done.clone(),
            original: None,
            before: Some(before),
            after: None,
            skipped: self.skipped(&reference),
        };
        if interrupted {
            return Ok(aligned);
        }
        if self.options.bias_decay.is_some() {
            // What is left of them is zeros. Norms still count the channel that carried them.
            aligned.model.set_metadata(BIASES_KEPT, "false");
        }
        let total = self.place.total;
        aligned.after = Some(self.measure(&reference, &aligned.model, total, tell)?);
        aligned.original = super::measure::original(self.prepared, self.options)?;
        if self.options.sheet > 0 {
            let _ = tell(AlignEvent::Preparing("explaining"));
            self.sheet(&reference, &aligned.model)?;
        }
        Ok(aligned)
    }

    /// Features for a segment.
    fn features<'f>(
        &mut self,
        index: usize,
        found: &'f mut Option<Features<'a>>,
        tell: Tell<'_>,
    ) -> Result<&'f Features<'a>, Error> {
        let _ = tell(AlignEvent::Preparing("computing features"));
        let features = match found {
            Some(features) => features,
            None => {
                let batches = self.place.batches;
                let (options, engine) = (self.options, self.engine);
                let gathered =
                    Features::gather(self.prepared, options, engine, &self.loader, batches)?;
                found.insert(gathered)
            }
        };
        self.place.batches = Some(features.batches());
        features.carry_to(index, &self.model)?;
        Ok(features)
    }

    /// Images that could not be read.
    fn skipped(&self, reference: &Reference) -> BTreeSet<PathBuf> {
        let of_training = self.loader.skipped().into_iter().map(|s| s.path);
        let held_out = reference.skipped().cloned();
        of_training.chain(held_out).collect()
    }

    /// Runs one phase.
    fn one(
        &mut self,
        phase: &Phase,
        share: f64,
        features: &mut Option<Features<'a>>,
        tell: Tell<'_>,
    ) -> Result<ControlFlow<()>, Error> {
        let begun = Instant::now();
        let mut logits = self.model.clone();
        before_probabilities(&mut logits);
        let mut step = phase.step(
            self.prepared,
            &logits,
            self.options,
            self.engine.has_markers(),
        )?;
        let mut biases = step.biases.iter();
        if let Some(frozen) = biases.find(|name| self.prepared.frozen.contains(name)) {
            return Err(Error::Options(format!(
                "\"{frozen}\" is frozen, but biases decay"
            )));
        }
        if let Some(state) = self.restored.take().filter(|_| self.place.step > 0) {
            step.restore(&state)?;
        }
        let (loader, images) = (self.loader.clone(), &self.prepared.intake.name);
        let source = match phase.segment() {
            Some(index) => Inputs::Segment(self.features(index, features, tell)?, index),
            None => {
                *features = None;
                Inputs::images(&loader, self.place.total)
            }
        };
        let mut feed = Feed::new(source, &step, images);
        let mut schedule = phase.schedule(self.place.steps, self.options);
        let mut inputs = feed.inputs(self.place.step)?;
        let session = self.options.session();
        let mut trainer = Trainer::for_inputs(
            &step,
            self.place.step,
            self.engine,
            images,
            feed::shapes(&inputs),
            &session,
        )?;
        let (mut clock, mut saved) = (Instant::now(), Instant::now());
        let budget = Budget::of(self.options, phase, share, self.begun);
        let mut budget = budget.filter(|_| self.place.steps.is_none());
        while self.place.step < schedule.steps {
            let numbers = self.numbers(phase, &schedule);
            let loss = self.step(&mut trainer, inputs, numbers)?;
            let elapsed = clock.elapsed().as_secs_f64().max(1e-9);
            let speed = self.loader.options().batch_size as f64 / elapsed;
            clock = Instant::now();
            self.record(&StepLine {
                step: self.place.total,
                phase: self.place.phase,
                loss: loss.loss,
                learning_rate: numbers.rate,
                images_per_second: speed,
                b: numbers.b,
                errors: &loss.errors,
            })?;
            if let Some(steps) = budget.as_mut().and_then(|b| b.steps(self.place.step)) {
                self.place.steps = Some(steps);
                schedule = phase.schedule(Some(steps), self.options);
                budget = None;
            }
            let stop = tell(AlignEvent::Step {
                phase: self.place.phase,
                step: self.place.step,
                steps: schedule.steps,
                loss: loss.loss,
                rate: speed,
            });
            if stop.is_break() || saved.elapsed() >= BETWEEN {
                self.checkpoint(&trainer)?;
                saved = Instant::now();
            }
            if stop.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            inputs = match self.place.step < schedule.steps {
                true => feed.inputs(self.place.step)?,
                false => break,
            };
        }
        let scale = self.numbers(phase, &schedule).bias_scale;
        self.learn(&trainer, scale.map(|scale| (scale, &step.biases[..])))?;
        self.finish(phase, begun.elapsed(), tell)?;
        Ok(ControlFlow::Continue(()))
    }

    /// What the next step of a phase is given.
    fn numbers(&self, phase: &Phase, schedule: &Schedule) -> Numbers {
        numbers(
            self.options,
            phase,
            schedule,
            self.prepared.b,
            self.place.step,
        )
    }

    /// Does one step.
    fn step(
        &mut self,
        trainer: &mut Trainer,
        inputs: Tensors,
        numbers: Numbers,
    ) -> Result<Stepped, Error> {
        let found = trainer.run(inputs, numbers)?;
        if !found.loss.is_finite() {
            return Err(self.diverged(format!("the loss is {}", found.loss)));
        }
        self.place.step += 1;
        self.place.total += 1;
        let mean = found.errors.iter().sum::<f64>() / found.errors.len().max(1) as f64;
        let errors = &mut self.place.errors;
        if errors.len() > LAST_STEPS {
            errors.remove(1);
        }
        errors.push(if found.errors.is_empty() {
            found.loss
        } else {
            mean
        });
        Ok(found)
    }

    /// Puts what a phase has learned into the model, with biases as far as they have decayed.
    fn learn(&mut self, trainer: &Trainer, decayed: Option<(f64, &[String])>) -> Result<(), Error> {
        let mut learned = self.state(trainer)?.model_only();
        if let Some((scale, biases)) = decayed {
            learned.scale(biases, scale);
        }
        weights::replace(&mut self.model, &learned, false, &self.prepared.label)?;
        self.changed.extend(learned);
        Ok(())
    }

    /// Reports a phase, and goes on to the next.
    fn finish(&mut self, phase: &Phase, took: Duration, tell: Tell<'_>) -> Result<(), Error> {
        let errors = &self.place.errors;
        let last = errors.get(1..).unwrap_or_default();
        let before = errors.first().copied().unwrap_or(f64::NAN);
        let done = Phased {
            name: phase.planned.name.clone(),
            steps: self.place.step,
            seconds: took.as_secs_f64(),
            before,
            after: match last.is_empty() {
                true => before,
                false => last.iter().sum::<f64>() / last.len() as f64,
            },
        };
        self.record(&PhaseLine {
            step: self.place.total,
            phase: &done,
        })?;
        let _ = tell(AlignEvent::Phase(&done));
        self.place.done.push(done);
        self.place.phase += 1;
        self.place.step = 0;
        self.place.steps = None;
        self.place.errors.clear();
        self.place.write(&self.changed, &self.options.work_dir)
    }

    /// The state of a phase, which must be finite.
    fn state(&self, trainer: &Trainer) -> Result<Weights, Error> {
        let weights = trainer.weights()?;
        match weights.not_finite() {
            None => Ok(weights),
            Some((name, found)) => {
                Err(self.diverged(format!("\"{name}\" has an element that is {found}")))
            }
        }
    }

    fn checkpoint(&self, trainer: &Trainer) -> Result<(), Error> {
        let mut all = self.changed.clone();
        all.extend(self.state(trainer)?);
        self.place.write(&all, &self.options.work_dir)
    }

    fn diverged(&self, problem: String) -> Error {
        Error::Diverged {
            step: self.place.total + 1,
            problem,
            checkpoint: Some(place::path(&self.options.work_dir)).filter(|p| p.exists()),
        }
    }

    fn record(&mut self, line: &impl Serialize) -> Result<(), Error> {
        let recorded = self.metrics.record(self.place.total, line);
        recorded.map_err(|source| Error::File {
            path: self.options.work_dir.clone(),
            source,
        })
    }

    fn measure(
        &mut self,
        reference: &Reference,
        model: &Model,
        step: u64,
        tell: Tell<'_>,
    ) -> Result<Agreement, Error> {
        let _ = tell(AlignEvent::Preparing("comparing with the original"));
        let found = agreement(self.prepared, reference, model, self.options)?;
        if step >= self.place.total {
            self.record(&MeasureLine::of(step, &found))?;
        }
        let _ = tell(AlignEvent::Measured(&found));
        Ok(found)
    }

    /// Explanations by the converted and the aligned model, in one picture.
    fn sheet(&self, reference: &Reference, after: &Model) -> Result<(), Error> {
        let pictures = &self.prepared.pictures;
        let options = of_converted(&self.options.predict);
        let side_by_side = SideBySide {
            label: &self.prepared.label,
            size: self.prepared.size,
            options: &options,
            skip_unreadable: self.options.unreadable == Unreadable::Skip,
            class_name: &|class| pictures.class_name(class, self.prepared.teacher.classes),
        };
        let items = reference.items(self.options.sheet);
        let sides = [("converted", &self.prepared.model), ("aligned", after)];
        let path = self.options.work_dir.join(SHEET);
        let png = side_by_side.png(&sides, &items)?;
        png.map_or(Ok(()), |png| Ok(bcosc_onnx::write_bytes(&path, &png)?))
    }
}
