//! Rules against numbers: what a graph does to differences, and what it makes of its input.

use bcosc_engine::Tract;
use bcosc_ir::{DataType, Interpreter, Model, ModelBuilder, Tensor, Tensors};

use super::cotangent;
use crate::testing::{infer, inputs_for, model, noise};

/// How a graph from `x` to `y` is held against its cotangent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Law {
    /// `<s, f(x + d) - f(x)> = <W^T s, d>`: linear, but for what constants add.
    Affine,
    /// `<s, f(x)> = <W^T s, x>`: linear at this x, with factors that depend on it.
    Dynamic,
}

/// A graph from `x` to `y`.
pub(super) fn graph(dims: &str) -> ModelBuilder {
    ModelBuilder::new(18).input("x", DataType::Float, dims)
}

/// The graph with the cotangent of `x` for a cotangent `s` of `y`.
pub(super) fn backward(what: &str, builder: ModelBuilder) -> (Model, Model) {
    let forward = model(builder.output("y"));
    let mut both = forward.clone();
    infer(&mut both);
    let graph = &mut both.graph;
    let (Some(x), Some(y)) = (graph.value_named("x"), graph.value_named("y")) else {
        panic!("no x or no y")
    };
    let Some(found) = graph.value_type(y) else {
        panic!("{what}: y has no type")
    };
    let s = graph.add_input("s", found);
    let dx = match cotangent(&mut both, y, s, x) {
        Ok(dx) => dx,
        Err(error) => panic!("{what}: {error}"),
    };
    both.graph.set_outputs(&[(dx, "dx".to_owned())]);
    both.graph.remove_dead();
    (forward, both)
}

fn run(model: &Model, inputs: &Tensors, output: &str) -> Tensor {
    match Tract.run(model, inputs) {
        Ok(mut outputs) => match outputs.remove(output) {
            Some(tensor) => tensor,
            None => panic!("no output {output}"),
        },
        Err(error) => panic!("{error}\n{}", crate::testing::text(model)),
    }
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    match tensor.to_f64s() {
        Ok(elements) => elements,
        Err(error) => panic!("{error}"),
    }
}

fn like(tensor: &Tensor, elements: &[f64]) -> Tensor {
    let elements = elements.iter().map(|x| *x as f32).collect();
    Tensor::f32s(&tensor.dims(), elements)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Holds a graph's cotangent to its law, for batches of 1 and 2 and several cotangents.
pub(super) fn holds(what: &str, law: Law, builder: ModelBuilder) {
    let (forward, both) = backward(what, builder);
    for batch in [1, 2] {
        let x = inputs_for(&forward, batch)
            .remove("x")
            .unwrap_or_else(|| panic!("no x"));
        let y = run(&forward, &[("x".to_owned(), x.clone())].into(), "y");
        let (x0, y0) = (floats(&x), floats(&y));
        for seed in 0..3 {
            let s = like(&y, &noise(100 + seed, y.len()));
            let mut inputs = Tensors::from([("s".to_owned(), s.clone())]);
            // An affine map may not look at x at all on the way back.
            for input in both.graph.inputs() {
                if both.graph.value_name(input) == "x" {
                    inputs.insert("x".to_owned(), x.clone());
                }
            }
            let dx = run(&both, &inputs, "dx");
            assert_eq!(dx.dims(), x.dims(), "{what}");
            let (dx, s) = (floats(&dx), floats(&s));
            let (left, right) = match law {
                Law::Dynamic => (dot(&s, &y0), dot(&dx, &x0)),
                Law::Affine => {
                    let d = noise(200 + seed, x.len());
                    let moved: Vec<f64> = x0.iter().zip(&d).map(|(x, d)| x + d).collect();
                    let at = [("x".to_owned(), like(&x, &moved))].into();
                    let y1 = floats(&run(&forward, &at, "y"));
                    let change: Vec<f64> = y1.iter().zip(&y0).map(|(a, b)| a - b).collect();
                    (dot(&s, &change), dot(&dx, &d))
                }
            };
            let scale = dot(&s, &s).sqrt() * dot(&y0, &y0).sqrt();
            assert!(scale > 0.0 && dx.iter().any(|x| *x != 0.0), "{what}");
            assert!(
                (left - right).abs() <= 2e-5 * scale.max(left.abs()),
                "{what}, batch {batch}: {left} and {right}"
            );
        }
    }
}
