//! Proof that a conversion kept what it must keep.
//!
//! 1. The exact passes at B = 1, biases and max pooling kept, against the original.
//! 2. All passes at B = 1 against the departed original: its canonical form with the departing passes only.
//! 3. At the final B there is nothing to compare with; outputs must be finite, and should tell
//!    images apart. With `--deploy`, the fast form is held against the plain one.

use std::borrow::Cow;

use bcosc_engine::{Liveness, Outputs, ProofFigures, Samples, Tract, compare, liveness, run_all};
use bcosc_ir::{DataType, InterpreterError, Model, Tensors};
use bcosc_passes::pipeline::Step;
use bcosc_passes::{
    Context, Effect, InputContract, LogitBias, Pass, Settings, marker, pipeline, recipe,
};

use crate::plan::{self, Passes};
use crate::{Error, Failure, Proof, Verification, Verify, contract};

const LOGIT_BIAS: &str = "logit-bias";

const EXACT: &str = "the exact passes at B = 1, against the original";
const DEPARTED: &str = "all passes at B = 1, against the original with only the departing passes";
const DEPLOYED: &str = "the deploy form at the model's own B, against the plain form";
const LIVE: &str = "the converted model at its own B";

const NOT_DEPLOYED: &str = "the deploy form was not compared with the plain one, since a dead model shows no difference; \
    --calibrate brings it to life";

/// What the deploy form may differ by, in tolerances: squares double relative errors in every layer.
const DEPLOYED_TOLERANCE: f64 = 10.0;

/// The passes that write B-cos operators in standard ONNX.
const LOWERING: [&str; 2] = ["lower-deploy", "lower"];

const HALF: &str =
    "; the weights are in half precision, whose rounding --rtol 0.02 would allow for";
const DEAD: &str = "the converted model's outputs hardly depend on its input, so it is dead as it stands; --calibrate with \
    a folder of images gives its norms the statistics that bring it to life";

/// What is to be proved.
pub(crate) struct Task<'a> {
    pub original: &'a Model,
    pub converted: &'a Model,
    pub passes: &'a Passes,
    pub settings: &'a Settings,
    pub calibration: Option<&'a Tensors>,
    /// What the passes did on the way to `converted`.
    pub steps: &'a [Step],
    pub verification: &'a Verification,
    pub label: &'a str,
}

/// Two ways to rewrite the original that must compute the same.
struct Claim {
    what: &'static str,
    reference: Rewrite,
    candidate: Rewrite,
}

#[derive(Clone)]
struct Rewrite {
    passes: Passes,
    settings: Settings,
}

/// Proves the conversion, or says where it fails; returns the figures, and what the user should know.
pub(crate) fn prove(task: &Task<'_>) -> Result<(Proof, Vec<String>), Error> {
    let exact = task.exact();
    let full = task.full();
    // Without departures both claims are one. The logit bias is left out of both.
    let departs = |step: &Step| {
        let changed = !step.outcome.changes.is_empty() && step.pass != LOGIT_BIAS;
        changed && step.effect == Effect::Departing
    };
    let second = task.steps.iter().any(departs).then_some(&full);
    let ((exact, departed), alive) = rayon::join(
        || {
            rayon::join(
                || task.settle(&exact),
                || second.map(|claim| task.settle(claim)).transpose(),
            )
        },
        || task.alive(),
    );
    let ((exact, mut doubts), departed, (liveness, dead)) = (exact?, departed?, alive?);
    let departed = departed.map(|(figures, _)| figures);
    doubts.extend(dead);
    let deployed = match (task.settings.deploy, liveness.is_alive()) {
        (false, _) => None,
        (true, true) => Some(task.deployed()?),
        (true, false) => {
            doubts.push(NOT_DEPLOYED.to_owned());
            None
        }
    };
    Ok((
        Proof {
            exact,
            departed,
            deployed,
            liveness,
            seed: task.verification.seed,
        },
        doubts,
    ))
}

impl Task<'_> {
    fn exact(&self) -> Claim {
        let settings = Settings {
            b: 1.0,
            keep_biases: true,
            keep_max_pool: true,
            attention_unpool: false,
            logit_bias: LogitBias::None,
            ..self.settings.clone()
        };
        Claim {
            what: EXACT,
            reference: Rewrite {
                passes: Vec::new(),
                settings: settings.clone(),
            },
            candidate: Rewrite {
                passes: pipeline::exact(self.passes),
                settings,
            },
        }
    }

    fn full(&self) -> Claim {
        // The same constant on both sides would only make differences look small.
        let settings = Settings {
            b: 1.0,
            logit_bias: LogitBias::None,
            ..self.settings.clone()
        };
        let as_given = Settings {
            input: InputContract::Same,
            absorb_normalization: false,
            ..settings.clone()
        };
        Claim {
            what: DEPARTED,
            reference: Rewrite {
                passes: departed(self.passes),
                settings: as_given,
            },
            candidate: Rewrite {
                passes: self.passes.clone(),
                settings,
            },
        }
    }

    /// Holds the deploy form against the plain one, at the model's own B: its rules say nothing at B = 1.
    fn deployed(&self) -> Result<ProofFigures, Error> {
        let plain = Settings {
            deploy: false,
            logit_bias: LogitBias::None,
            ..self.settings.clone()
        };
        let fast = Settings {
            deploy: true,
            ..plain.clone()
        };
        let form = |settings| Rewrite {
            passes: self.passes.clone(),
            settings,
        };
        let (expected, found) = rayon::join(
            || self.outputs(&form(plain), DEPLOYED),
            || self.outputs(&form(fast), DEPLOYED),
        );
        let figures = compare(
            &expected?,
            &found?,
            DEPLOYED_TOLERANCE * self.verification.rtol,
        );
        figures.map_err(|error| self.failure(DEPLOYED, None, error.to_string()))
    }

    /// Compares both sides of a claim. Where they differ, finds the first pass at fault.
    fn settle(&self, claim: &Claim) -> Result<(ProofFigures, Vec<String>), Error> {
        if self.verification.when == Verify::Each {
            self.bisect(claim)?;
        }
        let (expected, found) = rayon::join(
            || self.reference(&claim.reference),
            || self.outputs(&claim.candidate, claim.what),
        );
        let ((expected, doubt), found) = (expected?, found?);
        match compare(&expected, &found, self.verification.rtol) {
            Ok(figures) => Ok((figures, doubt.into_iter().collect())),
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

    fn outputs(&self, rewrite: &Rewrite, what: &'static str) -> Result<Vec<Outputs>, Error> {
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
        let pass = prefix.last().map(|pass| pass.name());
        if effect == Effect::Departing {
            let reference = Rewrite {
                passes: departed(prefix),
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
            Err(_) if recipe::CANONICAL.iter().any(|p| Some(p.name()) == pass) => return Ok(()),
            Err(error) => {
                return Err(self.failure(claim.what, pass, format!("it does not run: {error}")));
            }
        };
        match compare(expected, &found, self.verification.rtol) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failure(claim.what, pass, error.to_string())),
        }
    }

    fn alive(&self) -> Result<(Liveness, Option<String>), Error> {
        let contract = plan::contract(self.passes, self.settings.input);
        let fail = |problem: String| self.failure(LIVE, None, problem);
        let samples = self
            .samples(self.converted, contract)
            .map_err(|e| fail(e.to_string()))?;
        let samples = several(samples);
        let model = self
            .runnable(self.converted)
            .map_err(|e| fail(e.to_string()))?;
        let liveness =
            liveness(&model, &samples).map_err(|e| fail(format!("it does not run: {e}")))?;
        if !liveness.finite {
            return Err(fail(
                "there are outputs that are infinite or not a number".to_owned(),
            ));
        }
        Ok((liveness, (!liveness.is_alive()).then(|| DEAD.to_owned())))
    }

    fn rewrite(&self, rewrite: &Rewrite) -> Result<Model, Error> {
        let mut model = self.original.clone();
        let context = self.context(&rewrite.settings);
        let steps = pipeline::run(&mut model, &rewrite.passes, &context, |_, _| {});
        steps.map_err(|source| Error::Pass {
            model: self.label.to_owned(),
            source: Box::new(source),
        })?;
        Ok(model)
    }

    fn context<'a>(&'a self, settings: &'a Settings) -> Context<'a> {
        Context {
            settings,
            interpreter: &Tract,
            calibration: self.calibration,
        }
    }

    fn run(
        &self,
        model: &Model,
        contract: InputContract,
    ) -> Result<Vec<Outputs>, InterpreterError> {
        let model = self.runnable(model)?;
        run_all(&model, &self.samples(&model, contract)?)
    }

    /// The model with B-cos operators in standard ONNX; between passes there are others.
    fn runnable<'m>(&self, model: &'m Model) -> Result<Cow<'m, Model>, InterpreterError> {
        let is_marker = |id| {
            model
                .graph
                .op(id)
                .is_some_and(|op| op.domain() == marker::DOMAIN)
        };
        if !model.graph.unordered().any(is_marker) {
            return Ok(Cow::Borrowed(model));
        }
        let lowering: Passes = plan::all_passes()
            .into_iter()
            .filter(|p| LOWERING.contains(&p.name()))
            .collect();
        let mut model = model.clone();
        let lowered = pipeline::run(
            &mut model,
            &lowering,
            &self.context(self.settings),
            |_, _| {},
        );
        lowered.map_err(|error| InterpreterError(error.to_string()))?;
        Ok(Cow::Owned(model))
    }

    fn samples(
        &self,
        model: &Model,
        contract: InputContract,
    ) -> Result<Vec<Tensors>, InterpreterError> {
        let encoding = contract::encoding(contract, self.settings.normalization.as_ref());
        let drawn = samples(self.verification).draw(model, &encoding);
        drawn.map_err(|error| InterpreterError(error.to_string()))
    }

    fn failure(&self, what: &'static str, pass: Option<&'static str>, problem: String) -> Error {
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

/// The passes that make the departed original: those that depart, what they require, and the
/// canonical form that they look for their places in, which the first claim answers for.
fn departed(passes: &Passes) -> Passes {
    let named = |list: &[&'static dyn Pass], name: &str| list.iter().any(|p| p.name() == name);
    let departing = pipeline::departing(passes);
    let wanted =
        |p: &&'static dyn Pass| named(&departing, p.name()) || named(recipe::CANONICAL, p.name());
    passes.iter().copied().filter(wanted).collect()
}

/// The samples that hold several images, if any: they tell as much as others, for one preparation of the model.
fn several(mut samples: Vec<Tensors>) -> Vec<Tensors> {
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
