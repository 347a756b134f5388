//! Sessions of the default engine: inputs, stored values, outputs.

use bcosc_engine::{EngineError, Feedback, Session, SessionOptions, Value, default_engine};
use bcosc_ir::{Attribute, DataType, Dim, Model, ModelBuilder, Tensor, Tensors};
use bcosc_testing::{counting, input, weight};

fn session_with(
    model: &Model,
    shapes: &[(&str, &[u64])],
    options: &SessionOptions,
) -> Result<Box<dyn Session>, EngineError> {
    let shapes = shapes
        .iter()
        .map(|(name, dims)| ((*name).to_owned(), dims.to_vec()));
    let network = default_engine().load(model)?;
    network.session(&shapes.collect(), options)
}

fn session(model: &Model, shapes: &[(&str, &[u64])]) -> Box<dyn Session> {
    session_with(model, shapes, &SessionOptions::default()).unwrap()
}

fn names(ports: &[bcosc_engine::Port]) -> Vec<&str> {
    ports.iter().map(|port| port.name.as_str()).collect()
}

/// y = x w, with the batch open.
fn linear() -> Model {
    input(13, "N,2")
        .param("w", Tensor::f32s(&[2, 1], vec![1.0, 10.0]))
        .op("MatMul", &["x", "w"], "y", [])
        .output("y")
        .finish()
        .unwrap()
}

#[test]
fn a_session_runs_many_times() {
    let model = input(13, "N,3")
        .param("w", weight(1, &[3, 2]))
        .op("MatMul", &["x", "w"], "h", [])
        .op("Relu", &["h"], "y", [])
        .output("y")
        .output("h")
        .finish()
        .unwrap();
    let session = session(&model, &[("x", &[2, 3])]);
    assert_eq!(names(session.outputs()), ["y", "h"]);
    let weights = weight(1, &[3, 2]).to_f32s().unwrap();
    for seed in 0..3 {
        let x = weight(seed, &[2, 3]);
        let found = session.run(vec![x.clone().into()]).unwrap();
        let [y, h] = [&found[0], &found[1]].map(|v| v.to_tensor().unwrap().to_f32s().unwrap());
        let x = x.to_f32s().unwrap();
        for row in 0..2 {
            for column in 0..2 {
                let products = (0..3).map(|k| x[3 * row + k] * weights[2 * k + column]);
                let sum: f32 = products.sum();
                assert!((sum - h[2 * row + column]).abs() < 1e-6);
            }
        }
        let relu: Vec<f32> = h.iter().map(|x| x.max(0.0)).collect();
        assert_eq!(y, relu);
    }
}

#[test]
fn sessions_of_one_network_have_shapes_of_their_own() {
    let network = default_engine().load(&linear()).unwrap();
    assert_eq!(names(network.inputs()), ["x"]);
    let declared = network.inputs()[0].tensor_type.clone().unwrap();
    assert_eq!(declared.to_string(), "float[N,2]");
    for batch in 1..4 {
        let shapes = [("x".to_owned(), vec![batch, 2])].into();
        let session = network.session(&shapes, &SessionOptions::default());
        let session = session.unwrap();
        let y = &session.run(vec![counting(&[batch, 2]).into()]).unwrap()[0];
        let y = y.to_tensor().unwrap();
        assert_eq!(y.dims(), [batch, 1]);
        assert_eq!(y.to_f32s().unwrap()[0], 21.0);
        let known = |port: &bcosc_engine::Port| port.tensor_type.clone().unwrap().shape.unwrap();
        assert_eq!(known(&session.inputs()[0])[0], Dim::Known(batch));
        assert_eq!(known(&session.outputs()[0])[0], Dim::Known(batch));
    }
}

#[test]
fn outputs_go_back_in_without_being_read() {
    let model = input(13, "2")
        .op("Add", &["x", "x"], "y", [])
        .output("y")
        .finish()
        .unwrap();
    let session = session(&model, &[("x", &[2])]);
    let mut value = default_engine().upload(&counting(&[2])).unwrap();
    let kept = value.clone();
    for _ in 0..10 {
        value = session.run(vec![value]).unwrap().remove(0);
    }
    let doubled = |value: &Value| value.to_tensor().unwrap().to_f32s().unwrap();
    assert_eq!(doubled(&value), [1024.0, 2048.0]);
    // A run does not write over what someone else still has.
    assert_eq!(doubled(&kept), [1.0, 2.0]);
}

#[test]
fn values_that_stay_compute_what_values_that_are_read_do() {
    for dtype in [
        DataType::Float,
        DataType::Double,
        DataType::Float16,
        DataType::Bfloat16,
    ] {
        let third = Tensor::floats(dtype, &[], &[1.0 / 3.0]).unwrap();
        let model = ModelBuilder::new(13)
            .input("x", dtype, "4")
            .param("third", third)
            .op("Mul", &["x", "third"], "h", [])
            .op(
                "Cast",
                &["h"],
                "y",
                [Attribute::int("to", dtype.to_i32().into())],
            )
            .output_as("y", dtype, "4")
            .finish()
            .unwrap();
        let session = session(&model, &[("x", &[4])]);
        let start = Tensor::floats(dtype, &[4], &[1.0, -7.0, 0.1, 1e3]).unwrap();
        let (mut kept, mut read) = (Value::from(start.clone()), start);
        for _ in 0..3 {
            kept = session.run(vec![kept]).unwrap().remove(0);
            read = session.run(vec![read.into()]).unwrap()[0]
                .to_tensor()
                .unwrap();
        }
        assert_eq!(kept.tensor_type(), read.tensor_type());
        assert_eq!(kept.to_tensor().unwrap(), read, "{dtype}");
    }
}

#[test]
fn rounding_to_16_bits_can_be_left_out() {
    let dtype = DataType::Float16;
    let model = ModelBuilder::new(13)
        .input("x", dtype, "1")
        .op("Exp", &["x"], "y", [])
        .output_as("y", dtype, "1")
        .finish()
        .unwrap();
    let one = Tensor::floats(dtype, &[1], &[1.0]).unwrap();
    let output = |unrounded: bool| {
        let options = SessionOptions {
            unrounded,
            ..SessionOptions::default()
        };
        let session = session_with(&model, &[("x", &[1])], &options).unwrap();
        let declared = session.outputs()[0].tensor_type.clone().unwrap();
        let y = session.run(vec![one.clone().into()]).unwrap()[0].to_tensor();
        let y = y.unwrap();
        assert_eq!(declared.dtype, y.dtype());
        (y.dtype(), y.to_f64s().unwrap()[0])
    };
    let (rounded, exact) = (output(false), output(true));
    assert_eq!((rounded.0, exact.0), (dtype, DataType::Float));
    assert!((exact.1 - 1f64.exp()).abs() < 1e-6);
    assert!((rounded.1 - 1f64.exp()).abs() > 1e-4);
}

/// One step of gradient descent with momentum on (w x - t)^2 / 2:
/// g = (w x - t) x, m' = m / 2 + g, w' = w - m' / 4.
fn training_step() -> Model {
    input(13, "1")
        .input("t", DataType::Float, "1")
        .input("w", DataType::Float, "1")
        .input("m", DataType::Float, "1")
        .param("half", Tensor::f32s(&[], vec![0.5]))
        .param("rate", Tensor::f32s(&[], vec![0.25]))
        .op("Mul", &["w", "x"], "y", [])
        .op("Sub", &["y", "t"], "error", [])
        .op("Mul", &["error", "x"], "g", [])
        .op("Mul", &["m", "half"], "faded", [])
        .op("Add", &["faded", "g"], "m_next", [])
        .op("Mul", &["m_next", "rate"], "move", [])
        .op("Sub", &["w", "move"], "w_next", [])
        .op("Mul", &["error", "error"], "squared", [])
        .op("Mul", &["squared", "half"], "loss", [])
        .output("w_next")
        .output("loss")
        .output("m_next")
        .finish()
        .unwrap()
}

fn numbers(values: &[(&str, f32)]) -> Tensors {
    let tensor = |x: f32| Tensor::f32s(&[1], vec![x]);
    values
        .iter()
        .map(|&(name, x)| (name.to_owned(), tensor(x)))
        .collect()
}

#[test]
fn state_stays_between_steps() {
    let one: &[u64] = &[1];
    let session = session(
        &training_step(),
        &[("x", one), ("t", one), ("w", one), ("m", one)],
    );
    let pairs = [("w_next", "w"), ("m_next", "m")];
    let start = numbers(&[("w", 0.5), ("m", 0.0)]);
    let mut training = Feedback::new(session, &pairs, &start).unwrap();
    let (mut w, mut m) = (0.5f32, 0.0f32);
    for step in 0..20 {
        let (x, t) = (1.0 + step as f32 / 10.0, 3.0);
        let outputs = training.run(&numbers(&[("x", x), ("t", t)])).unwrap();
        assert_eq!(outputs.keys().collect::<Vec<_>>(), ["loss"]);
        let loss = outputs["loss"].to_tensor().unwrap().to_f32s().unwrap()[0];
        let error = w * x - t;
        assert!((loss - error * error / 2.0).abs() < 1e-5, "step {step}");
        m = m / 2.0 + error * x;
        w -= m / 4.0;
    }
    let read = |name: &str| training.read(name).unwrap().to_f32s().unwrap()[0];
    assert!((read("w") - w).abs() < 1e-4 && (read("m") - m).abs() < 1e-4);
    assert!(matches!(training.read("x"), Err(EngineError::UnknownInput(name)) if name == "x"));
}

#[test]
fn feedback_names_what_is_not_there() {
    let one: &[u64] = &[1];
    let ports = [("x", one), ("t", one), ("w", one), ("m", one)];
    let make = |pair: (&str, &str), start: &Tensors| {
        let session = session(&training_step(), &ports);
        Feedback::new(session, &[pair], start)
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    let start = numbers(&[("w", 0.5)]);
    assert_eq!(make(("v", "w"), &start), "the model has no output `v`");
    assert_eq!(make(("w_next", "v"), &start), "the model has no input `v`");
    assert_eq!(make(("m_next", "m"), &start), "input `m` is missing");

    let session = session(&training_step(), &ports);
    let mut training = Feedback::new(session, &[("w_next", "w")], &start).unwrap();
    let partial = numbers(&[("x", 1.0), ("t", 1.0)]);
    let missing = training.run(&partial).unwrap_err();
    assert_eq!(missing.to_string(), "input `m` is missing");
}

#[test]
fn runs_check_their_inputs() {
    let session = session(&linear(), &[("x", &[1, 2])]);
    let error = |inputs: Vec<Value>| session.run(inputs).unwrap_err();
    assert!(matches!(
        error(vec![]),
        EngineError::InputCount {
            expected: 1,
            given: 0
        }
    ));
    let kept = |tensor: Tensor| default_engine().upload(&tensor).unwrap();
    for wrong in [counting(&[2, 2]), counting(&[2])] {
        for value in [wrong.clone().into(), kept(wrong)] {
            let error = error(vec![value]);
            assert!(matches!(error, EngineError::InputShape { .. }), "{error}");
        }
    }
    let integers = Tensor::i64s(&[1, 2], vec![1, 2]);
    for value in [integers.clone().into(), kept(integers)] {
        let error = error(vec![value]);
        assert_eq!(
            error.to_string(),
            "input `x` is declared float, given int64"
        );
    }
    let both: Tensors = ["x", "z"]
        .map(|name| (name.to_owned(), counting(&[1, 2])))
        .into();
    let stranger = session.run_named(&both).unwrap_err();
    assert!(matches!(stranger, EngineError::UnknownInput(name) if name == "z"));
    assert!(matches!(
        session.run_named(&Tensors::new()),
        Err(EngineError::MissingInput(name)) if name == "x"
    ));
}

#[test]
fn what_the_engine_does_not_take_is_typed() {
    let mystery = input(13, "N")
        .op("com.example::Mystery", &["x"], "y", [])
        .output("y")
        .finish()
        .unwrap();
    let Err(EngineError::Unsupported(parts)) = default_engine().load(&mystery) else {
        panic!("an unknown operator was loaded");
    };
    assert_eq!(parts.len(), 1);
    let part = &parts[0];
    assert_eq!(
        (part.name.as_str(), part.op.as_deref()),
        ("y", Some("com.example.Mystery"))
    );
    let text = Tensor::from_bytes(DataType::String, &[1], vec![].into());
    assert!(matches!(
        default_engine().upload(&text),
        Err(EngineError::DataType(DataType::String))
    ));
}
