//! Verification of a conversion.
//!
//! 1. The exact passes at B = 1, biases and max pooling kept, against the original.
//! 2. All passes at B = 1 against the altered original: the canonical form with the altering passes only.
//!
//! All rewrites continue from one canonical form, which the first claim answers for.
//!
//! 3. At the final B there is nothing to compare with; outputs must be finite, and should depend on
//!    the input. With `--deploy`, the fast form is held against the plain one.

mod claim;
mod deployed;
mod rounding;
mod task;

use bcosc_engine::Sensitivity;
use bcosc_passes::bcos::logit_bias::ADD_LOGIT_BIAS;
use bcosc_passes::pipeline::Step;
use bcosc_passes::{Biases, Effect, InputContract, LogitBias, Settings, pipeline};

use crate::{Error, Proof, plan, samples};
use claim::{Claim, altered};
use task::Rewrite;
pub(crate) use task::Task;

const EXACT: &str = "the exact passes at B = 1, against the original";
const ALTERED: &str = "all passes at B = 1, against the original with only the altering passes";
const SENSITIVE: &str = "the converted model";

const NOT_DEPLOYED: &str = "the deploy form was not compared with the plain one, since outputs that do not depend on the input \
    show no difference; --calibrate the norms first";

/// Proves the conversion, or says where it fails; returns the figures, and what the user should know. `steps` is
/// what the passes did on the way to the converted model.
pub(crate) fn prove(task: &Task<'_>, steps: &[Step]) -> Result<(Proof, Vec<String>), Error> {
    let (exact, full) = (exact(task), full(task));
    // Without altering passes both claims are one. The logit bias is left out of both.
    let alters = |step: &Step| {
        let changed = !step.outcome.changes.is_empty() && step.pass != ADD_LOGIT_BIAS.name;
        changed && step.effect == Effect::Altering
    };
    let second = steps.iter().any(alters).then_some(&full);
    let ((exact, altered), sensitivity) = rayon::join(
        || {
            rayon::join(
                || exact.check(task),
                || second.map(|claim| claim.check(task)).transpose(),
            )
        },
        || sensitivity(task),
    );
    let ((exact, mut warnings), altered, sensitivity) = (exact?, altered?, sensitivity?);
    let altered = altered.map(|(figures, more)| {
        warnings.extend(more);
        figures
    });
    let depends = sensitivity.depends_on_input();
    if !depends {
        warnings.push(format!(
            "outputs do not depend on the input at B = {} (norms not calibrated); --calibrate with a folder of images \
             measures the norms' statistics",
            task.settings.b
        ));
    }
    let deployed = match (task.settings.deploy, depends) {
        (false, _) => None,
        (true, true) => Some(deployed::check(task)?),
        (true, false) => {
            warnings.push(NOT_DEPLOYED.to_owned());
            None
        }
    };
    let proof = Proof {
        exact,
        altered,
        deployed,
        sensitivity,
        seed: task.verification.seed,
    };
    Ok((proof, warnings))
}

fn exact(task: &Task<'_>) -> Claim {
    let biases = match task.settings.biases() {
        Biases::Remove | Biases::Keep => Biases::Keep,
        Biases::Carry => Biases::Carry,
    };
    let settings = Settings {
        biases: Some(biases),
        keep_max_pool: true,
        attention_unpool: false,
        logit_bias: LogitBias::None,
        ..task.settings.with_b(1.0)
    };
    Claim {
        what: EXACT,
        reference: None,
        candidate: Rewrite {
            passes: pipeline::exact(task.split().1),
            settings,
        },
    }
}

fn full(task: &Task<'_>) -> Claim {
    // The same constant on both sides would only make differences look small.
    let settings = Settings {
        logit_bias: LogitBias::None,
        ..task.settings.with_b(1.0)
    };
    let as_given = Settings {
        input: InputContract::Same,
        absorb_normalization: false,
        ..settings.clone()
    };
    let (_, passes) = task.split();
    Claim {
        what: ALTERED,
        reference: Some(Rewrite {
            passes: altered(passes),
            settings: as_given,
        }),
        candidate: Rewrite {
            passes: passes.to_vec(),
            settings,
        },
    }
}

fn sensitivity(task: &Task<'_>) -> Result<Sensitivity, Error> {
    let fail = |problem: String| task.failure(SENSITIVE, None, problem);
    let contract = plan::contract(task.passes, task.settings.input);
    let drawn = task.samples(task.converted, contract);
    let drawn = samples::several(drawn.map_err(|e| fail(e.to_string()))?);
    let outputs = task.run_on(task.converted, &drawn);
    let outputs = outputs.map_err(|e| fail(format!("it cannot be run: {e}")))?;
    let sensitivity = Sensitivity::of(&outputs).map_err(|e| fail(e.to_string()))?;
    match sensitivity.finite {
        true => Ok(sensitivity),
        false => Err(fail("there are infinite or NaN outputs".to_owned())),
    }
}
