//! Helpers for tests of passes: run a pass, compare the outputs of two models.

use bcosc_engine::default_interpreter;
use bcosc_ir::{Model, TensorType, Tensors};

pub(crate) use bcosc_testing::{
    Array, Layers, assert_same_function, batch, image, infer, inferred, inputs_for, model, noise,
    outputs, text, weight,
};

use crate::canonical::{Rule, Site};
use crate::{Context, InputContract, Normalization, Outcome, Pass, PassError, Reason, Settings};

/// Runs a pass with the default settings.
pub(crate) fn try_pass(pass: &Pass, model: &mut Model) -> Result<Outcome, PassError> {
    let settings = Settings::default();
    let cx = Context {
        settings: &settings,
        interpreter: default_interpreter(),
        calibration: None,
    };
    (pass.run)(model, &cx)
}

/// Runs a pass that must succeed.
pub(crate) fn apply(pass: &Pass, model: &mut Model) -> Outcome {
    match try_pass(pass, model) {
        Ok(outcome) => outcome,
        Err(error) => panic!("{}: {error}", pass.name),
    }
}

/// The model after an exact pass, after checking that it computes the same as the model before.
pub(crate) fn rewritten(pass: &Pass, before: &Model) -> Model {
    let mut after = before.clone();
    let outcome = apply(pass, &mut after);
    assert!(
        !outcome.changes.is_empty(),
        "{} changed nothing: {:?}",
        pass.name,
        outcome.skips
    );
    assert_same_function(before, &after, 1e-6);
    after
}

/// The reason why a rule does not apply to the first operator of a kind.
pub(crate) fn refusal(rules: &[Rule], model: &Model, op_type: &str) -> Reason {
    let mut typed = model.clone();
    infer(&mut typed);
    let ops = typed.graph.ops().into_iter();
    let mut sites = ops
        .filter_map(|node| Site::new(&typed, node))
        .filter(|site| site.op.is(op_type));
    let Some(site) = sites.next() else {
        panic!("there is no {op_type}")
    };
    let mut reason = None;
    for rule in rules
        .iter()
        .filter(|rule| rule.ops.names().contains(&op_type))
    {
        match (rule.rewrite)(&site) {
            Ok(_) => panic!("\"{}\" applies", rule.what),
            Err(found @ Reason::Needed(_)) => reason = reason.or(Some(found)),
            Err(found) => return found,
        }
    }
    reason.unwrap_or_else(|| panic!("no rule looks at {op_type}"))
}

/// The reasons of skipped nodes.
pub(crate) fn reasons(outcome: Outcome) -> Vec<Reason> {
    outcome.skips.into_iter().map(|skip| skip.reason).collect()
}

/// Settings with an input contract and three channels' normalisation.
pub(crate) fn contract(input: InputContract, absorb_normalization: bool) -> Settings {
    Settings {
        input,
        absorb_normalization,
        normalization: Some(Normalization {
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
        }),
        ..Settings::default()
    }
}

/// Settings with another exponent.
pub(crate) fn exponent(b: f64) -> Settings {
    Settings {
        b,
        ..Settings::default()
    }
}

/// A copy of the model after some passes, and the outcome of the last.
pub(crate) fn passed(
    passes: &[&Pass],
    model: &Model,
    settings: &Settings,
    calibration: Option<&Tensors>,
) -> Result<(Model, Outcome), PassError> {
    let mut model = model.clone();
    let cx = Context {
        settings,
        interpreter: default_interpreter(),
        calibration,
    };
    let mut outcome = Outcome::default();
    for pass in passes {
        outcome = (pass.run)(&mut model, &cx)?;
    }
    Ok((model, outcome))
}

/// The model after passes that must succeed; the last one must change something.
pub(crate) fn after(passes: &[&Pass], model: &Model, settings: &Settings) -> Model {
    match passed(passes, model, settings, None) {
        Ok((model, outcome)) => {
            assert!(
                !outcome.changes.is_empty(),
                "no change: {:?}",
                outcome.skips
            );
            model
        }
        Err(error) => panic!("{error}"),
    }
}

/// Standard operators only: the type that an input of the model is declared with.
pub(crate) fn declared(model: &Model, name: &str) -> Option<TensorType> {
    model.graph.value_type(model.graph.value_named(name)?)
}
