//! The loop over steps and epochs.

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use bcosc_engine::SessionOptions;
use bcosc_ir::Model;

use super::checkpoint::{self, BEST, LAST, Place};
use super::events::{Evaluated, EvaluationLine, StepLine, Tell, TrainEvent, Trained};
use super::measure::Measured;
use super::options::{EvaluateEvery, TrainOptions};
use super::prepare::Prepared;
use crate::data::{Batch as Images, Loader, Unreadable};
use crate::metadata::BIASES_KEPT;
use crate::training::{Metrics, Schedule};
use crate::vision::explain::side_by_side::{SHEET, SideBySide};
use crate::{Error, Numbers, Ramp, Source, Trainer, Weights, weights};

/// Trains a model on a folder of images. `tell` hears of every step, and stops the run if it breaks: a checkpoint
/// is written then.
///
/// # Errors
/// If the model cannot be converted or trained, images cannot be used, the loss becomes NaN or infinite, or a file
/// cannot be written. The last checkpoint stays.
pub fn train(
    source: impl Into<Source>,
    options: &TrainOptions,
    tell: &mut dyn FnMut(TrainEvent<'_>) -> ControlFlow<()>,
) -> Result<Trained, Error> {
    let engine = options.engine.open(options.device)?;
    let engine = engine.in_precision(options.precision)?;
    let prepared = Prepared::of(source.into(), options, engine.has_markers(), tell)?;
    let loader = prepared.loader(options)?;
    let per_epoch = loader.batches() as u64;
    let planned = per_epoch.saturating_mul(options.epochs);
    let schedule = Schedule {
        rate: options.rate,
        warmup: options.warmup,
        steps: options.steps.map_or(planned, |steps| steps.min(planned)),
        shape: options.shape,
    };
    fs::create_dir_all(&options.work_dir).map_err(|source| Error::File {
        path: options.work_dir.clone(),
        source,
    })?;
    let settings = prepared.settings(options, &schedule);
    let path = checkpoint::last(&options.work_dir);
    let mut step = prepared.step.clone();
    let place = match options.resume && path.exists() {
        true => {
            let (place, weights) = Place::read(&path)?;
            place.check(&settings, &path)?;
            step.restore(&weights)?;
            place
        }
        false => Place {
            settings,
            ..Place::default()
        },
    };
    let batch = prepared.batch(options);
    let session = SessionOptions {
        threads: options.threads,
        precision: options.precision,
        ..SessionOptions::default()
    };
    let trainer = Trainer::new(&step, place.step, &*engine, &batch, &session)?;
    let metrics = Metrics::open(&options.work_dir, place.step).map_err(|e| options.failed(e))?;
    let _ = tell(TrainEvent::Started {
        step: place.step,
        steps: schedule.steps,
        per_epoch,
        images: [loader.samples().len(), prepared.val.len()],
        engine: engine.name(),
        notes: &prepared.notes,
    });
    Run {
        options,
        prepared: &prepared,
        loader,
        schedule,
        trainer,
        metrics,
        place,
        losses: Vec::new(),
        skipped: BTreeSet::new(),
        saved: None,
    }
    .all(tell)
}

/// A run on its way.
struct Run<'a> {
    options: &'a TrainOptions,
    prepared: &'a Prepared,
    loader: Loader,
    schedule: Schedule,
    trainer: Trainer,
    metrics: Metrics,
    place: Place,
    /// Since the last evaluation.
    losses: Vec<f64>,
    /// Validation images that could not be read.
    skipped: BTreeSet<PathBuf>,
    /// The step of the last checkpoint of this process.
    saved: Option<u64>,
}

impl Run<'_> {
    fn all(mut self, tell: Tell<'_>) -> Result<Trained, Error> {
        let per_epoch = self.loader.batches() as u64;
        if self.place.step == 0 {
            self.place.before = Some(self.evaluate(self.options.pointing.is_some(), tell)?);
        } else if self.is_due() && self.place.evaluated != self.place.step {
            // The run was interrupted before it.
            self.measure(tell)?;
        }
        let mut interrupted = false;
        while self.place.step < self.schedule.steps && !interrupted {
            let (epoch, first) = (self.place.step / per_epoch, self.place.step % per_epoch);
            let mut clock = Instant::now();
            for images in self.loader.resume(epoch, first as usize) {
                let images = images?;
                interrupted = self.one(images, epoch, &mut clock, tell)?.is_break();
                if !interrupted && self.is_due() {
                    self.measure(tell)?;
                    clock = Instant::now();
                }
                if interrupted || self.place.step >= self.schedule.steps {
                    break;
                }
            }
            self.checkpoint(&[LAST], tell)?;
        }
        let mut model = self.tuned(&self.weights()?)?;
        if self.bias_scale(self.place.step) == Some(0.0) {
            // What is left of them is zeros. Norms still count the channel that carried them.
            model.set_metadata(BIASES_KEPT, "false");
        }
        if !interrupted && self.options.sheet > 0 {
            let _ = tell(TrainEvent::Preparing("explaining"));
            let sheet = self.sheet(&model)?;
            let path = self.options.work_dir.join(SHEET);
            sheet.map_or(Ok(()), |png| bcosc_onnx::write_bytes(&path, &png))?;
        }
        let of_training = self.loader.skipped().into_iter().map(|s| s.path);
        self.skipped.extend(of_training);
        Ok(Trained {
            model,
            steps: self.place.step,
            interrupted,
            before: self.place.before,
            after: self.place.after,
            best: self.place.best,
            skipped: self.skipped,
        })
    }

    /// Whether the model is evaluated at this step.
    fn is_due(&self) -> bool {
        let (step, per_epoch) = (self.place.step, self.loader.batches() as u64);
        step >= self.schedule.steps
            || match self.options.eval_every {
                EvaluateEvery::Epochs(count) => {
                    step.is_multiple_of(per_epoch.saturating_mul(count))
                }
                EvaluateEvery::Steps(count) => step.is_multiple_of(count),
            }
    }

    /// Evaluates the model after a step, and writes checkpoints.
    fn measure(&mut self, tell: Tell<'_>) -> Result<(), Error> {
        let done = self.place.step >= self.schedule.steps;
        let measured = self.evaluate(done && self.options.pointing.is_some(), tell)?;
        let score = measured.score();
        self.place.evaluated = self.place.step;
        self.place.after = Some(measured);
        if self.place.best.is_none() || score > self.place.best {
            self.place.best = score;
            self.checkpoint(&[BEST, LAST], tell)
        } else {
            self.checkpoint(&[LAST], tell)
        }
    }

    /// Does one step.
    fn one(
        &mut self,
        images: Images,
        epoch: u64,
        clock: &mut Instant,
        tell: Tell<'_>,
    ) -> Result<ControlFlow<()>, Error> {
        let count = images.samples.len();
        let targets = images.targets.filter(|_| images.teacher_images.is_none());
        let learning_rate = self.schedule.rate(self.place.step);
        let numbers = Numbers {
            rate: learning_rate,
            b: self
                .prepared
                .growth
                .map(|growth| growth.at(self.place.step)),
            bias_scale: self.bias_scale(self.place.step),
        };
        let stepped = self
            .trainer
            .step(images.images, targets, images.teacher_images, numbers)?;
        if !stepped.loss.is_finite() {
            return Err(self.diverged(format!("the loss is {}", stepped.loss)));
        }
        self.place.step += 1;
        self.losses.push(stepped.loss);
        let rate = count as f64 / clock.elapsed().as_secs_f64().max(1e-9);
        *clock = Instant::now();
        let line = StepLine {
            step: self.place.step,
            epoch,
            loss: stepped.loss,
            learning_rate,
            images_per_second: rate,
        };
        let recorded = self.metrics.record(self.place.step, &line);
        recorded.map_err(|error| self.options.failed(error))?;
        Ok(tell(TrainEvent::Step {
            step: self.place.step,
            loss: stepped.loss,
            rate,
        }))
    }

    fn diverged(&self, problem: String) -> Error {
        Error::Diverged {
            step: self.place.step + 1,
            problem,
            checkpoint: Some(checkpoint::last(&self.options.work_dir)).filter(|p| p.exists()),
        }
    }

    /// The state, which must be finite.
    fn weights(&self) -> Result<Weights, Error> {
        let weights = self.trainer.weights()?;
        match weights.not_finite() {
            None => Ok(weights),
            Some((name, found)) => {
                Err(self.diverged(format!("\"{name}\" has an element that is {found}")))
            }
        }
    }

    /// The factor of biases at a step, counted from 0.
    fn bias_scale(&self, step: u64) -> Option<f64> {
        let decay = |steps| Ramp {
            from: 1.0,
            to: 0.0,
            steps,
        };
        self.options.bias_decay.map(|steps| decay(steps).at(step))
    }

    /// The model with weights, and with biases as far as they have decayed.
    fn tuned(&self, state: &Weights) -> Result<Model, Error> {
        let mut model = self.prepared.model.clone();
        let decayed = self.bias_scale(self.place.step).map(|scale| {
            let mut decayed = state.clone();
            let biases = &self.prepared.step.biases;
            decayed.scale(biases, scale);
            decayed
        });
        let state = decayed.as_ref().unwrap_or(state);
        let averages = self.options.training.step.average.is_some();
        weights::replace(&mut model, state, averages, &self.prepared.label)?;
        Ok(model)
    }

    /// Explanations of validation images before and after.
    fn sheet(&self, after: &Model) -> Result<Option<Vec<u8>>, Error> {
        if !self.prepared.explains {
            return Ok(None);
        }
        let items = self.prepared.val.items(self.options.sheet);
        let side_by_side = SideBySide {
            label: &self.prepared.label,
            size: self.prepared.size,
            options: &self.options.predict,
            skip_unreadable: self.options.unreadable == Unreadable::Skip,
            class_name: &|class| self.prepared.class_name(class),
        };
        side_by_side.png(
            &[("before", &self.prepared.model), ("after", after)],
            &items,
        )
    }

    fn evaluate(&mut self, points: bool, tell: Tell<'_>) -> Result<Measured, Error> {
        let model = self.tuned(&self.weights()?)?;
        let _ = tell(TrainEvent::Preparing("evaluating"));
        let (measured, skipped) = Measured::of(&model, self.prepared, self.options, points)?;
        self.skipped.extend(skipped);
        let (sum, count) = (self.losses.iter().sum::<f64>(), self.losses.len());
        self.losses.clear();
        let line = EvaluationLine {
            step: self.place.step,
            measured: &measured,
        };
        let recorded = self.metrics.record(self.place.step, &line);
        recorded.map_err(|error| self.options.failed(error))?;
        let evaluated = Evaluated {
            step: self.place.step,
            train_loss: (count > 0).then(|| sum / count as f64),
            measured,
        };
        let _ = tell(TrainEvent::Evaluated(&evaluated));
        Ok(evaluated.measured)
    }

    /// Writes checkpoints, unless the last one is of this step already.
    fn checkpoint(&mut self, names: &[&str], tell: Tell<'_>) -> Result<(), Error> {
        if self.saved == Some(self.place.step) {
            return Ok(());
        }
        let weights = self.weights()?;
        for name in names {
            self.place
                .write(&weights, &self.options.work_dir.join(name))?;
        }
        self.saved = Some(self.place.step);
        let _ = tell(TrainEvent::Checkpoint(self.place.step));
        Ok(())
    }
}
