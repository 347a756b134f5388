//! Helpers for tests of the deploy rules: run rules, compare with the original layer.

use bcosc_engine::default_interpreter;
use bcosc_ir::{Model, ModelBuilder};

use crate::bcos::layers::BCOS;
use crate::bcos::lower::LOWER;
use crate::testing::{assert_same_function, inferred, reasons};
use crate::{Context, Outcome, Pass, Reason, Settings};

use super::lower::LOWER_DEPLOY;

/// A graph with an image input `x` of 3 channels.
pub(crate) fn image() -> ModelBuilder {
    crate::testing::image("batch,3,6,8")
}

/// The finished model with its layers made B-cos layers.
pub(crate) fn bcos(builder: ModelBuilder, b: f64) -> Model {
    let mut model = inferred(builder);
    run(&BCOS, &mut model, b);
    model
}

/// The model after some rules, after checking that it computes the same, and the outcome of the last rule.
pub(crate) fn deployed(rules: &[&Pass], before: &Model) -> (Model, Outcome) {
    let mut after = before.clone();
    let mut outcome = Outcome::default();
    for rule in rules {
        outcome = run(rule, &mut after, 2.0);
    }
    assert_same_function(&written(before), &written(&after), 2e-6);
    (after, outcome)
}

/// The reason why the last of some rules does not apply.
pub(crate) fn refused(rules: &[&Pass], before: &Model) -> Vec<Reason> {
    let (_, outcome) = deployed(rules, before);
    assert!(outcome.changes.is_empty(), "{:?}", outcome.changes);
    reasons(outcome)
}

/// The model in standard operators.
pub(crate) fn written(model: &Model) -> Model {
    let mut model = model.clone();
    run(&LOWER_DEPLOY, &mut model, 2.0);
    run(&LOWER, &mut model, 2.0);
    model
}

fn run(pass: &Pass, model: &mut Model, b: f64) -> Outcome {
    let settings = Settings {
        b,
        deploy: true,
        ..Settings::default()
    };
    let cx = Context {
        settings: &settings,
        interpreter: default_interpreter(),
        calibration: None,
    };
    match (pass.run)(model, &cx) {
        Ok(outcome) => outcome,
        Err(error) => panic!("{}: {error}", pass.name),
    }
}
