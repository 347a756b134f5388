//! What the engine must give on a device.

use bcosc_engine::{
    Device, Engine, InputShapes, Precision, Session, SessionOptions, Value, default_engine,
};
use bcosc_engine_cuda::runtime::Cuda;
use bcosc_ir::{Model, Tensor, Tensors};

use super::{Graph, difference, graph, inputs, reference, shapes};

/// The largest error relative to the range of an output.
pub const TOLERANCE: f64 = 1e-3;

/// The engine, or a message that says why there is none.
pub fn engine() -> Option<Cuda> {
    match Cuda::new(Device::Cuda(0)) {
        Ok(engine) => Some(engine),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

pub fn session(
    engine: &dyn Engine,
    model: &Model,
    shapes: &InputShapes,
    precision: Precision,
) -> Box<dyn Session> {
    let network = engine.load(model).unwrap();
    let options = SessionOptions {
        precision,
        ..SessionOptions::default()
    };
    network.session(shapes, &options).unwrap()
}

/// The largest error of a graph of a network against tract, and where it is. There are more runs than it takes until the
/// steps are a captured graph.
pub fn error_of_runs(
    engine: &Cuda,
    network: &str,
    kind: Graph,
    precision: Precision,
) -> (f64, String) {
    let (model, standard) = graph(network, kind);
    let shapes = shapes(&model, 3, 32);
    let inputs = inputs(&model, &shapes);
    let expected = reference(&standard, &inputs);
    let session = session(engine, &model, &shapes, precision);
    let mut worst = (0.0, String::new());
    for _ in 0..3 {
        let found: Tensors = session.run_named(&inputs).unwrap();
        for port in session.outputs() {
            let given = found[&port.name].tensor_type();
            assert_eq!(port.tensor_type.as_ref(), Some(&given), "{}", port.name);
        }
        let (error, place) = difference(&found, &expected);
        if error > worst.0 {
            worst = (error, place);
        }
    }
    worst
}

/// State is replaced in the device's memory; a value that somebody still holds keeps its numbers. Two runs are alike.
pub fn state_stays_on_the_device(engine: &Cuda) {
    let (model, standard) = graph("resnet_tiny", Graph::Step);
    let shapes = shapes(&model, 3, 32);
    let all = inputs(&model, &shapes);
    let on = |engine: &dyn Engine, model| session(engine, model, &shapes, Precision::Fp32);
    let (losses, kept) = four_steps(&*on(engine, &model), &all);
    let (again, _) = four_steps(&*on(engine, &model), &all);
    assert_eq!(losses, again, "two runs differ");
    let (expected, wanted) = four_steps(&*on(default_engine(), &standard), &all);
    let close = |a: f64, b: f64| (a - b).abs() <= TOLERANCE * (1.0 + b.abs());
    assert!(
        losses.iter().zip(&expected).all(|(a, b)| close(*a, *b)),
        "{losses:?} {expected:?}"
    );
    for (a, b) in kept.iter().flatten().zip(wanted.iter().flatten()) {
        assert!(close(*a, *b), "{a} for {b}");
    }
}

/// State of one session, as long as both go on with it, is the same in another.
pub fn state_goes_to_another_session(engine: &Cuda) {
    let (model, _) = graph("resnet_tiny", Graph::Step);
    let shapes = shapes(&model, 3, 32);
    let all = inputs(&model, &shapes);
    let [first, second] = [(); 2].map(|()| session(engine, &model, &shapes, Precision::Fp32));
    let outputs = first.run(given(&*first, &all)).unwrap();
    let before: Vec<Tensor> = tensors(&outputs);
    let next = |session: &dyn Session| session.run(following(session, &all, &outputs)).unwrap();
    for _ in 0..2 {
        let (own, other) = (next(&*first), next(&*second));
        assert_eq!(tensors(&own), tensors(&other));
        assert_eq!(tensors(&outputs), before);
    }
}

fn tensors(values: &[Value]) -> Vec<Tensor> {
    values.iter().map(|v| v.to_tensor().unwrap()).collect()
}

/// All inputs of a session as they are given at first.
pub fn given(session: &dyn Session, all: &Tensors) -> Vec<Value> {
    let ports = session.inputs().iter();
    ports
        .map(|port| Value::from(all[&port.name].clone()))
        .collect()
}

/// All inputs of a session, with state as a step left it.
pub fn following(session: &dyn Session, all: &Tensors, outputs: &[Value]) -> Vec<Value> {
    let state = |name: &str| {
        let next = format!("{name}.next");
        let place = session.outputs().iter().position(|port| port.name == next);
        place.map(|place| outputs[place].clone())
    };
    let ports = session.inputs().iter();
    ports
        .map(|port| state(&port.name).unwrap_or_else(|| Value::from(all[&port.name].clone())))
        .collect()
}

/// The losses of steps that follow one another, and a state after each.
fn four_steps(session: &dyn Session, all: &Tensors) -> (Vec<f64>, Vec<Vec<f64>>) {
    let numbers = |value: &Value| value.to_tensor().unwrap().to_f64s().unwrap();
    let mut values = given(session, all);
    let (mut losses, mut kept) = (Vec::new(), Vec::<Value>::new());
    for _ in 0..4 {
        let outputs = session.run(std::mem::take(&mut values)).unwrap();
        losses.push(numbers(&outputs[0])[0]);
        values = following(session, all, &outputs);
        // One of the states has another owner, the others have not.
        kept.extend(outputs.into_iter().nth(2));
    }
    (losses, kept.iter().map(numbers).collect())
}
