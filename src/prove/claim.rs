//! Two ways to rewrite the original that must compute the same.

use bcosc_engine::{Outputs, ProofFigures};
use bcosc_ir::Model;
use bcosc_passes::{Effect, InputContract, Pass, Settings, pipeline, recipe};

use super::Task;
use crate::plan::{self, Passes};
use crate::{Error, Verify};

/// Two rewrites, and what is said of them.
pub(super) struct Claim {
    pub(super) what: &'static str,
    pub(super) reference: Rewrite,
    pub(super) candidate: Rewrite,
}

/// Passes, and what they are told.
#[derive(Clone)]
pub(super) struct Rewrite {
    pub(super) passes: Passes,
    pub(super) settings: Settings,
}

impl Task<'_> {
    /// Compares both sides of a claim. Where they differ, finds the first pass at fault.
    pub(super) fn settle(&self, claim: &Claim) -> Result<(ProofFigures, Vec<String>), Error> {
        if self.verification.when == Verify::Each {
            self.bisect(claim)?;
        }
        let (expected, found) = rayon::join(
            || self.reference(&claim.reference),
            || self.outputs(&claim.candidate, claim.what),
        );
        let ((expected, doubt), found) = (expected?, found?);
        match self.agree(&claim.reference, &expected, &found) {
            Ok((figures, amplifies)) => Ok((figures, doubt.into_iter().chain(amplifies).collect())),
            Err(error) => {
                self.bisect(claim)?;
                Err(self.failure(claim.what, None, error.to_string()))
            }
        }
    }

    /// What the reference computes. If tract cannot run it as it stands, its canonical form takes
    /// its place, and the user is told.
    fn reference(&self, rewrite: &Rewrite) -> Result<(Vec<Outputs>, Option<String>), Error> {
        let model = self.rewrite(rewrite)?;
        let error = match self.run(&model, InputContract::Same) {
            Ok(outputs) => return Ok((outputs, None)),
            Err(error) => error,
        };
        let canonical = self.rewrite(&Rewrite {
            passes: recipe::CANONICAL
                .iter()
                .chain(&rewrite.passes)
                .copied()
                .collect(),
            settings: rewrite.settings.clone(),
        })?;
        let outputs = self.run(&canonical, InputContract::Same);
        let outputs = outputs.map_err(|source| Error::Run {
            what: format!("the original, {}", self.label),
            source,
        })?;
        let doubt = format!(
            "the original cannot be run as it stands ({error}); its canonical form was compared instead"
        );
        Ok((outputs, Some(doubt)))
    }

    pub(super) fn outputs(
        &self,
        rewrite: &Rewrite,
        what: &'static str,
    ) -> Result<Vec<Outputs>, Error> {
        let model = self.rewrite(rewrite)?;
        let outputs = self.run(
            &model,
            plan::contract(&rewrite.passes, rewrite.settings.input),
        );
        outputs.map_err(|error| self.failure(what, None, format!("it does not run: {error}")))
    }

    /// Makes a claim about every prefix of its list of passes; an error names the first that fails.
    fn bisect(&self, claim: &Claim) -> Result<(), Error> {
        let context = self.context(&claim.candidate.settings);
        let mut model = self.original.clone();
        let (mut expected, _) = self.reference(&Rewrite {
            passes: Vec::new(),
            ..claim.reference.clone()
        })?;
        let mut failed = None;
        let mut prefix: Passes = Vec::new();
        let steps = pipeline::run(
            &mut model,
            &claim.candidate.passes,
            &context,
            |step, model| {
                prefix.extend(claim.candidate.passes.get(prefix.len()));
                if failed.is_none() {
                    failed = self
                        .check_prefix(claim, &prefix, step.effect, model, &mut expected)
                        .err();
                }
            },
        );
        match failed {
            Some(error) => Err(error),
            None => steps.map(drop).map_err(|source| Error::Pass {
                model: self.label.to_owned(),
                source: Box::new(source),
            }),
        }
    }

    fn check_prefix(
        &self,
        claim: &Claim,
        prefix: &Passes,
        effect: Effect,
        model: &Model,
        expected: &mut Vec<Outputs>,
    ) -> Result<(), Error> {
        let pass = prefix.last().copied();
        if effect == Effect::Altering {
            let reference = Rewrite {
                passes: altered(prefix),
                ..claim.reference.clone()
            };
            *expected = self.reference(&reference)?.0;
        }
        let found = match self.run(
            model,
            plan::contract(prefix, claim.candidate.settings.input),
        ) {
            Ok(found) => found,
            // Before the canonical form is reached there may be operators that tract does not know.
            Err(_) if pass.is_some_and(|pass| pass.is_in(recipe::CANONICAL)) => return Ok(()),
            Err(error) => {
                return Err(self.failure(
                    claim.what,
                    pass.map(|pass| pass.name),
                    format!("it does not run: {error}"),
                ));
            }
        };
        let reference = Rewrite {
            passes: altered(prefix),
            ..claim.reference.clone()
        };
        match self.agree(&reference, expected, &found) {
            Ok(_) => Ok(()),
            Err(error) => {
                Err(self.failure(claim.what, pass.map(|pass| pass.name), error.to_string()))
            }
        }
    }
}

/// The passes that make the altered original: those that alter the function, what they require, and the
/// canonical form that they look for their places in, which the first claim answers for.
pub(super) fn altered(passes: &Passes) -> Passes {
    let altering = pipeline::altering(passes);
    let wanted = |pass: &&'static Pass| pass.is_in(&altering) || pass.is_in(recipe::CANONICAL);
    passes.iter().copied().filter(wanted).collect()
}
