//! Cases that run on the stand-ins.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bcosc_engine::{Device, Engine, EngineError, InputShapes, Precision, SessionOptions, Value};
use bcosc_engine_cuda::runtime::Cuda;
use bcosc_ir::{Model, Tensor, Tensors, onnx};

use crate::common::device::{
    TOLERANCE, error_of_runs, session, state_goes_to_another_session, state_stays_on_the_device,
};
use crate::common::{Graph, difference, fixtures, graph, inputs, reference, shapes};

pub fn engine() -> Cuda {
    Cuda::new(Device::Cuda(0)).unwrap()
}

/// A small graph with its shapes and inputs.
fn small() -> (Model, InputShapes, Tensors) {
    let (model, _) = graph("resnet_tiny", Graph::Forward);
    let shapes = shapes(&model, 3, 32);
    let inputs = inputs(&model, &shapes);
    (model, shapes, inputs)
}

pub fn networks() {
    let engine = engine();
    let all = [
        ("resnet_tiny", Graph::Explanation, Precision::Tf32, 2e-2),
        ("resnet_tiny", Graph::Step, Precision::Bf16, 0.1),
        ("vit_tiny", Graph::Explanation, Precision::Fp32, TOLERANCE),
    ];
    for (network, kind, precision, tolerance) in all {
        let (error, place) = error_of_runs(&engine, network, kind, precision);
        assert!(
            error < tolerance,
            "{network} {kind:?} {precision}: {error:e} at {place}"
        );
    }
}

pub fn state() {
    let engine = engine();
    state_stays_on_the_device(&engine);
    state_goes_to_another_session(&engine);
    crate::emitted::trains_alike(&engine);
}

/// Nobody waits between runs, each with inputs of its own.
pub fn late_reads() {
    let engine = engine();
    let (model, shapes, inputs) = small();
    let session = session(&engine, &model, &shapes, Precision::Fp32);
    let scaled = |factor: f64| -> Tensors {
        let scaled = inputs.iter().map(|(name, tensor)| {
            let numbers = tensor.to_f64s().unwrap();
            let numbers: Vec<f64> = numbers.iter().map(|x| x * factor).collect();
            let tensor = Tensor::floats(tensor.dtype(), &tensor.dims(), &numbers).unwrap();
            (name.clone(), tensor)
        });
        scaled.collect()
    };
    let all: Vec<Tensors> = (1..6).map(|n| scaled(f64::from(n))).collect();
    let run = |inputs: &Tensors| {
        let values = session.inputs().iter().map(|port| &inputs[&port.name]);
        session
            .run(values.cloned().map(Value::from).collect())
            .unwrap()
    };
    let outputs: Vec<Vec<Value>> = all.iter().map(run).collect();
    for (inputs, outputs) in all.iter().zip(outputs) {
        let names = session.outputs().iter().map(|port| port.name.clone());
        let found = names.zip(outputs.iter().map(|value| value.to_tensor().unwrap()));
        let (error, place) = difference(&found.collect(), &reference(&model, inputs));
        assert!(error < TOLERANCE, "{error:e} at {place}");
    }
}

/// Ends what another thread repeats, also when this one panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A graph of one convolution, of a size that no other case has.
fn convolution(batch: u64) -> (Model, InputShapes, Tensors) {
    let file = fixtures().join("autodiff/Conv.open.onnx");
    let model = Model::from_proto(onnx::read(&file).unwrap().model).unwrap();
    let shapes = shapes(&model, batch, 7);
    let inputs = inputs(&model, &shapes);
    (model, shapes, inputs)
}

/// What one thread does with values does not disturb what another captures, and what a thread made another may drop.
pub fn threads() {
    let own_engine = engine();
    let (model, shapes, inputs) = small();
    let expected = reference(&model, &inputs);
    let own = session(&own_engine, &model, &shapes, Precision::Fp32);
    let close = |found: &Tensors| {
        let (error, place) = difference(found, &expected);
        assert!(error < TOLERANCE, "{error:e} at {place}");
    };
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut kept = Vec::new();
            for round in 1u16.. {
                let tensor = Tensor::f32s(&[2], vec![f32::from(round), 1.0]);
                let value = own_engine.upload(&tensor).unwrap();
                assert_eq!(value.to_tensor().unwrap(), tensor);
                kept.push(value);
                if round % 8 == 0 {
                    kept.clear();
                    // An engine of its own measures algorithms.
                    let (model, shapes, inputs) = convolution(u64::from(round));
                    let session = session(&engine(), &model, &shapes, Precision::Fp32);
                    session.run_named(&inputs).unwrap();
                }
                if over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let _over = Over(&over);
        for _ in 0..3 {
            close(&own.run_named(&inputs).unwrap());
        }
    });
    // Values of another engine are read.
    let other = engine();
    let values = own
        .inputs()
        .iter()
        .map(|port| other.upload(&inputs[&port.name]).unwrap());
    let found = own.run(values.collect()).unwrap();
    let names = own.outputs().iter().map(|port| port.name.clone());
    close(
        &names
            .zip(found.iter().map(|value| value.to_tensor().unwrap()))
            .collect(),
    );
    drop(other);
    let unused = session(&own_engine, &model, &shapes, Precision::Fp32);
    thread::spawn(move || drop(unused)).join().unwrap();
    thread::spawn(move || drop(own)).join().unwrap();
    thread::spawn(move || drop(own_engine)).join().unwrap();
}

/// The compiler does not know the device, so the driver gets intermediate code. Files that are spoiled do no harm.
pub fn newer_device() {
    for _ in 0..2 {
        let (error, place) =
            error_of_runs(&engine(), "resnet_tiny", Graph::Forward, Precision::Fp32);
        assert!(error < TOLERANCE, "{error:e} at {place}");
        let cache = std::env::var_os("XDG_CACHE_HOME").unwrap();
        let kernels = Path::new(&cache).join("bcosc/kernels-sm_100-nvrtc-12.4");
        for (number, file) in fs::read_dir(kernels).unwrap().enumerate() {
            let path = file.unwrap().path();
            let whole = fs::read(&path).unwrap();
            let spoiled = match number % 2 {
                0 => b"spoiled",
                _ => &whole[..whole.len() / 2],
            };
            fs::write(&path, spoiled).unwrap();
        }
    }
}

/// The library that the loader finds is cuDNN 8.
pub fn older_cudnn() {
    let error = Cuda::new(Device::Cuda(0)).unwrap_err();
    assert!(matches!(error, EngineError::Unavailable { .. }));
    assert!(error.to_string().contains("8907"), "{error}");
}

/// Bytes of the device in [`little_memory`].
pub const LITTLE: &str = "1000000";

/// An algorithm that needs more than is free stays known, and another takes its place meanwhile.
pub fn little_memory() {
    let engine = engine();
    let (model, shapes, inputs) = convolution(64);
    let expected = reference(&model, &inputs);
    let run = || {
        let session = session(&engine, &model, &shapes, Precision::Fp32);
        let (error, place) = difference(&session.run_named(&inputs).unwrap(), &expected);
        assert!(error < TOLERANCE, "{error:e} at {place}");
    };
    let known = || -> serde_json::Value {
        let cache = std::env::var_os("XDG_CACHE_HOME").unwrap();
        let file = fs::read(Path::new(&cache).join("bcosc/convolutions.json")).unwrap();
        let all: serde_json::Value = serde_json::from_slice(&file).unwrap();
        let all = all.as_object().unwrap().iter();
        let mut own = all.filter(|(key, _)| key.contains("x: [64, 2, 7, 7]"));
        own.next().unwrap().1.clone()
    };
    run();
    let before = known();
    let bytes = |tensors: &Tensors| tensors.values().map(Tensor::byte_len).sum::<u64>();
    let (given, result) = (bytes(&inputs), bytes(&expected));
    // A search may use half of what is left beside the operands and the result, which is copied when it is returned.
    let left = given + 3 * result;
    assert!(before["space"].as_u64().unwrap() > (left - given - result) / 2);
    let others = (LITTLE.parse::<u64>().unwrap() - left) / 4;
    let others = Tensor::f32s(&[others], vec![0.0; others as usize]);
    let _others = engine.upload(&others).unwrap();
    run();
    assert_eq!(known(), before);
}

/// Why there is no session.
fn refused() -> EngineError {
    let (model, shapes, _) = small();
    let network = engine().load(&model).unwrap();
    let session = network.session(&shapes, &SessionOptions::default());
    session.map(|_| ()).unwrap_err()
}

pub fn full_device() {
    let error = refused();
    assert!(matches!(error, EngineError::Run { .. }), "{error:?}");
    assert!(error.to_string().contains("out of memory"), "{error}");
}

pub fn no_kernels() {
    let error = refused();
    assert!(matches!(error, EngineError::Load { .. }), "{error:?}");
    assert!(error.to_string().contains("kernel "), "{error}");
}

/// More calls than there are.
const MOST_FAILURES: usize = 2000;

/// Calls fail one after the other, each later than the last: in opening the device, loading, searching, running and capturing.
/// Every failure is an error, and what was made before it is given back.
pub fn failures() {
    let mut all = BTreeSet::new();
    // The first measures algorithms, which are known of the second.
    for (model, shapes, inputs) in [convolution(5), small()] {
        let mut errors = BTreeSet::new();
        let attempt = || -> Result<Tensors, EngineError> {
            let engine = Cuda::new(Device::Cuda(0))?;
            let network = engine.load(&model)?;
            let session = network.session(&shapes, &SessionOptions::default())?;
            for _ in 0..2 {
                session.run_named(&inputs)?;
            }
            session.run_named(&inputs)
        };
        let mut attempts = (0..MOST_FAILURES).map(|_| attempt());
        let found = attempts.find_map(|attempt| match attempt {
            Ok(found) => Some(found),
            Err(error) => {
                errors.insert(error.to_string());
                None
            }
        });
        let found = found.expect("it works where nothing fails");
        let (error, place) = difference(&found, &reference(&model, &inputs));
        assert!(error < TOLERANCE, "{error:e} at {place}");
        // One call of three fails, so one of the last three did: the end of the capture, and what is made of it.
        let places = ["capturing the graph", "running the graph"];
        let captured = |error: &String| places.iter().any(|place| error.contains(place));
        assert!(errors.iter().any(captured), "{errors:?}");
        all.append(&mut errors);
    }
    assert!(all.len() > 10, "{all:?}");
}
