//! Comparing the outputs of two models.

use bcosc_engine::default_interpreter;
use bcosc_ir::{Interpreter, Model, Tensor, Tensors};

use crate::{inputs_for, text};

/// Checks that two models have the same outputs, relative to the largest element of each, on inputs without
/// zeros and batches of 1 and 2.
pub fn assert_same_function(before: &Model, after: &Model, rtol: f64) {
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
    match default_interpreter().run(model, inputs) {
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
