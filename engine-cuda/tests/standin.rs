//! The runtime without a GPU, on stand-ins for NVIDIA's libraries in `standin/`. They run everything on the CPU, late and in the
//! order of streams, and refuse what the libraries would refuse. Skipped where there is no C++ compiler.
//!
//! The loader reads its folders when a process starts, so each case runs in a process of its own: an ignored test of this file.

#![cfg(target_os = "linux")]

mod common;
#[path = "standin/emitted.rs"]
mod emitted;
#[path = "standin/operators.rs"]
mod operators;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bcosc_engine::{Device, Engine, EngineError, InputShapes, Precision, SessionOptions, Value};
use bcosc_engine_cuda::runtime::Cuda;
use bcosc_ir::{Model, Tensor, Tensors};
use common::cpu::compiler;
use common::device::{
    TOLERANCE, error_of_runs, session, state_goes_to_another_session, state_stays_on_the_device,
};
use common::{Graph, difference, graph, inputs, reference, shapes};

/// Libraries with the files that they are made of.
const LIBRARIES: [(&str, &[&str]); 4] = [
    (
        "libcuda.so.1",
        &[
            "driver_modules",
            "report",
            "memory",
            "streams",
            "driver_context",
            "driver_memory",
            "driver_streams",
        ],
    ),
    ("libnvrtc.so.12", &["nvrtc"]),
    ("libcublasLt.so.12", &["cublaslt", "cublaslt_matmul"]),
    (
        "libcudnn.so.9",
        &["cudnn_descriptors", "cudnn_algorithms", "cudnn_convolution"],
    ),
];

/// A case that takes a minute by itself, and runs where this variable is set.
const LONG: (&str, &str) = ("operators::operators", "BCOSC_STANDIN_OPERATORS");

/// Cases with what the environment says to the stand-ins.
const CASES: [(&str, &[(&str, &str)]); 9] = [
    ("networks", &[]),
    ("state", &[]),
    ("late_reads", &[]),
    ("threads", &[("STANDIN_LAUNCH_MICROSECONDS", "500")]),
    ("newer_device", &[("STANDIN_ARCHITECTURE", "100")]),
    ("older_cudnn", &[("STANDIN_CUDNN", "8907")]),
    ("full_device", &[("STANDIN_MEMORY", "60000")]),
    (
        "no_kernels",
        &[
            ("STANDIN_COMPILER", "false"),
            ("XDG_CACHE_HOME", "/dev/null"),
        ],
    ),
    ("failures", &[("STANDIN_FAILURES", "3")]),
];

#[test]
fn the_runtime_keeps_the_rules_of_the_libraries() {
    let Some(compiler) = compiler() else {
        eprintln!("skipped: there is no C++ compiler");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    build(compiler, folder.path());
    if std::env::var_os(LONG.1).is_some() {
        run(compiler, folder.path(), LONG.0, &[]);
    }
    // The first takes as long as the others.
    let (first, others) = CASES.split_at(1);
    thread::scope(|scope| {
        for cases in [first, others] {
            let folder = folder.path();
            scope.spawn(move || {
                for (case, settings) in cases {
                    run(compiler, folder, case, settings);
                }
            });
        }
    });
}

/// Builds the libraries into `lib`, beside what kernels include.
fn build(compiler: &str, folder: &Path) {
    let sources = common::fixtures().join("../engine-cuda/tests");
    let (lib, shared) = (folder.join("lib"), folder.join("common"));
    for (to, name, from) in [(&lib, "kernel.h", "standin"), (&shared, "cuda.h", "common")] {
        fs::create_dir_all(to).unwrap();
        fs::copy(sources.join(from).join(name), to.join(name)).unwrap();
    }
    let driver = lib.join(LIBRARIES[0].0);
    for (name, files) in LIBRARIES {
        let mut command = Command::new(compiler);
        command.args(["-std=c++17", "-O1", "-fPIC", "-shared", "-w"]);
        command
            .args(["-ffp-contract=off", "-o"])
            .arg(lib.join(name));
        command.arg(format!("-Wl,-soname,{name}"));
        // As one text, which compiles in a third of the time.
        for file in files {
            let source = sources.join("standin").join(format!("{file}.cpp"));
            command.arg("-include").arg(source);
        }
        command.args(["-x", "c++", "/dev/null"]);
        if driver.exists() {
            command.args(["-x", "none"]).arg(&driver);
        }
        done(&mut command);
    }
    // Headers that are read once, since there are hundreds of kernels.
    let mut headers = Command::new(compiler);
    headers.args(["-std=c++17", "-w", "-O0", "-fPIC", "-ffp-contract=off"]);
    headers.args(["-x", "c++-header"]).arg(lib.join("kernel.h"));
    done(headers.arg("-o").arg(lib.join("kernel.h.gch")));
}

fn done(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}\n{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

/// Runs a case in a process of its own, which must keep all rules and give everything back.
fn run(compiler: &str, folder: &Path, case: &str, settings: &[(&str, &str)]) {
    let report = folder.join(format!("{case}.report"));
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", case])
        .env("LD_LIBRARY_PATH", folder.join("lib"))
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .env("STANDIN_COMPILER", compiler)
        .env("STANDIN_REPORT", &report)
        .envs(settings.iter().copied());
    let output = done(&mut command);
    let found = fs::read_to_string(&report).unwrap_or_default();
    assert_eq!(
        found,
        "rules broken: 0\n",
        "{case}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn engine() -> Cuda {
    Cuda::new(Device::Cuda(0)).unwrap()
}

/// A small graph with its shapes and inputs.
fn small() -> (Model, InputShapes, Tensors) {
    let (model, _) = graph("resnet_tiny", Graph::Forward);
    let shapes = shapes(&model, 3, 32);
    let inputs = inputs(&model, &shapes);
    (model, shapes, inputs)
}

#[test]
#[ignore = "runs on the stand-ins"]
fn networks() {
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

#[test]
#[ignore = "runs on the stand-ins"]
fn state() {
    let engine = engine();
    state_stays_on_the_device(&engine);
    state_goes_to_another_session(&engine);
    emitted::trains_alike(&engine);
}

/// Nobody waits between runs, each with inputs of its own.
#[test]
#[ignore = "runs on the stand-ins"]
fn late_reads() {
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

/// What one thread does with values does not disturb what another captures, and what a thread made another may drop.
#[test]
#[ignore = "runs on the stand-ins"]
fn threads() {
    let engine = engine();
    let (model, shapes, inputs) = small();
    let expected = reference(&model, &inputs);
    let own = session(&engine, &model, &shapes, Precision::Fp32);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let values = scope.spawn(|| {
            let mut kept = Vec::new();
            for round in 0u16.. {
                let tensor = Tensor::f32s(&[2], vec![f32::from(round), 1.0]);
                let value = engine.upload(&tensor).unwrap();
                assert_eq!(value.to_tensor().unwrap(), tensor);
                kept.push(value);
                if round % 8 == 7 {
                    kept.clear();
                    drop(Cuda::new(Device::Cuda(0)).unwrap());
                }
                if over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for _ in 0..3 {
            let found = own.run_named(&inputs).unwrap();
            let (error, place) = difference(&found, &expected);
            assert!(error < TOLERANCE, "{error:e} at {place}");
        }
        over.store(true, Ordering::Relaxed);
        values.join().unwrap();
    });
    let unused = session(&engine, &model, &shapes, Precision::Fp32);
    thread::spawn(move || drop(unused)).join().unwrap();
    thread::spawn(move || drop(own)).join().unwrap();
    thread::spawn(move || drop(engine)).join().unwrap();
}

/// The compiler does not know the device, so the driver gets intermediate code. Files that are spoiled do no harm.
#[test]
#[ignore = "runs on the stand-ins"]
fn newer_device() {
    for _ in 0..2 {
        let (error, place) =
            error_of_runs(&engine(), "resnet_tiny", Graph::Forward, Precision::Fp32);
        assert!(error < TOLERANCE, "{error:e} at {place}");
        let cache = std::env::var_os("XDG_CACHE_HOME").unwrap();
        let kernels = Path::new(&cache).join("bcosc/kernels-sm_100-nvrtc-12.4");
        for file in fs::read_dir(kernels).unwrap() {
            fs::write(file.unwrap().path(), "spoiled").unwrap();
        }
    }
}

/// A library under the name that is looked for first is older.
#[test]
#[ignore = "runs on the stand-ins"]
fn older_cudnn() {
    let error = Cuda::new(Device::Cuda(0)).unwrap_err();
    assert!(matches!(error, EngineError::Unavailable { .. }));
    assert!(error.to_string().contains("8907"), "{error}");
}

/// Why there is no session.
fn refused() -> EngineError {
    let (model, shapes, _) = small();
    let network = engine().load(&model).unwrap();
    let session = network.session(&shapes, &SessionOptions::default());
    session.map(|_| ()).unwrap_err()
}

#[test]
#[ignore = "runs on the stand-ins"]
fn full_device() {
    let error = refused();
    assert!(matches!(error, EngineError::Run { .. }), "{error:?}");
    assert!(error.to_string().contains("out of memory"), "{error}");
}

#[test]
#[ignore = "runs on the stand-ins"]
fn no_kernels() {
    let error = refused();
    assert!(matches!(error, EngineError::Load { .. }), "{error:?}");
    assert!(error.to_string().contains("kernel "), "{error}");
}

/// Calls fail one after the other, each later than the last: in opening the device, loading, running and capturing. Every
/// failure is an error, and what was made before it is given back.
#[test]
#[ignore = "runs on the stand-ins"]
fn failures() {
    let (model, shapes, inputs) = small();
    let expected = reference(&model, &inputs);
    let attempt = || -> Result<Tensors, EngineError> {
        let engine = Cuda::new(Device::Cuda(0))?;
        let network = engine.load(&model)?;
        let session = network.session(&shapes, &SessionOptions::default())?;
        for _ in 0..2 {
            session.run_named(&inputs)?;
        }
        session.run_named(&inputs)
    };
    let mut errors = BTreeSet::new();
    let found = loop {
        match attempt() {
            Ok(found) => break found,
            Err(error) => errors.insert(error.to_string()),
        };
    };
    let (error, place) = difference(&found, &expected);
    assert!(error < TOLERANCE, "{error:e} at {place}");
    assert!(errors.len() > 10, "{errors:?}");
}
