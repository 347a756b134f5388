//! Proof that a conversion kept what it must keep.
//!
//! 1. The exact passes at B = 1, biases and max pooling kept, against the original.
//! 2. All passes at B = 1 against the altered original: its canonical form with the altering passes only.
//! 3. At the final B there is nothing to compare with; outputs must be finite, and should tell
//!    images apart. With `--deploy`, the fast form is held against the plain one.

mod claim;
mod deployed;
mod rounding;
mod run;

use bcosc_engine::{Liveness, liveness};
use bcosc_ir::{DataType, Model, Tensors};
use bcosc_passes::bcos::logit_bias::ADD_LOGIT_BIAS;
use bcosc_passes::pipeline::Step;
use bcosc_passes::{Effect, InputContract, LogitBias, Settings, pipeline};

use crate::plan::{self, Passes};
use crate::{Error, Failure, Proof, Verification};
use claim::{Claim, Rewrite, altered};
pub(crate) use run::samples;
use run::several;

const EXACT: &str = "the exact passes at B = 1, against the original";
const ALTERED: &str = "all passes at B = 1, against the original with only the altering passes";
const LIVE: &str = "the converted model at its own B";

const NOT_DEPLOYED: &str = "the deploy form was not compared with the plain one, since a dead model shows no difference; \
    --calibrate brings it to life";

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

/// Proves the conversion, or says where it fails; returns the figures, and what the user should know.
pub(crate) fn prove(task: &Task<'_>) -> Result<(Proof, Vec<String>), Error> {
    let exact = task.exact();
    let full = task.full();
    // Without altering passes both claims are one. The logit bias is left out of both.
    let alters = |step: &Step| {
        let changed = !step.outcome.changes.is_empty() && step.pass != ADD_LOGIT_BIAS.name;
        changed && step.effect == Effect::Altering
    };
    let second = task.steps.iter().any(alters).then_some(&full);
    let ((exact, altered), alive) = rayon::join(
        || {
            rayon::join(
                || task.settle(&exact),
                || second.map(|claim| task.settle(claim)).transpose(),
            )
        },
        || task.alive(),
    );
    let ((exact, mut doubts), altered, (liveness, dead)) = (exact?, altered?, alive?);
    let altered = altered.map(|(figures, _)| figures);
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
            altered,
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
            what: ALTERED,
            reference: Rewrite {
                passes: altered(self.passes),
                settings: as_given,
            },
            candidate: Rewrite {
                passes: self.passes.clone(),
                settings,
            },
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
