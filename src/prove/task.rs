//! Rewrites of the original, run on seeded inputs.

use std::borrow::Cow;

use bcosc_engine::{Engine, EngineInterpreter, Outputs, run_all};
use bcosc_ir::{DataType, Model, Tensors};
use bcosc_passes::bcos::lower::LOWER;
use bcosc_passes::deploy::lower::LOWER_DEPLOY;
use bcosc_passes::{Context, InputContract, Pass, Settings, dialect, pipeline};

use crate::canonical::Canonical;
use crate::plan::{self, Passes};
use crate::{Error, Failure, RunError, Verification, samples};

const HALF: &str = "; the weights are half precision: try --rtol 0.02";

/// The models and settings of a proof.
pub(crate) struct Task<'a> {
    /// Runs the models.
    pub engine: &'a dyn Engine,
    /// Evaluates constants for passes.
    pub interpreter: &'a EngineInterpreter<'a>,
    pub original: &'a Model,
    /// The original after the leading canonical passes of `passes`; all rewrites start from it.
    pub canonical: &'a Canonical,
    pub converted: &'a Model,
    pub passes: &'a [&'static Pass],
    pub settings: &'a Settings,
    pub calibration: Option<&'a Tensors>,
    pub verification: &'a Verification,
    pub label: &'a str,
}

/// Passes that start from the canonical form, and their settings.
#[derive(Clone)]
pub(super) struct Rewrite {
    pub passes: Passes,
    pub settings: Settings,
}

impl Rewrite {
    /// The input format afterwards.
    pub fn contract(&self) -> InputContract {
        plan::contract(&self.passes, self.settings.input)
    }
}

impl<'a> Task<'a> {
    /// The canonical passes that have run already, and those that follow them.
    pub(super) fn split(&self) -> (&'a [&'static Pass], &'a [&'static Pass]) {
        self.passes.split_at(self.canonical.steps.len())
    }

    pub(super) fn rewrite(&self, rewrite: &Rewrite) -> Result<Model, Error> {
        let mut model = self.canonical.model.clone();
        self.run_passes(&mut model, &rewrite.passes, &rewrite.settings)?;
        Ok(model)
    }

    /// Runs passes; returns whether they changed anything.
    pub(super) fn run_passes(
        &self,
        model: &mut Model,
        passes: &[&'static Pass],
        settings: &Settings,
    ) -> Result<bool, Error> {
        let steps = pipeline::run(model, passes, &self.context(settings), |_, _| {});
        let steps = steps.map_err(|source| Error::Pass {
            model: self.label.to_owned(),
            source: Box::new(source),
        })?;
        Ok(steps.iter().any(|step| !step.outcome.changes.is_empty()))
    }

    fn context<'c>(&'c self, settings: &'c Settings) -> Context<'c> {
        Context {
            settings,
            interpreter: self.interpreter,
            calibration: self.calibration,
        }
    }

    /// The outputs of a rewrite. `what` names the claim in errors.
    pub(super) fn outputs(
        &self,
        rewrite: &Rewrite,
        what: &'static str,
    ) -> Result<Vec<Outputs>, Error> {
        let model = self.rewrite(rewrite)?;
        let outputs = self.run(&model, rewrite.contract());
        outputs.map_err(|error| self.failure(what, None, format!("it cannot be run: {error}")))
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

    /// The model with B-cos operators lowered to standard ONNX.
    fn runnable<'m>(&self, model: &'m Model) -> Result<Cow<'m, Model>, RunError> {
        let is_marker = |id| {
            let op = model.graph.op(id);
            op.is_some_and(|op| op.domain() == dialect::DOMAIN)
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
        let normalization = self.settings.normalization.as_ref();
        samples::draw(model, contract, normalization, self.verification)
    }

    pub(super) fn failure(
        &self,
        what: &'static str,
        pass: Option<&'static str>,
        problem: String,
    ) -> Error {
        let graph = &self.original.graph;
        let is_half = |id| {
            let constant = graph.constant(graph.output(id, 0));
            constant.is_some_and(|t| matches!(t.dtype(), DataType::Float16 | DataType::Bfloat16))
        };
        let advice = if graph.unordered().any(is_half) {
            HALF
        } else {
            ""
        };
        Error::Proof(Box::new(Failure {
            model: self.label.to_owned(),
            what,
            pass,
            problem,
            advice,
        }))
    }
}
