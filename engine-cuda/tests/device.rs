//! The engine on a device, against tract; without one, the message that says what is missing.
//!
//! Lines that begin with `figure: ` are JSON, for `tests/device/run.sh`. With `BCOSC_NETWORKS`, a folder of ONNX files, these
//! networks are compared as well.

mod common;

use bcosc_engine::{
    Device, Engine, EngineError, Precision, Session, SessionOptions, Value, default_engine,
};
use bcosc_engine_cuda::runtime::Cuda;
use bcosc_ir::{Model, Tensors};
use common::{
    Graph, NETWORKS, converted_from, difference, graph, graph_of, inputs, reference, shapes,
};

/// The largest error relative to the range of an output.
const TOLERANCE: f64 = 1e-3;

fn engine() -> Option<Cuda> {
    match Cuda::new(Device::Cuda(0)) {
        Ok(engine) => Some(engine),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

#[test]
fn what_is_missing_is_named() {
    let error = Cuda::new(Device::Cpu).unwrap_err();
    assert!(matches!(
        error,
        EngineError::Device {
            device: Device::Cpu,
            ..
        }
    ));
    match Cuda::new(Device::Cuda(10_000)) {
        Err(EngineError::Unavailable { reason, .. }) => {
            let named = ["install", "there is no device 10000"];
            assert!(named.iter().any(|text| reason.contains(text)), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

fn session(engine: &dyn Engine, model: &Model, batch: u64) -> Box<dyn Session> {
    session_in(engine, model, batch, Precision::Fp32)
}

fn session_in(
    engine: &dyn Engine,
    model: &Model,
    batch: u64,
    precision: Precision,
) -> Box<dyn Session> {
    let network = engine.load(model).unwrap();
    let options = SessionOptions {
        precision,
        ..SessionOptions::default()
    };
    network
        .session(&shapes(model, batch, 32), &options)
        .unwrap()
}

/// TF32 keeps 10 bits of factors, bf16 7, and errors of layers add up.
#[test]
fn networks_in_other_precisions_are_close_to_tract() {
    let Some(engine) = engine() else { return };
    for (precision, tolerance) in [(Precision::Tf32, 2e-2), (Precision::Bf16, 0.1)] {
        for network in ["resnet_tiny", "vitc_tiny"] {
            for kind in Graph::ALL {
                let (model, standard) = graph(network, kind);
                let inputs = inputs(&model, &shapes(&model, 3, 32));
                let expected = reference(&standard, &inputs);
                let session = session_in(&engine, &model, 3, precision);
                for _ in 0..3 {
                    let found: Tensors = session.run_named(&inputs).unwrap();
                    let (error, place) = difference(&found, &expected);
                    println!(
                        "figure: {{\"network\": \"{network}\", \"graph\": \"{kind:?}\", \
                         \"precision\": \"{precision}\", \"error\": {error:e}}}"
                    );
                    assert!(
                        error < tolerance,
                        "{network} {kind:?} {precision}: {error:e} at {place}"
                    );
                }
            }
        }
    }
}

/// More runs than it takes until the steps are a captured graph.
#[test]
fn networks_give_the_numbers_of_tract() {
    let Some(engine) = engine() else { return };
    for network in NETWORKS {
        for kind in Graph::ALL {
            let (model, standard) = graph(network, kind);
            let inputs = inputs(&model, &shapes(&model, 3, 32));
            let expected = reference(&standard, &inputs);
            let session = session(&engine, &model, 3);
            let mut worst: f64 = 0.0;
            for run in 0..3 {
                let found: Tensors = session.run_named(&inputs).unwrap();
                let (error, place) = difference(&found, &expected);
                assert!(
                    error < TOLERANCE,
                    "{network} {kind:?}, run {run}: {error:e} at {place}"
                );
                worst = worst.max(error);
            }
            figure(network, kind, worst);
        }
    }
}

/// A line for `tests/device/run.sh`.
fn figure(network: &str, kind: Graph, error: f64) {
    println!(
        "figure: {{\"network\": \"{network}\", \"graph\": \"{kind:?}\", \"error\": {error:e}}}"
    );
}

/// Two images each, since tract takes long.
#[test]
fn networks_of_a_folder_give_the_numbers_of_tract() {
    let Some(folder) = std::env::var_os("BCOSC_NETWORKS") else {
        eprintln!("skipped: BCOSC_NETWORKS is not set");
        return;
    };
    let Some(engine) = engine() else { return };
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "onnx"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let converted = converted_from(&file, &name, 2.0);
        for kind in Graph::ALL {
            let (model, standard) = graph_of(&converted, kind);
            let inputs = inputs(&model, &shapes(&model, 2, 224));
            let expected = reference(&standard, &inputs);
            let network = engine.load(&model).unwrap();
            let session = network
                .session(&shapes(&model, 2, 224), &SessionOptions::default())
                .unwrap();
            let found = session.run_named(&inputs).unwrap();
            let (error, place) = difference(&found, &expected);
            figure(&name, kind, error);
            assert!(error < TOLERANCE, "{name} {kind:?}: {error:e} at {place}");
        }
    }
}

/// State is replaced in the device's memory; a value that somebody still holds keeps its numbers.
#[test]
fn state_stays_on_the_device_over_steps() {
    let Some(engine) = engine() else { return };
    let (model, standard) = graph("resnet_tiny", Graph::Step);
    let all = inputs(&model, &shapes(&model, 3, 32));
    let run = |session: Box<dyn Session>| {
        let source = |name: &str| {
            let next = format!("{name}.next");
            session.outputs().iter().position(|port| port.name == next)
        };
        let sources: Vec<Option<usize>> = session
            .inputs()
            .iter()
            .map(|port| source(&port.name))
            .collect();
        let first = session
            .inputs()
            .iter()
            .map(|port| Value::from(all[&port.name].clone()));
        let mut values: Vec<Value> = first.collect();
        let (mut losses, mut kept) = (Vec::new(), Vec::<Value>::new());
        for _ in 0..4 {
            let outputs = session.run(std::mem::take(&mut values)).unwrap();
            losses.push(outputs[0].to_tensor().unwrap().to_f64s().unwrap()[0]);
            let ports = session.inputs().iter().zip(&sources);
            values = ports
                .map(|(port, source)| match source {
                    Some(source) => outputs[*source].clone(),
                    None => Value::from(all[&port.name].clone()),
                })
                .collect();
            // One of the states has another owner, the others have not.
            kept.extend(outputs.into_iter().nth(2));
        }
        let kept: Vec<Vec<f64>> = kept
            .iter()
            .map(|v| v.to_tensor().unwrap().to_f64s().unwrap())
            .collect();
        (losses, kept)
    };
    let (losses, kept) = run(session(&engine, &model, 3));
    let (again, _) = run(session(&engine, &model, 3));
    assert_eq!(losses, again, "two runs differ");
    let (expected, wanted) = run(session(default_engine(), &standard, 3));
    let close = |a: f64, b: f64| (a - b).abs() <= TOLERANCE * (1.0 + b.abs());
    assert!(
        losses.iter().zip(&expected).all(|(a, b)| close(*a, *b)),
        "{losses:?} {expected:?}"
    );
    for (a, b) in kept.iter().flatten().zip(wanted.iter().flatten()) {
        assert!(close(*a, *b), "{a} for {b}");
    }
}
