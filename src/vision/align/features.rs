//! Features: what both models compute at the borders of segments, kept for the steps of the next one.
//!
//! Segments are trained in order, and what is trained does not change any more. So the images of some steps are
//! changed once, and both models carry their features of these images from border to border:
//!
//! ```text
//! images -> features at border 1 -> features at border 2 -> ...
//! ```
//!
//! A step of segment n reads the model's features at border n-1, and compares with the original's at border n. Without this,
//! every step of a late segment would compute nearly the whole of both models.

use std::collections::BTreeMap;
use std::mem;

use bcosc_autodiff::training::{Cuttable, Part, Read, Tap, feature_name, target_name};
use bcosc_engine::{Engine, EngineError, InputShapes, Session, SessionOptions, Value};
use bcosc_ir::{Model, Tensor, Tensors};

use super::events::{AlignEvent, Tell};
use super::feed::no_images;
use super::options::AlignOptions;
use super::phases::taps;
use super::prepare::Prepared;
use super::store::{Kept, Shelf, Store};
use crate::data::Loader;
use crate::probabilities::before_probabilities;
use crate::training::{cuttable, part};
use crate::{Error, RunError};

/// Features of both models for the batches of some steps.
pub(super) struct Features<'a> {
    prepared: &'a Prepared,
    runner: Runner<'a>,
    store: Store,
    /// The original, which does not change.
    cuttable: Cuttable,
    original: Side,
    model: Side,
}

/// The features of one of the models, in the order of the batches.
struct Side {
    images: Kept,
    features: BTreeMap<Tap, Kept>,
}

impl<'a> Features<'a> {
    /// Takes images for some steps: as many as fit into memory with their features, but at least one epoch, and no more than a
    /// segment has steps.
    pub fn gather(
        prepared: &'a Prepared,
        options: &AlignOptions,
        engine: &'a dyn Engine,
        loader: &Loader,
        tell: Tell<'_>,
    ) -> Result<Self, Error> {
        let _ = tell(AlignEvent::Preparing("preparing images"));
        let cuttable = cuttable(&prepared.original, &prepared.teacher.label)?;
        let runner = Runner {
            engine,
            session: options.session(),
        };
        let mut store = Store::new(options.feature_memory, options.work_dir.clone());
        let no_images = || no_images(&loader.samples().path);
        let mut batches = loader.endless(0, 0).peekable();
        let sides = match batches.peek() {
            Some(Ok(first)) => [Some(&first.images), first.teacher_images.as_ref()],
            _ => {
                return Err(batches
                    .next()
                    .and_then(Result::err)
                    .unwrap_or_else(no_images));
            }
        };
        let [model, original] = sides.map(|images| images.map_or(0, Tensor::byte_len));
        let first: Vec<Tap> = prepared.segments.iter().take(1).flat_map(taps).collect();
        let first = part(&cuttable, &[], &first, &prepared.teacher.label)?;
        let images: Vec<Tensor> = sides[1].cloned().into_iter().collect();
        let outputs = runner.run(&*runner.open(&first, &images)?, images)?;
        let border: u64 = outputs.iter().map(Tensor::byte_len).sum();
        // The model's features at one border, and the original's at two.
        let fitting = options.feature_memory / (model + original + 3 * border).max(1);
        let most = fitting.max(loader.batches() as u64);
        let most = most.min(options.block_steps);

        let mut shelves = [store.shelf(most * model)?, store.shelf(most * original)?];
        for batch in batches.take(most as usize) {
            let batch = batch?;
            let images = [Some(batch.images), batch.teacher_images];
            for (shelf, images) in shelves.iter_mut().zip(images) {
                store.put(shelf, images.ok_or_else(no_images)?)?;
            }
        }
        let [model, original] = shelves.map(|shelf| Side::new(&store, shelf));
        Ok(Features {
            prepared,
            runner,
            cuttable,
            original: original?,
            model: model?,
            store,
        })
    }

    /// Computes what a segment is compared with.
    pub fn enter(&mut self, index: usize, tell: Tell<'_>) -> Result<(), Error> {
        let _ = tell(AlignEvent::Preparing("computing features of the original"));
        let prepared = self.prepared;
        let segment = &prepared.segments[index];
        let mut wanted = taps(segment);
        wanted.extend(border(prepared, index + 1));
        let label = &prepared.teacher.label;
        let side = &mut self.original;
        let part = part(
            &self.cuttable,
            &segment.reads,
            &side.missing(&wanted),
            label,
        )?;
        side.advance(&part, &wanted, &self.runner, &mut self.store)
    }

    /// Computes what the next segment reads, by the model as it is trained now.
    pub fn leave(&mut self, index: usize, model: &Model, tell: Tell<'_>) -> Result<(), Error> {
        let prepared = self.prepared;
        let wanted = border(prepared, index + 1);
        if wanted.is_empty() {
            return Ok(());
        }
        let _ = tell(AlignEvent::Preparing("computing features"));
        let mut logits = model.clone();
        before_probabilities(&mut logits);
        let (reads, label) = (&prepared.segments[index].reads, &prepared.label);
        let side = &mut self.model;
        let part = part(
            &cuttable(&logits, label)?,
            reads,
            &side.missing(&wanted),
            label,
        )?;
        side.advance(&part, &wanted, &self.runner, &mut self.store)
    }

    /// What a step of a segment reads and what it is compared with, by the names of inputs.
    pub fn inputs(&self, index: usize, step: u64) -> Tensors {
        let at = self.at(step);
        let of = |side: &Side, tap: &Tap| side.features[tap].tensors[at].clone();
        let segment = &self.prepared.segments[index];
        let reads = segment.reads.iter().enumerate();
        let reads = reads.map(|(place, name)| {
            let features = of(&self.model, &Tap::Value(name.clone()));
            (feature_name(place), features)
        });
        let compared = taps(segment).into_iter().enumerate();
        let compared = compared.map(|(place, tap)| (target_name(place), of(&self.original, &tap)));
        reads.chain(compared).collect()
    }

    /// The images of a step, as the model takes them.
    pub fn images(&self, step: u64) -> Tensor {
        self.model.images.tensors[self.at(step)].clone()
    }

    /// The batch of a step: all are used again and again.
    fn at(&self, step: u64) -> usize {
        (step % self.model.images.tensors.len().max(1) as u64) as usize
    }
}

/// What a segment reads.
fn border(prepared: &Prepared, index: usize) -> Vec<Tap> {
    let segment = prepared.segments.get(index).into_iter();
    let reads = segment.flat_map(|segment| &segment.reads);
    reads.cloned().map(Tap::Value).collect()
}

impl Side {
    fn new(store: &Store, images: Shelf) -> Result<Self, Error> {
        Ok(Side {
            images: store.finish(images)?,
            features: BTreeMap::new(),
        })
    }

    /// What is not there yet.
    fn missing(&self, wanted: &[Tap]) -> Vec<Tap> {
        let mut missing: Vec<Tap> = wanted.to_vec();
        missing.retain(|tap| !self.features.contains_key(tap));
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// Computes features from those that are there, which are dropped unless they are still wanted.
    fn advance(
        &mut self,
        part: &Part,
        wanted: &[Tap],
        runner: &Runner<'_>,
        store: &mut Store,
    ) -> Result<(), Error> {
        let mut found = BTreeMap::new();
        if !part.taps.is_empty() {
            let computed = self.computed(part, runner, store)?;
            found.extend(part.taps.iter().cloned().zip(computed));
        }
        for (tap, kept) in mem::take(&mut self.features) {
            match wanted.contains(&tap) {
                true => drop(found.insert(tap, kept)),
                false => store.free(kept),
            }
        }
        self.features = found;
        Ok(())
    }

    /// The outputs of a part for all batches.
    fn computed(
        &self,
        part: &Part,
        runner: &Runner<'_>,
        store: &mut Store,
    ) -> Result<Vec<Kept>, Error> {
        let reads = part.reads.iter().map(|read| match read {
            Read::Value(name) => &self.features[&Tap::Value(name.clone())],
            Read::Images => &self.images,
        });
        let reads: Vec<&Kept> = reads.collect();
        let batches = self.images.tensors.len();
        let inputs = |at: usize| reads.iter().map(|kept| kept.tensors[at].clone()).collect();
        let session = runner.open(part, &inputs(0))?;
        let mut shelves: Vec<Shelf> = Vec::new();
        for at in 0..batches {
            let outputs = runner.run(&*session, inputs(at))?;
            if shelves.is_empty() {
                let sizes = outputs.iter().map(|x| x.byte_len() * batches as u64);
                shelves = sizes
                    .map(|bytes| store.shelf(bytes))
                    .collect::<Result<_, _>>()?;
            }
            for (shelf, output) in shelves.iter_mut().zip(outputs) {
                store.put(shelf, output)?;
            }
        }
        shelves
            .into_iter()
            .map(|shelf| store.finish(shelf))
            .collect()
    }
}

/// Runs parts of models.
struct Runner<'a> {
    engine: &'a dyn Engine,
    session: SessionOptions,
}

impl Runner<'_> {
    fn open(&self, part: &Part, inputs: &Vec<Tensor>) -> Result<Box<dyn Session>, Error> {
        let opened = self.engine.load(&part.model).and_then(|network| {
            let named = network.inputs().iter().zip(inputs);
            let shapes: InputShapes = named
                .map(|(port, tensor)| (port.name.clone(), tensor.dims()))
                .collect();
            network.into_session(&shapes, &self.session)
        });
        opened.map_err(failed)
    }

    fn run(&self, session: &dyn Session, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        let values = inputs.into_iter().map(Value::from).collect();
        let outputs = session.run(values).map_err(failed)?;
        let tensors = outputs
            .iter()
            .map(|value| value.to_tensor().map_err(failed));
        tensors.collect()
    }
}

fn failed(source: EngineError) -> Error {
    Error::Run {
        what: "a segment".to_owned(),
        source: RunError::Engine(source),
    }
}
