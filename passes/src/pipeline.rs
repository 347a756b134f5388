//! Runs passes in order and keeps the record.

use std::time::{Duration, Instant};

use bcosc_ir::{Model, PatchError};
use serde::Serialize;

use crate::{Context, Effect, Outcome, Pass, PassError};

/// What one pass did to a model.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// The pass.
    pub pass: &'static str,
    /// Whether it keeps the function.
    pub effect: Effect,
    /// What it changed and what it left.
    pub outcome: Outcome,
    /// Number of operators before.
    pub nodes_before: usize,
    /// Number of operators after.
    pub nodes_after: usize,
    /// How long it took.
    #[serde(skip)]
    pub elapsed: Duration,
}

/// A pass failed.
#[derive(Debug, thiserror::Error)]
#[error("{pass}: {source}")]
pub struct PipelineError {
    /// The pass.
    pub pass: &'static str,
    /// Why.
    pub source: Box<PassError>,
}

/// Runs passes in order; `after` sees the model after each of them.
pub fn run(
    model: &mut Model,
    passes: &[&'static Pass],
    cx: &Context<'_>,
    mut after: impl FnMut(&Step, &Model),
) -> Result<Vec<Step>, PipelineError> {
    let mut steps = Vec::with_capacity(passes.len());
    for pass in passes {
        let nodes_before = model.graph.op_count();
        let start = Instant::now();
        let failed = |source| PipelineError {
            pass: pass.name,
            source: Box::new(source),
        };
        let outcome = (pass.run)(model, cx).map_err(failed)?;
        if !model.graph.is_acyclic() {
            let anchor = pass.name.to_owned();
            return Err(failed(PatchError::Cycle { anchor }.into()));
        }
        let step = Step {
            pass: pass.name,
            effect: pass.effect,
            outcome,
            nodes_before,
            nodes_after: model.graph.op_count(),
            elapsed: start.elapsed(),
        };
        tracing::debug!(
            pass = step.pass,
            changes = step.outcome.changes.len(),
            ms = step.elapsed.as_secs_f64() * 1e3,
            "pass done"
        );
        after(&step, model);
        steps.push(step);
    }
    Ok(steps)
}

/// The passes of a list that keep the function at B = 1.
pub fn exact(passes: &[&'static Pass]) -> Vec<&'static Pass> {
    passes
        .iter()
        .copied()
        .filter(|p| p.effect == Effect::Exact)
        .collect()
}

/// The altering passes of a list with what they require: what makes the altered original.
pub fn altering(passes: &[&'static Pass]) -> Vec<&'static Pass> {
    let mut needed: Vec<&Pass> = Vec::new();
    let mut kept: Vec<&'static Pass> = Vec::new();
    for pass in passes.iter().rev() {
        if pass.effect == Effect::Altering || pass.is_in(&needed) {
            needed.extend(pass.requires);
            kept.push(*pass);
        }
    }
    kept.reverse();
    kept
}

/// The first pass of a list that requires one which does not come before it, with what is missing.
pub fn missing_requirement(passes: &[&'static Pass]) -> Option<(&'static Pass, &'static Pass)> {
    passes.iter().enumerate().find_map(|(i, pass)| {
        let missing = pass
            .requires
            .iter()
            .find(|required| !required.is_in(&passes[..i]))?;
        Some((*pass, *missing))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Settings;
    use crate::recipe::{CLIP, CNN, VIT};

    fn nothing(_: &mut Model, _: &Context<'_>) -> Result<Outcome, PassError> {
        Ok(Outcome::default())
    }

    fn fails(_: &mut Model, _: &Context<'_>) -> Result<Outcome, PassError> {
        Err(PassError::Model(crate::Reason::NoLinearLayer))
    }

    const fn stub(name: &'static str, effect: Effect, requires: &'static [&'static Pass]) -> Pass {
        Pass {
            name,
            summary: "a stub",
            effect,
            requires,
            run: nothing,
        }
    }

    static BASE: Pass = stub("base", Effect::Exact, &[]);
    static NEEDED: Pass = stub("needed", Effect::Exact, &[&BASE]);
    static OTHER: Pass = stub("other", Effect::Exact, &[]);
    static ALTERS: Pass = stub("alters", Effect::Altering, &[&NEEDED]);
    static FAILS: Pass = Pass {
        run: fails,
        ..stub("fails", Effect::Exact, &[])
    };
    static ALL: [&Pass; 4] = [&BASE, &NEEDED, &OTHER, &ALTERS];

    fn names(passes: &[&'static Pass]) -> Vec<&'static str> {
        passes.iter().map(|pass| pass.name).collect()
    }

    #[test]
    fn altering_passes_bring_what_they_require() {
        assert_eq!(names(&altering(&ALL)), ["base", "needed", "alters"]);
        assert_eq!(names(&exact(&ALL)), ["base", "needed", "other"]);
        assert_eq!(names(&altering(&ALL[..3])), [""; 0]);
    }

    #[test]
    fn a_missing_requirement_is_named() {
        assert_eq!(missing_requirement(&ALL), None);
        assert_eq!(missing_requirement(&ALL[1..]), Some((&NEEDED, &BASE)));
        let swapped: [&Pass; 2] = [&NEEDED, &BASE];
        assert_eq!(missing_requirement(&swapped), Some((&NEEDED, &BASE)));
    }

    #[test]
    fn a_failure_names_the_pass_and_ends_the_run() {
        let settings = Settings::default();
        let cx = Context {
            settings: &settings,
            interpreter: bcosc_engine::default_interpreter(),
            calibration: None,
        };
        let mut model = crate::testing::model(bcosc_ir::ModelBuilder::new(17));
        let passes: [&'static Pass; 3] = [&BASE, &FAILS, &OTHER];
        let mut seen = Vec::new();
        let result = run(&mut model, &passes, &cx, |step, _| seen.push(step.pass));
        let error = result.map(|_| ()).map_err(|error| error.to_string());
        let expected = "fails: no convolution or linear layer depends on the input";
        assert_eq!(error, Err(expected.to_owned()));
        assert_eq!(seen, ["base"]);
    }

    #[test]
    fn the_recipe_is_in_order_under_names_of_its_own() {
        for recipe in [CNN, VIT, CLIP] {
            assert_eq!(missing_requirement(&recipe.concat()), None);
        }
        let whole = VIT.concat();
        let names = names(&whole);
        let unique: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(unique.len(), names.len());
        for (pass, name) in whole.iter().zip(&names) {
            assert!(!pass.summary.is_empty());
            let plain = |c: char| c.is_ascii_lowercase() || c == '-' || c.is_ascii_digit();
            assert!(name.chars().all(plain), "{name}");
        }
    }

    #[test]
    fn the_altered_original_is_made_by_few_passes() {
        let altered = [
            "uncentre-norms",
            "max-to-average-pools",
            "remove-biases",
            "logit-bias",
        ];
        assert_eq!(names(&altering(&CNN.concat())), altered);
    }
}
