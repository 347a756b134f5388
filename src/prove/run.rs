//! Rewriting the original, and running what comes of it on seeded inputs.

use std::borrow::Cow;

use bcosc_engine::{Outputs, Samples, run_all};
use bcosc_ir::{Model, Tensors};
use bcosc_passes::bcos::lower::LOWER;
use bcosc_passes::deploy::lower::LOWER_DEPLOY;
use bcosc_passes::{Context, InputContract, Settings, dialect, pipeline};

use super::Task;
use super::claim::Rewrite;
use crate::{Error, RunError, Verification, contract};

impl Task<'_> {
    pub(super) fn rewrite(&self, rewrite: &Rewrite) -> Result<Model, Error> {
        let mut model = self.original.clone();
        let context = self.context(&rewrite.settings);
        let steps = pipeline::run(&mut model, &rewrite.passes, &context, |_, _| {});
        steps.map_err(|source| Error::Pass {
            model: self.label.to_owned(),
            source: Box::new(source),
        })?;
        Ok(model)
    }

    pub(super) fn context<'a>(&'a self, settings: &'a Settings) -> Context<'a> {
        Context {
            settings,
            interpreter: self.interpreter,
            calibration: self.calibration,
        }
    }

    pub(super) fn run(
        &self,
        model: &Model,
        contract: InputContract,
    ) -> Result<Vec<Outputs>, RunError> {
        self.run_on(model, &self.samples(model, contract)?)
    }

    pub(super) fn run_on(
        &self,
        model: &Model,
        samples: &[Tensors],
    ) -> Result<Vec<Outputs>, RunError> {
        Ok(run_all(self.engine, &*self.runnable(model)?, samples)?)
    }

    /// The model with B-cos operators in standard ONNX; between passes there are others.
    pub(super) fn runnable<'m>(&self, model: &'m Model) -> Result<Cow<'m, Model>, RunError> {
        let is_marker = |id| {
            model
                .graph
                .op(id)
                .is_some_and(|op| op.domain() == dialect::DOMAIN)
        };
        if !model.graph.unordered().any(is_marker) {
            return Ok(Cow::Borrowed(model));
        }
        let mut model = model.clone();
        let lowered = pipeline::run(
            &mut model,
            &[&LOWER_DEPLOY, &LOWER],
            &self.context(self.settings),
            |_, _| {},
        );
        lowered.map_err(Box::new)?;
        Ok(Cow::Owned(model))
    }

    pub(super) fn samples(
        &self,
        model: &Model,
        contract: InputContract,
    ) -> Result<Vec<Tensors>, RunError> {
        let encoding = contract::encoding(contract, self.settings.normalization.as_ref());
        Ok(samples(self.verification).draw(model, &encoding)?)
    }
}

/// The samples that hold several images, if any: they tell as much as others, for one preparation of the model.
pub(super) fn several(mut samples: Vec<Tensors>) -> Vec<Tensors> {
    let images = |sample: &Tensors| {
        let batches = sample.values().map(|t| t.dims().first().copied());
        batches.flatten().min().unwrap_or(1)
    };
    if samples.iter().any(|sample| images(sample) > 1) {
        samples.retain(|sample| images(sample) > 1);
    }
    samples
}

/// The seeded inputs that are asked for.
pub(crate) fn samples(verification: &Verification) -> Samples {
    Samples {
        seed: verification.seed,
        count: verification.samples,
        ..Samples::default()
    }
}
