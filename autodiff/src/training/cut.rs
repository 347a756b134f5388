//! Parts of a model between values that stand for those of the original.

use std::collections::BTreeMap;
use std::sync::Arc;

use bcosc_ir::{Model, SurgeryError, Value};
use bcosc_passes::{Context, PassError, Reason};

use super::{Tap, canonical};
use crate::explanation::image;
use crate::scores::scores;

/// A model, ready to be cut.
#[derive(Clone, Debug)]
pub struct Cuttable {
    model: Model,
}

/// A part of a model. It computes as in inference.
#[derive(Clone, Debug)]
pub struct Part {
    /// The part as a model of its own.
    pub model: Model,
    /// Its inputs.
    pub reads: Vec<Read>,
    /// Its outputs.
    pub taps: Vec<Tap>,
}

/// An input of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The images, as the whole model takes them.
    Images,
    /// The model's value for one of the original, by that value's name.
    Value(String),
}

impl Cuttable {
    /// Brings a model into the form that can be cut. It must know what its values stand for.
    ///
    /// # Errors
    /// If a canonical pass or type inference fails.
    pub fn new(model: &Model, cx: &Context<'_>) -> Result<Self, PassError> {
        let mut model = model.clone();
        canonical(&mut model, cx)?;
        cx.infer(&mut model)?;
        Ok(Cuttable { model })
    }

    /// The part that computes taps from values, which are named as in the original; from the images, if there are none.
    ///
    /// # Errors
    /// If a name has no value in the model.
    pub fn part(&self, from: &[String], taps: &[Tap]) -> Result<Part, PassError> {
        let mut model = self.model.clone();
        let outputs = tapped(&mut model, taps)?;
        let found = model.graph.provenance();
        let inputs = from.iter().map(|name| value_at(&found, name));
        let mut inputs: Vec<Value> = inputs.collect::<Result<_, _>>()?;
        let mut reads: Vec<Read> = from.iter().cloned().map(Read::Value).collect();
        let part = match inputs.is_empty() {
            true => None,
            // Sizes may still be read from the images.
            false => match model.extract(&inputs, &outputs) {
                Err(SurgeryError::NotCutOff { .. }) => None,
                other => Some(other?),
            },
        };
        let part = match part {
            Some(part) => part,
            None => {
                inputs.push(image(&model.graph)?);
                reads.push(Read::Images);
                model.extract(&inputs, &outputs)?
            }
        };
        Ok(Part {
            model: part,
            reads,
            taps: taps.to_vec(),
        })
    }
}

/// The values of a model at taps.
pub(super) fn tapped(model: &mut Model, taps: &[Tap]) -> Result<Vec<Value>, PassError> {
    let found = model.graph.provenance();
    let values = taps.iter().map(|tap| match tap {
        Tap::Output => Ok(scores(model)?.0),
        Tap::Value(name) => value_at(&found, name),
    });
    values.collect()
}

/// The value that stands for one of the original.
pub(super) fn value_at(found: &BTreeMap<Arc<str>, Value>, name: &str) -> Result<Value, PassError> {
    let value = found.get(name).copied();
    value.ok_or_else(|| PassError::Model(Reason::NoPlace(name.to_owned())))
}
