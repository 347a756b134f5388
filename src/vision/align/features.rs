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

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use bcosc_autodiff::training::{Cuttable, Part, Read, Tap, feature_name, target_name};
use bcosc_engine::{Engine, EngineError, InputShapes, Session, SessionOptions, Value};
use bcosc_ir::{Model, Tensor, Tensors};

use super::feed::no_images;
use super::options::AlignOptions;
use super::phases::taps;
use super::prepare::Prepared;
use super::store::{Kept, Shelf, Store};
use crate::data::Loader;
use crate::probabilities::before_probabilities;
use crate::training::{cuttable, part};
use crate::{Error, RunError};

/// The most batches that are kept, if the number of steps is not known.
const MOST: usize = 250;

/// Features of both models for the batches of some steps.
pub(super) struct Features<'a> {
    prepared: &'a Prepared,
    runner: Runner<'a>,
    store: Store,
    /// The segment that the model's features are those in front of.
    at: usize,
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
    /// Takes images for so many batches; without a number, for as many as fit into memory with their features, but at least
    /// [`AlignOptions::KEPT`] images, and no more than a segment has steps.
    pub fn gather(
        prepared: &'a Prepared,
        options: &AlignOptions,
        engine: &'a dyn Engine,
        loader: &Loader,
        count: Option<usize>,
    ) -> Result<Self, Error> {
        let runner = Runner {
            engine,
            session: options.session(),
        };
        let cuttable = cuttable(&prepared.original, &prepared.teacher.label)?;
        let no_images = || no_images(&loader.samples().path);
        let mut batches = loader.endless(0, 0).peekable();
        let Some(Ok(first)) = batches.peek() else {
            let error = batches.next().and_then(Result::err);
            return Err(error.unwrap_or_else(no_images));
        };
        let images = first.teacher_images.clone().ok_or_else(no_images)?;
        let [model, original] = [&first.images, &images].map(Tensor::byte_len);
        let count = match count {
            Some(count) => count,
            None => {
                let border = largest_border(prepared, &cuttable, &runner, images)?;
                // The model's features at one border, and the original's at two.
                let fitting = options.feature_memory / (model + original + 3 * border).max(1);
                let fewest = AlignOptions::KEPT.div_ceil(loader.options().batch_size);
                let fewest = fewest.min(loader.batches());
                let most = match options.budget {
                    Some(_) => MOST,
                    None => usize::try_from(options.block_steps).unwrap_or(MOST),
                };
                let fitting = usize::try_from(fitting).unwrap_or(MOST);
                fitting.max(fewest).min(most).max(1)
            }
        };

        let mut store = Store::new(options.feature_memory, options.work_dir.clone());
        let whole = count as u64;
        let mut shelves = [store.shelf(whole * model)?, store.shelf(whole * original)?];
        for batch in batches.take(count) {
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
            at: 0,
            cuttable,
            original: original?,
            model: model?,
            store,
        })
    }

    /// The number of batches.
    pub fn batches(&self) -> usize {
        self.model.images.tensors.len()
    }

    /// Computes what a segment reads, by the model as it is trained now, and what it is compared with.
    pub fn carry_to(&mut self, index: usize, model: &Model) -> Result<(), Error> {
        let prepared = self.prepared;
        if self.at < index {
            let mut logits = model.clone();
            before_probabilities(&mut logits);
            let whole = cuttable(&logits, &prepared.label)?;
            while self.at < index {
                self.carry_original(self.at)?;
                let wanted = border(prepared, self.at + 1);
                let place = (&prepared.segments[self.at].reads[..], &*prepared.label);
                let Features { runner, store, .. } = self;
                self.model.carry(&whole, place, &wanted, runner, store)?;
                self.at += 1;
            }
        }
        self.carry_original(index)
    }

    /// Computes what the original has at the end of a segment.
    fn carry_original(&mut self, index: usize) -> Result<(), Error> {
        let segment = &self.prepared.segments[index];
        let mut wanted = taps(segment);
        wanted.extend(border(self.prepared, index + 1));
        let place = (&segment.reads[..], &*self.prepared.teacher.label);
        let Features { runner, store, .. } = self;
        self.original
            .carry(&self.cuttable, place, &wanted, runner, store)
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
        (step % self.batches().max(1) as u64) as usize
    }
}

/// What crosses the border in front of a segment.
fn border(prepared: &Prepared, index: usize) -> Vec<Tap> {
    let segment = prepared.segments.get(index).into_iter();
    let reads = segment.flat_map(|segment| &segment.reads);
    reads.cloned().map(Tap::Value).collect()
}

/// Bytes of the original's features at the border where they have most.
fn largest_border(
    prepared: &Prepared,
    cuttable: &Cuttable,
    runner: &Runner<'_>,
    images: Tensor,
) -> Result<u64, Error> {
    let all = (1..prepared.segments.len()).flat_map(|index| border(prepared, index));
    let all: BTreeSet<Tap> = all.collect();
    if all.is_empty() {
        return Ok(0);
    }
    let all: Vec<Tap> = all.into_iter().collect();
    let whole = part(cuttable, &[], &all, &prepared.teacher.label)?;
    let inputs = vec![images];
    let outputs = runner.run(&*runner.open(&whole, &inputs)?, inputs)?;
    let sizes: BTreeMap<&Tap, u64> = all
        .iter()
        .zip(outputs.iter().map(Tensor::byte_len))
        .collect();
    let borders = (1..prepared.segments.len()).map(|index| {
        let crossing = border(prepared, index);
        crossing.iter().map(|tap| sizes[tap]).sum()
    });
    Ok(borders.max().unwrap_or(0))
}

impl Side {
    fn new(store: &Store, images: Shelf) -> Result<Self, Error> {
        Ok(Side {
            images: store.finish(images)?,
            features: BTreeMap::new(),
        })
    }

    /// Computes features of a model from those that are there, at the values named `from`; these are dropped unless they are still
    /// wanted.
    fn carry(
        &mut self,
        whole: &Cuttable,
        (from, label): (&[String], &str),
        wanted: &[Tap],
        runner: &Runner<'_>,
        store: &mut Store,
    ) -> Result<(), Error> {
        let missing: BTreeSet<&Tap> = wanted
            .iter()
            .filter(|tap| !self.features.contains_key(tap))
            .collect();
        let mut found = BTreeMap::new();
        if !missing.is_empty() {
            let missing: Vec<Tap> = missing.into_iter().cloned().collect();
            let part = part(whole, from, &missing, label)?;
            let computed = self.computed(&part, runner, store)?;
            found.extend(missing.into_iter().zip(computed));
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
