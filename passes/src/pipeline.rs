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
    passes: &[&'static dyn Pass],
    cx: &Context<'_>,
    mut after: impl FnMut(&Step, &Model),
) -> Result<Vec<Step>, PipelineError> {
    let mut steps = Vec::with_capacity(passes.len());
    for pass in passes {
        let nodes_before = model.graph.op_count();
        let start = Instant::now();
        let failed = |source| PipelineError {
            pass: pass.name(),
            source: Box::new(source),
        };
        let outcome = pass.run(model, cx).map_err(failed)?;
        if !model.graph.is_acyclic() {
            let anchor = pass.name().to_owned();
            return Err(failed(PatchError::Cycle { anchor }.into()));
        }
        let step = Step {
            pass: pass.name(),
            effect: pass.effect(),
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
pub fn exact(passes: &[&'static dyn Pass]) -> Vec<&'static dyn Pass> {
    passes
        .iter()
        .copied()
        .filter(|p| p.effect() == Effect::Exact)
        .collect()
}

/// The departing passes of a list with what they require: what makes the departed original.
pub fn departing(passes: &[&'static dyn Pass]) -> Vec<&'static dyn Pass> {
    let mut needed: Vec<&str> = Vec::new();
    let mut kept: Vec<&'static dyn Pass> = Vec::new();
    for pass in passes.iter().rev() {
        if pass.effect() == Effect::Departing || needed.contains(&pass.name()) {
            needed.extend(pass.requires());
            kept.push(*pass);
        }
    }
    kept.reverse();
    kept
}

/// The first pass of a list that requires one which does not come before it, with the name of what is missing.
pub fn missing_requirement(passes: &[&'static dyn Pass]) -> Option<(&'static str, &'static str)> {
    passes.iter().enumerate().find_map(|(i, pass)| {
        let earlier = |name: &&&str| passes[..i].iter().any(|p| p.name() == **name);
        let missing = pass.requires().iter().find(|name| !earlier(name))?;
        Some((pass.name(), *missing))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Settings;
    use crate::recipe::{CANONICAL, CNN};

    struct Stub {
        name: &'static str,
        effect: Effect,
        requires: &'static [&'static str],
    }

    impl Pass for Stub {
        fn name(&self) -> &'static str {
            self.name
        }

        fn summary(&self) -> &'static str {
            "a stub"
        }

        fn effect(&self) -> Effect {
            self.effect
        }

        fn requires(&self) -> &'static [&'static str] {
            self.requires
        }

        fn ensures(&self) -> &'static str {
            "nothing"
        }

        fn run(&self, _: &mut Model, _: &Context<'_>) -> Result<Outcome, PassError> {
            match self.name {
                "fails" => Err(PassError::Model(crate::Reason::NoLinearLayer)),
                _ => Ok(Outcome::default()),
            }
        }
    }

    const fn stub(name: &'static str, effect: Effect, requires: &'static [&'static str]) -> Stub {
        Stub {
            name,
            effect,
            requires,
        }
    }

    static BASE: Stub = stub("base", Effect::Exact, &[]);
    static NEEDED: Stub = stub("needed", Effect::Exact, &["base"]);
    static OTHER: Stub = stub("other", Effect::Exact, &[]);
    static DEPARTS: Stub = stub("departs", Effect::Departing, &["needed"]);
    static FAILS: Stub = stub("fails", Effect::Exact, &[]);
    static ALL: [&dyn Pass; 4] = [&BASE, &NEEDED, &OTHER, &DEPARTS];

    fn names(passes: &[&'static dyn Pass]) -> Vec<&'static str> {
        passes.iter().map(|pass| pass.name()).collect()
    }

    #[test]
    fn departing_passes_bring_what_they_require() {
        assert_eq!(names(&departing(&ALL)), ["base", "needed", "departs"]);
        assert_eq!(names(&exact(&ALL)), ["base", "needed", "other"]);
        assert_eq!(names(&departing(&ALL[..3])), [""; 0]);
    }

    #[test]
    fn a_missing_requirement_is_named() {
        assert_eq!(missing_requirement(&ALL), None);
        assert_eq!(missing_requirement(&ALL[1..]), Some(("needed", "base")));
        let swapped: [&dyn Pass; 2] = [&NEEDED, &BASE];
        assert_eq!(missing_requirement(&swapped), Some(("needed", "base")));
    }

    #[test]
    fn a_failure_names_the_pass_and_ends_the_run() {
        let settings = Settings::default();
        let cx = Context {
            settings: &settings,
            interpreter: &bcosc_engine::Tract,
            calibration: None,
        };
        let mut model = crate::testing::model(bcosc_ir::ModelBuilder::new(17));
        let passes: [&'static dyn Pass; 3] = [&BASE, &FAILS, &OTHER];
        let mut seen = Vec::new();
        let result = run(&mut model, &passes, &cx, |step, _| seen.push(step.pass));
        let error = result.map(|_| ()).map_err(|error| error.to_string());
        let expected = "fails: no convolution or linear layer depends on the input";
        assert_eq!(error, Err(expected.to_owned()));
        assert_eq!(seen, ["base"]);
    }

    #[test]
    fn the_recipe_is_in_order_under_names_of_its_own() {
        let whole = [CANONICAL, CNN].concat();
        assert_eq!(missing_requirement(&whole), None);
        let names = names(&whole);
        let unique: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(unique.len(), names.len());
        for (pass, name) in whole.iter().zip(&names) {
            assert!(!pass.summary().is_empty() && !pass.ensures().is_empty());
            let plain = |c: char| c.is_ascii_lowercase() || c == '-' || c.is_ascii_digit();
            assert!(name.chars().all(plain), "{name}");
        }
    }

    #[test]
    fn the_departed_original_is_made_by_few_passes() {
        let departed = [
            "uncentre-norms",
            "max-to-average-pools",
            "remove-biases",
            "logit-bias",
        ];
        assert_eq!(names(&departing(CNN)), departed);
    }
}
