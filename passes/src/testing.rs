//! What the tests of passes share: running a pass, comparing what two models compute.

use bcosc_engine::Tract;
use bcosc_ir::{
    DataType, Dim, Interpreter, Model, ModelBuilder, Tensor, Tensors, TextOptions, Value,
};

use crate::canonical::{Rule, Site};
use crate::{Context, Outcome, Pass, PassError, Reason, Settings};

/// Finishes a model that is put together by hand.
pub(crate) fn model(builder: ModelBuilder) -> Model {
    match builder.finish() {
        Ok(model) => model,
        Err(error) => panic!("not a graph: {error}"),
    }
}

/// Runs a pass with the default settings.
pub(crate) fn try_pass(pass: &dyn Pass, model: &mut Model) -> Result<Outcome, PassError> {
    let settings = Settings::default();
    let cx = Context {
        settings: &settings,
        interpreter: &Tract,
        calibration: None,
    };
    pass.run(model, &cx)
}

/// Runs a pass that must succeed.
pub(crate) fn apply(pass: &dyn Pass, model: &mut Model) -> Outcome {
    match try_pass(pass, model) {
        Ok(outcome) => outcome,
        Err(error) => panic!("{}: {error}", pass.name()),
    }
}

/// The model after an exact pass, which is held to the function of the model before.
pub(crate) fn rewritten(pass: &dyn Pass, before: &Model) -> Model {
    let mut after = before.clone();
    let outcome = apply(pass, &mut after);
    assert!(
        !outcome.changes.is_empty(),
        "{} changed nothing: {:?}",
        pass.name(),
        outcome.skips
    );
    assert_same_function(before, &after, 1e-6);
    after
}

/// Records the types of all values.
pub(crate) fn infer(model: &mut Model) {
    let settings = Settings::default();
    let cx = Context {
        settings: &settings,
        interpreter: &Tract,
        calibration: None,
    };
    if let Err(error) = cx.infer(model) {
        panic!("types: {error}");
    }
}

/// Why a rule leaves the first operator of a kind alone.
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
    for rule in rules.iter().filter(|rule| rule.ops.contains(&op_type)) {
        match (rule.rewrite)(&site) {
            Ok(_) => panic!("\"{}\" applies", rule.what),
            Err(found @ Reason::Needed(_)) => reason = reason.or(Some(found)),
            Err(found) => return found,
        }
    }
    reason.unwrap_or_else(|| panic!("no rule looks at {op_type}"))
}

/// What a pass says of the places that it left alone.
pub(crate) fn reasons(outcome: Outcome) -> Vec<Reason> {
    outcome.skips.into_iter().map(|skip| skip.reason).collect()
}

/// The model in ONNX's textual syntax.
pub(crate) fn text(model: &Model) -> String {
    model.to_text(TextOptions::default())
}

/// Holds two models to the same outputs, relative to the largest element of each, on inputs without
/// zeros and batches of 1 and 2.
pub(crate) fn assert_same_function(before: &Model, after: &Model, rtol: f64) {
    for batch in [1, 2] {
        let inputs = inputs_for(before, batch);
        let (expected, found) = (run(before, &inputs), run(after, &inputs));
        assert!(expected.keys().eq(found.keys()), "other outputs");
        for (name, expected) in &expected {
            assert_close(name, expected, &found[name], rtol);
        }
    }
}

fn run(model: &Model, inputs: &Tensors) -> Tensors {
    match Tract.run(model, inputs) {
        Ok(outputs) => outputs,
        Err(error) => panic!("{error}\n{}", text(model)),
    }
}

fn assert_close(name: &str, expected: &Tensor, found: &Tensor, rtol: f64) {
    assert_eq!(
        expected.tensor_type(),
        found.tensor_type(),
        "type of {name}"
    );
    let (expected, found) = (numbers(expected), numbers(found));
    let scale = expected
        .iter()
        .fold(0.0, |scale: f64, x| scale.max(x.abs()));
    assert!(scale > 0.0, "{name} is zero, which proves nothing");
    for (i, (a, b)) in expected.iter().zip(&found).enumerate() {
        assert!(
            (a - b).abs() <= rtol * scale,
            "{name}[{i}] is {b} and was {a}"
        );
    }
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    let integers = || {
        tensor
            .to_i64s()
            .map(|v| v.into_iter().map(|x| x as f64).collect())
    };
    match tensor.to_f64s().or_else(|_| integers()) {
        Ok(numbers) => numbers,
        Err(error) => panic!("{error}"),
    }
}

/// Inputs without zeros, the same each time; every size that is open is `batch`, and 5 more for the height and width of images.
pub(crate) fn inputs_for(model: &Model, batch: u64) -> Tensors {
    let graph = &model.graph;
    let inputs = graph.inputs().into_iter().enumerate();
    inputs
        .map(|(i, value)| {
            (
                graph.value_name(value).to_owned(),
                input(model, value, i as u64, batch),
            )
        })
        .collect()
}

fn input(model: &Model, value: Value, seed: u64, batch: u64) -> Tensor {
    let Some(declared) = model.graph.value_type(value) else {
        panic!("an input without a type")
    };
    let shape = declared.shape.unwrap_or_default();
    let pixels = |axis| if shape.len() == 4 && axis >= 2 { 5 } else { 0 };
    let sizes = shape.iter().map(Dim::known).enumerate();
    let dims: Vec<u64> = sizes
        .map(|(axis, size)| size.unwrap_or(batch + pixels(axis)))
        .collect();
    let count = dims.iter().product();
    match declared.dtype {
        DataType::Int64 => Tensor::i64s(&dims, (1..=count as i64).collect()),
        DataType::Bool => Tensor::from_bytes(DataType::Bool, &dims, vec![1; count as usize].into()),
        dtype => match Tensor::floats(dtype, &dims, &noise(seed, count)) {
            Some(tensor) => tensor,
            None => panic!("inputs of type {dtype} are not made here"),
        },
    }
}

/// Numbers between 0.1 and 1.1 of either sign, the same for the same seed.
pub(crate) fn noise(seed: u64, count: u64) -> Vec<f64> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = |_| {
        // A linear congruential generator: its high bits are random enough.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let unit = (state >> 11) as f64 / (1u64 << 53) as f64;
        if unit < 0.5 {
            2.0 * unit + 0.1
        } else {
            -(2.0 * unit - 0.9)
        }
    };
    (0..count).map(number).collect()
}

/// A weight of noise.
pub(crate) fn weight(seed: u64, dims: &[u64]) -> Tensor {
    let numbers = noise(seed.wrapping_add(1000), dims.iter().product());
    Tensor::f32s(dims, numbers.into_iter().map(|x| x as f32).collect())
}
