//! Rules against numbers: what a graph does to differences, and what it makes of its input.
//!
//! Every case runs in single and in double precision, but for those that say why they cannot.

use bcosc_engine::default_interpreter;
use bcosc_ir::onnx::proto::{ModelProto, TensorProto};
use bcosc_ir::{
    Attribute, DataType, Interpreter, Model, ModelBuilder, Patch, Tensor, TensorType, Tensors,
};

use crate::detached::cotangent;
use bcosc_passes::{PassError, Reason};
use bcosc_testing::{infer, inferred, inputs_for, model, noise};

/// The identity that a graph from `x` to `y` and its cotangent must satisfy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Law {
    /// `<s, f(x + d) - f(x)> = <W^T s, d>`: linear, but for what constants add.
    Affine,
    /// `<s, f(x)> = <W^T s, x>`: linear at this x, with factors that depend on it.
    Dynamic,
    /// As [`Law::Dynamic`], and the factors are the same close to x: what is held fixed makes no
    /// difference to the gradient.
    Piecewise,
}

/// Of single and of double precision: the largest error, relative to what is compared.
const TOLERANCE: [f64; 2] = [2e-5, 1e-9];
/// A step of central differences within which no gate opens or closes.
const SMALL: f64 = 1.0 / (1 << 20) as f64;
/// Coordinates that central differences are taken along.
const COORDINATES: usize = 6;
/// Operands that are single precision whatever the data is.
const ALWAYS_SINGLE: [&str; 1] = ["scales"];

/// The graph, and one that has the cotangent `dx` of `x` for a cotangent `s` of `y`.
pub(crate) fn backward(what: &str, forward: Model) -> (Model, Model) {
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

/// The same graph in double precision.
pub(crate) fn widened(mut proto: ModelProto) -> Model {
    let graph = proto.graph.get_or_insert_default();
    graph.value_info.clear();
    for info in graph.input.iter_mut().chain(&mut graph.output) {
        let found = info.r#type.as_deref().and_then(TensorType::from_proto);
        if let Some(found) = found.filter(|t| t.dtype == DataType::Float) {
            let dtype = DataType::Double;
            info.r#type = Some(Box::new(TensorType { dtype, ..found }.to_proto()));
        }
    }
    let casts = graph
        .node
        .iter_mut()
        .filter(|node| node.op_type() == "Cast");
    for to in casts.flat_map(|node| &mut node.attribute) {
        if to.i == Some(DataType::Float.to_i32().into()) {
            to.i = Some(DataType::Double.to_i32().into());
        }
    }
    for parameter in &mut graph.initializer {
        let name = parameter.name.clone().unwrap_or_default();
        let Ok(tensor) = Tensor::from_proto(parameter.clone()) else {
            panic!("{name} is no tensor")
        };
        if tensor.dtype() == DataType::Float && !ALWAYS_SINGLE.contains(&name.as_str()) {
            let wide = like(DataType::Double, &tensor, &floats(&tensor)).into_proto();
            *parameter = TensorProto {
                name: Some(name),
                ..wide
            };
        }
    }
    let mut model = match Model::from_proto(proto) {
        Ok(model) => model,
        Err(error) => panic!("{error}"),
    };
    let opset = model.opset("").unwrap_or(0);
    for node in model.graph.ops() {
        // Norms compute in single precision unless told otherwise.
        let stashes = model.graph.op(node);
        let stashes = stashes.and_then(|op| op.get_at::<i64>("stash_type", opset));
        if stashes.is_some() {
            let mut patch = Patch::at(node);
            let dtype = DataType::Double.to_i32().into();
            patch.set_attribute(node, Attribute::int("stash_type", dtype));
            if let Err(error) = model.graph.apply(patch) {
                panic!("{error}")
            }
        }
    }
    model
}

fn run(model: &Model, inputs: &Tensors, output: &str) -> Tensor {
    match default_interpreter().run(model, inputs) {
        Ok(mut outputs) => match outputs.remove(output) {
            Some(tensor) => tensor,
            None => panic!("no output {output}"),
        },
        Err(error) => panic!("{error}\n{}", bcosc_testing::text(model)),
    }
}

/// What a graph with the cotangent makes of x and s. An affine one may not look at x at all.
pub(crate) fn pulled_back(both: &Model, x: &Tensor, s: &Tensor) -> Tensor {
    let graph = &both.graph;
    let reads = |name: &str| graph.inputs().iter().any(|v| graph.value_name(*v) == name);
    let given = [("x", x), ("s", s)].into_iter();
    let inputs = given
        .filter(|(name, _)| reads(name))
        .map(|(name, tensor)| (name.to_owned(), tensor.clone()));
    run(both, &inputs.collect(), "dx")
}

pub(crate) fn floats(tensor: &Tensor) -> Vec<f64> {
    match tensor.to_f64s() {
        Ok(elements) => elements,
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn like(dtype: DataType, tensor: &Tensor, elements: &[f64]) -> Tensor {
    match Tensor::floats(dtype, &tensor.dims(), elements) {
        Some(tensor) => tensor,
        None => panic!("{dtype} is not floating point"),
    }
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Holds a graph's cotangent to its law, for batches of 1 and 2 and several cotangents.
pub(crate) fn holds(what: &str, law: Law, builder: ModelBuilder) {
    holds_in_single(what, law, builder.clone(), "");
    let what = format!("{what} in double precision");
    let double = backward(&what, widened(builder.output("y").proto()));
    obeys(&what, law, TOLERANCE[1], &double);
    if law != Law::Dynamic {
        differences(&what, law, &double);
    }
}

/// As [`holds`], where tract cannot compute the graph in double precision.
pub(crate) fn holds_in_single(what: &str, law: Law, builder: ModelBuilder, _why: &str) {
    let single = backward(what, model(builder.output("y")));
    obeys(what, law, TOLERANCE[0], &single);
}

/// As [`holds_in_single`], where tract does not know the operator: `forward` computes the same with others.
pub(crate) fn holds_against(what: &str, law: Law, forward: ModelBuilder, given: Model) {
    let (_, both) = backward(what, given);
    obeys(what, law, TOLERANCE[0], &(model(forward.output("y")), both));
}

fn obeys(what: &str, law: Law, tolerance: f64, (forward, both): &(Model, Model)) {
    for batch in [1, 2] {
        let x = image(forward, batch);
        let at = |x: &Tensor| floats(&run(forward, &[("x".to_owned(), x.clone())].into(), "y"));
        let y = run(forward, &[("x".to_owned(), x.clone())].into(), "y");
        let (x0, y0) = (floats(&x), floats(&y));
        for seed in 0..3 {
            let s = like(y.dtype(), &y, &noise(100 + seed, y.len()));
            let dx = pulled_back(both, &x, &s);
            assert_eq!(dx.tensor_type(), x.tensor_type(), "{what}");
            let (dx, s) = (floats(&dx), floats(&s));
            let (left, right) = match law {
                Law::Affine => {
                    let d = noise(200 + seed, x.len());
                    let moved: Vec<f64> = x0.iter().zip(&d).map(|(x, d)| x + d).collect();
                    let y1 = at(&like(x.dtype(), &x, &moved));
                    let change: Vec<f64> = y1.iter().zip(&y0).map(|(a, b)| a - b).collect();
                    (dot(&s, &change), dot(&dx, &d))
                }
                _ => (dot(&s, &y0), dot(&dx, &x0)),
            };
            let scale = dot(&s, &s).sqrt() * dot(&y0, &y0).sqrt();
            assert!(scale > 0.0 && dx.iter().any(|x| *x != 0.0), "{what}");
            assert!(
                (left - right).abs() <= tolerance * scale.max(left.abs()),
                "{what}, batch {batch}: {left} and {right}"
            );
        }
    }
}

/// Holds single elements of a cotangent to central differences.
fn differences(what: &str, law: Law, (forward, both): &(Model, Model)) {
    let step = if law == Law::Affine { 1.0 } else { SMALL };
    let x = image(forward, 2);
    let y = run(forward, &[("x".to_owned(), x.clone())].into(), "y");
    let s = like(y.dtype(), &y, &noise(300, y.len()));
    let dx = floats(&pulled_back(both, &x, &s));
    let (x0, s) = (floats(&x), floats(&s));
    let at = |coordinate: usize, by: f64| {
        let mut moved = x0.clone();
        moved[coordinate] += by;
        let moved = like(x.dtype(), &x, &moved);
        dot(
            &s,
            &floats(&run(forward, &[("x".to_owned(), moved)].into(), "y")),
        )
    };
    let scale = dx.iter().fold(0.0, |scale: f64, x| scale.max(x.abs()));
    for i in 0..COORDINATES {
        let coordinate = (i * x0.len() + x0.len() / 2) / COORDINATES;
        let slope = (at(coordinate, step) - at(coordinate, -step)) / (2.0 * step);
        // What is lost to rounding grows with the sum and shrinks with the step.
        let rounding = 1e-15 * dot(&s, &s) / step;
        assert!(
            (slope - dx[coordinate]).abs() <= TOLERANCE[1] * scale + rounding,
            "{what}, x[{coordinate}]: {slope} and {}",
            dx[coordinate]
        );
    }
}

fn image(forward: &Model, batch: u64) -> Tensor {
    let found = inputs_for(forward, batch).remove("x");
    found.unwrap_or_else(|| panic!("no x"))
}

/// Why there is no cotangent.
pub(crate) fn refusal(builder: ModelBuilder) -> Reason {
    let mut found = inferred(builder.output("y"));
    let (x, y) = (found.graph.inputs()[0], found.graph.outputs()[0].value);
    match cotangent(&mut found, y, y, x) {
        Err(PassError::Unsupported { reason, .. } | PassError::Model(reason)) => reason,
        other => panic!("{other:?}"),
    }
}
