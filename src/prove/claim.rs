//! A claim that two models compute the same function.

use bcosc_engine::{Outputs, ProofFigures};
use bcosc_ir::Model;
use bcosc_passes::{Effect, InputContract, Pass, pipeline, recipe};

use super::rounding;
use super::task::{Rewrite, Task};
use crate::canonical::Canonical;
use crate::plan::{self, Passes};
use crate::{Error, Verify};

/// A claim that two rewrites of a model compute the same function.
pub(super) struct Claim {
    pub what: &'static str,
    /// `None` is the original itself.
    pub reference: Option<Rewrite>,
    pub candidate: Rewrite,
}

/// Figures of a comparison, and warnings about it.
type Checked = (ProofFigures, Vec<String>);

/// Outputs of the reference, and a warning about it.
type Expected = (Vec<Outputs>, Option<String>);

impl Claim {
    /// Compares both sides. If they differ, finds the first pass at fault.
    pub(super) fn check(&self, task: &Task<'_>) -> Result<Checked, Error> {
        if task.verification.when == Verify::Each
            && let Some(found) = self.walk(task)?
        {
            return Ok(found);
        }
        let (expected, found) = rayon::join(
            || self.reference(task),
            || task.outputs(&self.candidate, self.what),
        );
        let ((expected, warning), found) = (expected?, found?);
        match rounding::compare(task, self.reference.as_ref(), &expected, &found) {
            Ok((figures, rounding)) => Ok((figures, warning.into_iter().chain(rounding).collect())),
            Err(error) => {
                self.walk(task)?;
                Err(task.failure(self.what, None, error.to_string()))
            }
        }
    }

    fn reference(&self, task: &Task<'_>) -> Result<Expected, Error> {
        match &self.reference {
            Some(rewrite) => Ok((task.outputs(rewrite, self.what)?, None)),
            None => original(task),
        }
    }

    /// Compares after every pass; an error names the first after which it fails. Returns the figures after the
    /// last. An exact pass that changed nothing leaves what has been compared already.
    fn walk(&self, task: &Task<'_>) -> Result<Option<Checked>, Error> {
        let (mut model, mut expected, passes) = self.start(task)?;
        let mut last = None;
        for (index, pass) in passes.iter().enumerate() {
            let changed = task.run_passes(&mut model, &[pass], &self.candidate.settings)?;
            let is_last = index + 1 == passes.len();
            let alters = pass.effect == Effect::Altering;
            if !changed && !alters && !is_last {
                continue;
            }
            let prefix = &passes[..=index];
            let reference = self.reference.as_ref().map(|reference| Rewrite {
                passes: altered(prefix),
                settings: reference.settings.clone(),
            });
            if alters && let Some(altered) = &reference {
                expected.0 = task.outputs(altered, self.what)?;
            }
            let fail = |problem: String| task.failure(self.what, Some(pass.name), problem);
            let contract = plan::contract(prefix, self.candidate.settings.input);
            let found = match task.run(&model, contract) {
                Ok(found) => found,
                // Before the canonical form is reached there may be operators that the engine does not know.
                Err(_) if pass.is_in(recipe::CANONICAL) && !is_last => continue,
                Err(error) => return Err(fail(format!("it cannot be run: {error}"))),
            };
            let compared = rounding::compare(task, reference.as_ref(), &expected.0, &found);
            last = Some(compared.map_err(|error| fail(error.to_string()))?);
        }
        Ok(last.map(|(figures, rounding)| {
            let warnings = expected.1.into_iter().chain(rounding);
            (figures, warnings.collect())
        }))
    }

    /// What the passes of the candidate start from, what that computes, and those passes. A claim about the
    /// original answers for its canonical form too.
    fn start(&self, task: &Task<'_>) -> Result<(Model, Expected, Passes), Error> {
        match self.reference {
            Some(_) => {
                let model = task.canonical.model.clone();
                let nothing = Rewrite {
                    passes: Vec::new(),
                    ..self.candidate.clone()
                };
                let expected = task.outputs(&nothing, self.what)?;
                Ok((model, (expected, None), self.candidate.passes.clone()))
            }
            None => {
                let (canonical, _) = task.split();
                let passes = canonical.iter().chain(&self.candidate.passes).copied();
                Ok((task.original.clone(), original(task)?, passes.collect()))
            }
        }
    }
}

/// The outputs of the original. If the engine cannot run it, its canonical form is used, and
/// a warning is returned.
fn original(task: &Task<'_>) -> Result<Expected, Error> {
    let error = match task.run(task.original, InputContract::Same) {
        Ok(outputs) => return Ok((outputs, None)),
        Err(error) => error,
    };
    let outputs = match task.canonical.is_whole() {
        true => task.run(&task.canonical.model, InputContract::Same),
        false => {
            let (original, settings) = (task.original, task.settings);
            let whole =
                Canonical::of(original, recipe::CANONICAL, settings, task.label, |_, _| {})?;
            task.run(&whole.model, InputContract::Same)
        }
    };
    let outputs = outputs.map_err(|source| Error::Run {
        what: format!("the original, {}", task.label),
        source,
    })?;
    let warning =
        format!("the original cannot be run ({error}); compared with its canonical form instead");
    Ok((outputs, Some(warning)))
}

/// The passes that make the altered original: those that alter the function, what they require, and the
/// canonical ones.
pub(super) fn altered(passes: &[&'static Pass]) -> Passes {
    let altering = pipeline::altering(passes);
    let wanted = |pass: &&'static Pass| pass.is_in(&altering) || pass.is_in(recipe::CANONICAL);
    passes.iter().copied().filter(wanted).collect()
}
