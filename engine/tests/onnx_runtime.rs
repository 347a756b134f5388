//! ONNX Runtime as an engine.
//!
//! Most of these tests need the library. They run where `ORT_DYLIB_PATH` or an active Python environment has it,
//! and say so where nothing does; a library that `ORT_DYLIB_PATH` names has to load.

use std::env;
use std::path::Path;
use std::process::Command;
use std::thread;

use bcosc_engine::{
    Device, Encoding, Engine, EngineError, Feedback, InputShapes, Samples, Session, SessionOptions,
    Value, default_engine, onnx_runtime, prove,
};
use bcosc_ir::{Attribute, DataType, Model, ModelBuilder, Tensor, Tensors};
use bcosc_testing::{Array, Layers, counting, image, input, inputs_for, noise, weight};

/// The engine; `None`, with a message, where there is no library.
fn engine() -> Option<Box<dyn Engine>> {
    match onnx_runtime(Device::Cpu) {
        Ok(engine) => Some(engine),
        Err(error) if env::var_os("ORT_DYLIB_PATH").is_some_and(|path| !path.is_empty()) => {
            panic!("{error}")
        }
        Err(error) => {
            eprintln!("not tested: {error}");
            None
        }
    }
}

fn shapes(pairs: &[(&str, &[u64])]) -> InputShapes {
    let owned = |&(name, dims): &(&str, &[u64])| (name.to_owned(), dims.to_vec());
    pairs.iter().map(owned).collect()
}

fn session(engine: &dyn Engine, model: &Model, pairs: &[(&str, &[u64])]) -> Box<dyn Session> {
    let network = engine.load(model).unwrap();
    let session = network.session(&shapes(pairs), &SessionOptions::default());
    session.unwrap()
}

fn f32s(value: &Value) -> Vec<f32> {
    value.to_tensor().unwrap().to_f32s().unwrap()
}

fn network() -> Model {
    let pads = || Attribute::ints("pads", &[1, 1, 1, 1]);
    image("N,3,H,W")
        .biased_conv("x", "a", &[8, 3, 3, 3], [pads()])
        .norm("a", "b", 8)
        .op("Relu", &["b"], "c", [])
        .conv(
            "c",
            "d",
            &[8, 1, 3, 3],
            [pads(), Attribute::int("group", 8)],
        )
        .op("Sigmoid", &["d"], "e", [])
        .op("Mul", &["d", "e"], "f", [])
        .op("Add", &["f", "c"], "g", [])
        .op(
            "MaxPool",
            &["g"],
            "h",
            [
                Attribute::ints("kernel_shape", &[2, 2]),
                Attribute::ints("strides", &[2, 2]),
            ],
        )
        .op("GlobalAveragePool", &["h"], "i", [])
        .op("Flatten", &["i"], "j", [])
        .linear("j", "logits", 8, 5)
        .output_as("logits", DataType::Float, "N,5")
        .output_as("h", DataType::Float, "N,8,P,Q")
        .finish()
        .unwrap()
}

#[test]
fn it_computes_what_tract_does() {
    let Some(engine) = engine() else { return };
    let model = network();
    let ours = engine.load(&model).unwrap();
    let tracts = default_engine().load(&model).unwrap();
    // Sessions of one network have shapes of their own.
    for dims in [[2, 3, 16, 24], [1, 3, 9, 7], [3, 3, 32, 32]] {
        let shapes = shapes(&[("x", &dims)]);
        let x = Tensors::from([("x".to_owned(), weight(dims[0], &dims))]);
        let options = SessionOptions::default();
        let run = |network: &dyn bcosc_engine::Network| {
            let session = network.session(&shapes, &options).unwrap();
            session.run_named(&x).unwrap()
        };
        let (found, expected) = (run(ours.as_ref()), run(tracts.as_ref()));
        for name in ["logits", "h"] {
            Array::of(&found[name]).assert_close(&Array::of(&expected[name]), 1e-5);
        }
    }
}

#[test]
fn proofs_run_on_it() {
    let Some(engine) = engine() else { return };
    let model = network();
    let inputs = Samples::default().draw(&model, &Encoding::Raw).unwrap();
    let figures = prove(engine.as_ref(), &model, &model, &inputs, &inputs, 1e-4).unwrap();
    assert_eq!(figures.overall.max_abs, 0.0);
}

#[test]
fn the_number_of_threads_does_not_show() {
    let Some(engine) = engine() else { return };
    let network = engine.load(&network()).unwrap();
    let dims = [2, 3, 40, 40];
    let run = |threads: usize| {
        let options = SessionOptions {
            threads,
            ..SessionOptions::default()
        };
        let session = network.session(&shapes(&[("x", &dims)]), &options).unwrap();
        f32s(&session.run(vec![weight(3, &dims).into()]).unwrap()[0])
    };
    let alone = run(1);
    assert!(alone.iter().any(|logit| *logit != 0.0));
    for threads in [2, 3, 0, 1] {
        assert_eq!(run(threads), alone, "{threads} threads");
    }
}

#[test]
fn threads_share_a_session() {
    let Some(engine) = engine() else { return };
    let dims = [1, 3, 12, 12];
    let session = session(engine.as_ref(), &network(), &[("x", &dims)]);
    let run = |seed: u64| f32s(&session.run(vec![weight(seed, &dims).into()]).unwrap()[0]);
    let alone: Vec<_> = (0..2).map(run).collect();
    assert_ne!(alone[0], alone[1]);
    thread::scope(|scope| {
        let many = |seed| move || (0..20).map(|_| run(seed)).collect::<Vec<_>>();
        let running: Vec<_> = (0..2).map(|seed| scope.spawn(many(seed))).collect();
        for (thread, expected) in running.into_iter().zip(&alone) {
            assert!(thread.join().unwrap().iter().all(|found| found == expected));
        }
    });
}

/// One step of gradient descent on |x w - t|^2 / 2, with a count of steps.
fn training_step() -> Model {
    input(13, "4,3")
        .input("t", DataType::Float, "4,1")
        .input("w", DataType::Float, "3,1")
        .input("step", DataType::Int64, "")
        .param("rate", Tensor::f32s(&[], vec![0.05]))
        .param("one", Tensor::i64s(&[], vec![1]))
        .op("MatMul", &["x", "w"], "y", [])
        .op("Sub", &["y", "t"], "error", [])
        .op("Transpose", &["x"], "xt", [])
        .op("MatMul", &["xt", "error"], "g", [])
        .op("Mul", &["g", "rate"], "move", [])
        .op("Sub", &["w", "move"], "w_next", [])
        .op("Add", &["step", "one"], "step_next", [])
        .op("ReduceSumSquare", &["error"], "loss", [])
        .output_as("w_next", DataType::Float, "3,1")
        .output_as("step_next", DataType::Int64, "")
        .output_as("loss", DataType::Float, "1,1")
        .finish()
        .unwrap()
}

#[test]
fn state_stays_between_steps() {
    let Some(engine) = engine() else { return };
    let ports: [(&str, &[u64]); 4] = [
        ("x", &[4, 3]),
        ("t", &[4, 1]),
        ("w", &[3, 1]),
        ("step", &[]),
    ];
    let train = |engine: &dyn Engine| {
        let session = session(engine, &training_step(), &ports);
        let start = Tensors::from([
            ("w".to_owned(), weight(5, &[3, 1])),
            ("step".to_owned(), Tensor::i64s(&[], vec![0])),
        ]);
        let pairs = [("w_next", "w"), ("step_next", "step")];
        let mut training = Feedback::new(session, &pairs, &start).unwrap();
        let mut losses = Vec::new();
        for seed in 0..10 {
            let given = Tensors::from([
                ("x".to_owned(), weight(seed, &[4, 3])),
                ("t".to_owned(), weight(seed + 50, &[4, 1])),
            ]);
            losses.push(f32s(&training.run(&given).unwrap()["loss"])[0].into());
        }
        assert_eq!(training.read("step").unwrap().to_i64s().unwrap(), [10]);
        let losses = Array {
            dims: vec![losses.len()],
            data: losses,
        };
        (losses, Array::of(&training.read("w").unwrap()))
    };
    let (losses, weights) = train(engine.as_ref());
    let (expected_losses, expected_weights) = train(default_engine());
    losses.assert_close(&expected_losses, 1e-5);
    weights.assert_close(&expected_weights, 1e-5);
}

/// Twelve elements of a type, no two of them alike where it has as many.
fn elements(dtype: DataType) -> Tensor {
    if let Some(tensor) = Tensor::floats(dtype, &[3, 4], &noise(8, 12)) {
        return tensor;
    }
    let size = dtype.byte_len(1).unwrap();
    let bytes: Vec<u8> = match dtype {
        DataType::Bool => (0..12).map(|i| u8::from(i % 3 == 0)).collect(),
        _ => (0..12 * size).map(|i| (i * 37 + 11) as u8).collect(),
    };
    Tensor::from_bytes(dtype, &[3, 4], bytes.into())
}

#[test]
fn values_of_all_types_go_in_and_out() {
    let Some(engine) = engine() else { return };
    for dtype in [
        DataType::Float,
        DataType::Double,
        DataType::Float16,
        DataType::Bfloat16,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::Uint8,
        DataType::Uint16,
        DataType::Uint32,
        DataType::Uint64,
        DataType::Bool,
    ] {
        let model = ModelBuilder::new(13)
            .input("x", dtype, "N,4")
            .op("Transpose", &["x"], "y", [])
            .op("Transpose", &["y"], "z", [])
            .output_as("y", dtype, "4,N")
            .output_as("z", dtype, "N,4")
            .finish()
            .unwrap();
        let session = session(engine.as_ref(), &model, &[("x", &[3, 4])]);
        let given = elements(dtype);
        // Weights in a file are not always aligned.
        let mut shifted = vec![0];
        shifted.extend_from_slice(&given.bytes().unwrap());
        let shifted = bytes::Bytes::from(shifted).slice(1..);
        let shifted = Tensor::from_bytes(dtype, &given.dims(), shifted);
        let kept = engine.upload(&given).unwrap();
        assert_eq!(kept.to_tensor().unwrap(), given, "{dtype}");
        for value in [given.clone().into(), shifted.into(), kept] {
            let outputs = session.run(vec![value]).unwrap();
            let turned = outputs[0].to_tensor().unwrap();
            assert_eq!((turned.dtype(), turned.dims()), (dtype, vec![4, 3]));
            assert_ne!(turned.bytes().unwrap(), given.bytes().unwrap(), "{dtype}");
            assert_eq!(outputs[1].tensor_type(), given.tensor_type());
            assert_eq!(outputs[1].to_tensor().unwrap(), given, "{dtype}");
            // What a run has computed goes into the next without being read.
            let again = session.run(vec![outputs[1].clone()]).unwrap();
            assert_eq!(again[1].to_tensor().unwrap(), given, "{dtype}");
        }
    }
    let text = Tensor::from_bytes(DataType::String, &[1], vec![].into());
    let error = engine.upload(&text).unwrap_err();
    assert!(matches!(error, EngineError::DataType(DataType::String)));
}

#[test]
fn values_go_from_one_engine_to_another() {
    let Some(engine) = engine() else { return };
    let model = input(13, "2")
        .op("Add", &["x", "x"], "y", [])
        .output_as("y", DataType::Float, "2")
        .finish()
        .unwrap();
    let mut value = Value::from(counting(&[2]));
    let start = value.clone();
    for engine in [
        engine.as_ref(),
        default_engine(),
        engine.as_ref(),
        engine.as_ref(),
    ] {
        value = session(engine, &model, &[("x", &[2])])
            .run(vec![value])
            .unwrap()
            .remove(0);
    }
    // The sessions are gone; what they have computed is not.
    assert_eq!(f32s(&value), [16.0, 32.0]);
    assert_eq!(f32s(&start), [1.0, 2.0]);
}

#[test]
fn there_may_be_no_inputs_and_no_elements() {
    let Some(engine) = engine() else { return };
    let model = ModelBuilder::new(13)
        .param("w", counting(&[2]))
        .op("Neg", &["w"], "y", [])
        .output_as("y", DataType::Float, "2")
        .finish()
        .unwrap();
    let found = session(engine.as_ref(), &model, &[]).run(vec![]).unwrap();
    assert_eq!(f32s(&found[0]), [-1.0, -2.0]);

    let model = input(13, "N,3")
        .op("Relu", &["x"], "y", [])
        .output_as("y", DataType::Float, "N,3")
        .finish()
        .unwrap();
    let session = session(engine.as_ref(), &model, &[("x", &[0, 3])]);
    let empty = counting(&[0, 3]);
    for value in [empty.clone().into(), engine.upload(&empty).unwrap()] {
        let found = session.run(vec![value]).unwrap()[0].to_tensor().unwrap();
        assert_eq!((found.dims(), found.is_empty()), (vec![0, 3], true));
    }
}

#[test]
fn sessions_check_shapes() {
    let Some(engine) = engine() else { return };
    let network = engine.load(&network()).unwrap();
    let error = |pairs: &[(&str, &[u64])]| {
        let session = network.session(&shapes(pairs), &SessionOptions::default());
        session.unwrap_err().to_string()
    };
    let x: &[u64] = &[1, 3, 8, 8];
    assert_eq!(error(&[]), "input `x` is missing");
    assert_eq!(error(&[("x", x), ("z", x)]), "the model has no input `z`");
    assert_eq!(
        error(&[("x", &[1, 4, 8, 8])]),
        "input `x` is declared float[N,3,H,W], given [1, 4, 8, 8]"
    );
    assert_eq!(
        error(&[("x", &[3, 8])]),
        "input `x` is declared float[N,3,H,W], given [3, 8]"
    );
}

#[test]
fn runs_check_their_inputs() {
    let Some(engine) = engine() else { return };
    let dims = [1, 3, 8, 8];
    let session = session(engine.as_ref(), &network(), &[("x", &dims)]);
    let error = |values: Vec<Value>| session.run(values).unwrap_err();
    assert!(matches!(
        error(vec![]),
        EngineError::InputCount {
            expected: 1,
            given: 0
        }
    ));
    let wrong = counting(&[2, 3, 8, 8]);
    for value in [wrong.clone().into(), engine.upload(&wrong).unwrap()] {
        let error = error(vec![value]);
        assert!(matches!(error, EngineError::InputShape { .. }), "{error}");
    }
    let integers = Tensor::i64s(&dims, vec![1; 192]);
    let error = error(vec![integers.into()]);
    assert_eq!(
        error.to_string(),
        "input `x` is declared float, given int64"
    );
    let named = |names: &[&str]| {
        let pairs = names
            .iter()
            .map(|name| ((*name).to_owned(), counting(&dims)));
        session.run_named(&pairs.collect()).unwrap_err().to_string()
    };
    assert_eq!(named(&[]), "input `x` is missing");
    assert_eq!(named(&["x", "z"]), "the model has no input `z`");
}

#[test]
fn a_tensor_with_too_few_elements_is_an_error() {
    let Some(engine) = engine() else { return };
    let dims = [1, 3, 8, 8];
    let session = session(engine.as_ref(), &network(), &[("x", &dims)]);
    let short = Tensor::from_bytes(DataType::Float, &dims, vec![0; 12].into());
    let error = session.run(vec![short.into()]).unwrap_err();
    assert!(error.to_string().contains("12 bytes"), "{error}");
    for dims in [vec![1 << 40, 1 << 40], vec![1 << 40, 1 << 40, 0]] {
        let huge = Tensor::from_bytes(DataType::Float, &dims, vec![].into());
        assert!(engine.upload(&huge).is_err());
    }
}

#[test]
fn unsupported_operators_are_named() {
    let Some(engine) = engine() else { return };
    let unknown = |domain: &str| {
        input(13, "N")
            .opset("com.example", 1)
            .op("Relu", &["x"], "h", [])
            .op(&format!("{domain}Mystery"), &["h"], "y", [])
            .output_as("y", DataType::Float, "N")
            .finish()
            .unwrap()
    };
    for (domain, op) in [("com.example::", "com.example.Mystery"), ("", "Mystery")] {
        let error = engine.load(&unknown(domain)).unwrap_err();
        let EngineError::Unsupported(parts) = &error else {
            panic!("{error}");
        };
        assert_eq!(parts.len(), 1);
        assert_eq!(
            (parts[0].name.as_str(), parts[0].op.as_deref()),
            ("y", Some(op))
        );
        assert!(
            error.to_string().starts_with(&format!("node `y` ({op}): ")),
            "{error}"
        );
    }
    // A standard operator without an implementation for the type.
    let model = ModelBuilder::new(13)
        .input("x", DataType::Bfloat16, "N")
        .op("Erf", &["x"], "y", [])
        .output_as("y", DataType::Bfloat16, "N")
        .finish()
        .unwrap();
    let error = engine.load(&model).unwrap_err();
    let EngineError::Unsupported(parts) = &error else {
        panic!("{error}");
    };
    assert_eq!(
        (parts[0].name.as_str(), parts[0].op.as_deref()),
        ("y", Some("Erf"))
    );
}

#[test]
fn errors_of_loading_and_running_name_the_node() {
    let Some(engine) = engine() else { return };
    let bad = input(13, "N,4")
        .matmul("x", "product", &[3, 2])
        .output_as("product", DataType::Float, "N,2")
        .finish()
        .unwrap();
    let error = engine.load(&bad).unwrap_err();
    assert!(
        matches!(&error, EngineError::Load { place, .. } if place == "node `product` (MatMul)"),
        "{error}"
    );

    let model = input(13, "N,4")
        .param("shape", Tensor::i64_vec(&[8]))
        .op("Reshape", &["x", "shape"], "flat", [])
        .output_as("flat", DataType::Float, "8")
        .finish()
        .unwrap();
    let network = engine.load(&model).unwrap();
    let run = |rows: u64| {
        let session = network.session(&shapes(&[("x", &[rows, 4])]), &SessionOptions::default());
        session.unwrap().run(vec![counting(&[rows, 4]).into()])
    };
    let error = run(1).unwrap_err();
    assert!(
        matches!(&error, EngineError::Run { place, .. } if place == "node `flat` (Reshape)"),
        "{error}"
    );
    assert!(error.to_string().contains("Input shape:{1,4}"), "{error}");
    // The failed run leaves nothing behind.
    assert_eq!(
        f32s(&run(2).unwrap()[0]),
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    );
}

#[test]
fn what_is_not_a_numeric_tensor_is_an_error() {
    let Some(engine) = engine() else { return };
    let text = ModelBuilder::new(13)
        .input("x", DataType::String, "N")
        .op("Identity", &["x"], "y", [])
        .output_as("y", DataType::String, "N")
        .finish()
        .unwrap();
    let error = engine.load(&text).unwrap_err();
    assert!(matches!(error, EngineError::UntypedInput(name) if name == "x"));

    let sequence = input(13, "N,2")
        .op("SplitToSequence", &["x"], "parts", [])
        .output("parts")
        .finish()
        .unwrap();
    let network = engine.load(&sequence).unwrap();
    let session = network.session(&shapes(&[("x", &[2, 2])]), &SessionOptions::default());
    let error = session
        .unwrap()
        .run(vec![counting(&[2, 2]).into()])
        .unwrap_err();
    assert!(matches!(error, EngineError::Output(name) if name == "parts"));
}

#[test]
fn a_network_turns_into_a_session() {
    let Some(engine) = engine() else { return };
    let model = network();
    let given = inputs_for(&model, 2);
    let shapes = shapes(&[("x", &given["x"].dims())]);
    let options = SessionOptions {
        threads: 2,
        ..SessionOptions::default()
    };
    let session = engine.load(&model).unwrap().into_session(&shapes, &options);
    let session = session.unwrap();
    assert_eq!(
        session.inputs()[0].tensor_type,
        Some(given["x"].tensor_type())
    );
    let names: Vec<_> = session.outputs().iter().map(|o| o.name.as_str()).collect();
    assert_eq!(names, ["logits", "h"]);
    assert_eq!(session.run_named(&given).unwrap()["logits"].dims(), [2, 5]);
}

/// The package for the CPU has no CUDA, and no machine has so many devices.
#[test]
fn a_device_that_it_cannot_use_is_an_error_that_says_what_to_install() {
    let error = onnx_runtime(Device::Cuda(10_000)).unwrap_err();
    let EngineError::Unavailable { reason, .. } = &error else {
        panic!("{error}");
    };
    assert!(reason.contains("pip install onnxruntime"), "{reason}");
}

/// What a process of its own, where the variable says so, reports.
fn report(variable: &str, value: &Path) -> String {
    let mut child = Command::new(env::current_exe().unwrap());
    for name in ["ORT_DYLIB_PATH", "VIRTUAL_ENV", "CONDA_PREFIX"] {
        child.env_remove(name);
    }
    child.args([
        "--exact",
        "--ignored",
        "--nocapture",
        "child_reports_the_library",
    ]);
    let output = child.env(variable, value).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.split_once("reported: "));
    line.unwrap().1.to_owned()
}

#[test]
#[ignore = "other tests run it, as a process of its own"]
fn child_reports_the_library() {
    match onnx_runtime(Device::Cpu) {
        Ok(engine) => println!("reported: {}", engine.name()),
        Err(error @ EngineError::Unavailable { .. }) => println!("reported: {error}"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_library_that_does_not_load_is_an_error() {
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    for file in [
        &text,
        Path::new("/no/such/library.so"),
        Path::new("no-such-library.so"),
    ] {
        let said = report("ORT_DYLIB_PATH", file);
        let start = format!(
            "ONNX Runtime is not available: ORT_DYLIB_PATH is {}: ",
            file.display()
        );
        assert!(
            said.starts_with(&start) && said.len() > start.len(),
            "{said}"
        );
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn another_library_is_an_error() {
    let said = report("ORT_DYLIB_PATH", Path::new("libc.so.6"));
    assert!(
        said.ends_with("not available: libc.so.6: it is not ONNX Runtime"),
        "{said}"
    );
}

#[test]
fn an_environment_without_the_library_is_an_error_that_helps() {
    let said = report("VIRTUAL_ENV", Path::new(env!("CARGO_MANIFEST_DIR")));
    // Unless the system has it.
    assert!(
        said == "ONNX Runtime" || said.contains("`pip install onnxruntime`"),
        "{said}"
    );
}
