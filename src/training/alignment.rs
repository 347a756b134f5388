//! Steps that align a model with its original.

use bcosc_autodiff::training::{
    Alignment, Cuttable, Group, Part, Reference, Role, Segment, StepOptions, Tap, alignment_step,
    segments,
};
use bcosc_ir::Model;

use super::{TrainingStep, context, fail, settings_of};
use crate::{Error, Metadata};

/// The step that trains parameters of a model to reproduce values of its original.
pub(crate) fn alignment_step_of(
    model: Model,
    alignment: &Alignment<'_>,
    is_trained: &dyn Fn(&str) -> bool,
    options: &StepOptions,
    label: &str,
) -> Result<TrainingStep, Error> {
    let original = match alignment.reference {
        Reference::Original(original) => Some(original),
        Reference::Targets => None,
    };
    let settings = settings_of([Some(&model), original]);
    let mut options = options.clone();
    options.biases_removed |= biases_removed(&model, label)?;
    let group = |name: &str, _: Role| match is_trained(name) {
        true => Group::Trained { weight_decay: 0.0 },
        false => Group::Frozen,
    };
    let step = alignment_step(model, alignment, &options, &group, &context(&settings));
    Ok(step.map_err(|source| fail(label, source))?.into())
}

/// The segments of a model and its original.
pub(crate) fn segments_of(
    model: &Model,
    original: &Model,
    count: Option<usize>,
    label: &str,
) -> Result<Vec<Segment>, Error> {
    let settings = settings_of([Some(model), Some(original)]);
    let removed = biases_removed(model, label)?;
    let found = segments(model, original, count, removed, &context(&settings));
    found.map_err(|source| fail(label, source))
}

/// A model that can be cut where it stands for its original.
pub(crate) fn cuttable(model: &Model, label: &str) -> Result<Cuttable, Error> {
    let settings = settings_of([Some(model), None]);
    let found = Cuttable::new(model, &context(&settings));
    found.map_err(|source| fail(label, source))
}

/// A part of a model that computes taps from values; see [`Cuttable::part`].
pub(crate) fn part(
    cuttable: &Cuttable,
    from: &[String],
    taps: &[Tap],
    label: &str,
) -> Result<Part, Error> {
    let found = cuttable.part(from, taps);
    found.map_err(|source| fail(label, source))
}

fn biases_removed(model: &Model, label: &str) -> Result<bool, Error> {
    let metadata = Metadata::read(model, label)?;
    Ok(metadata.is_some_and(|metadata| !metadata.biases_kept))
}
