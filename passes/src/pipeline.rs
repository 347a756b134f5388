//! Runs passes in order and keeps the record.

use std::time::{Duration, Instant};

use bcosc_ir::Model;
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
    pub source: PassError,
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
        let outcome = pass.run(model, cx).map_err(|source| PipelineError {
            pass: pass.name(),
            source,
        })?;
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
