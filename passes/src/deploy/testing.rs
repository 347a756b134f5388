//! What the tests of the deploy rules share.

use bcosc_engine::default_interpreter;
use bcosc_ir::{Attribute, DataType, Model, ModelBuilder, Tensor};

use crate::bcos::layers::BCOS;
use crate::bcos::lower::LOWER;
use crate::testing::{assert_same_function, infer, model, noise, weight};
use crate::{Context, Outcome, Pass, Reason, Settings};

use super::lower::LOWER_DEPLOY;

/// A graph with an image input `x` of 3 channels.
pub(crate) fn image() -> ModelBuilder {
    ModelBuilder::new(17).input("x", DataType::Float, "batch,3,6,8")
}

/// Adds a convolution: `dims` are those of its weights.
pub(crate) fn conv<A>(
    builder: ModelBuilder,
    x: &str,
    y: &str,
    dims: &[u64],
    attributes: A,
) -> ModelBuilder
where
    A: IntoIterator<Item = Attribute>,
{
    let name = format!("{y}.weight");
    let seed = y.bytes().map(u64::from).sum();
    builder
        .param(&name, weight(seed, dims))
        .op("Conv", &[x, &name], y, attributes)
}

/// Adds a batch norm without mean and bias, whose scales are of either sign.
pub(crate) fn norm(builder: ModelBuilder, x: &str, y: &str, channels: u64) -> ModelBuilder {
    let of = |elements: Vec<f64>| {
        Tensor::f32s(
            &[channels],
            elements.into_iter().map(|x| x as f32).collect(),
        )
    };
    let zeros = vec![0.0; channels as usize];
    let variances = noise(7, channels).into_iter().map(f64::abs).collect();
    let names = ["gamma", "beta", "mean", "var"].map(|part| format!("{y}.{part}"));
    let [gamma, beta, mean, var] = &names;
    builder
        .param(gamma, of(noise(channels, channels)))
        .param(beta, of(zeros.clone()))
        .param(mean, of(zeros))
        .param(var, of(variances))
        .op("BatchNormalization", &[x, gamma, beta, mean, var], y, [])
}

/// Adds bounds.
pub(crate) fn clip(builder: ModelBuilder, x: &str, y: &str, [low, high]: [f32; 2]) -> ModelBuilder {
    let bound = |x| Tensor::f32s(&[], vec![x]);
    let names = ["low", "high"].map(|part| format!("{y}.{part}"));
    builder
        .param(&names[0], bound(low))
        .param(&names[1], bound(high))
        .op("Clip", &[x, &names[0], &names[1]], y, [])
}

/// The finished model with the types of its values.
pub(crate) fn typed(builder: ModelBuilder) -> Model {
    let mut model = model(builder);
    infer(&mut model);
    model
}

/// The finished model with its layers made B-cos layers.
pub(crate) fn bcos(builder: ModelBuilder, b: f64) -> Model {
    let mut model = typed(builder);
    run(&BCOS, &mut model, b);
    model
}

/// The model after some rules, held to the function of the model before them, and what the last one did.
pub(crate) fn deployed(rules: &[&Pass], before: &Model) -> (Model, Outcome) {
    let mut after = before.clone();
    let mut outcome = Outcome::default();
    for rule in rules {
        outcome = run(*rule, &mut after, 2.0);
    }
    assert_same_function(&written(before), &written(&after), 2e-6);
    (after, outcome)
}

/// Why the last of some rules leaves a model alone.
pub(crate) fn refused(rules: &[&Pass], before: &Model) -> Vec<Reason> {
    let (_, outcome) = deployed(rules, before);
    assert!(outcome.changes.is_empty(), "{:?}", outcome.changes);
    crate::testing::reasons(outcome)
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
