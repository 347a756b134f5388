//! A second engine: everything that uses the engine traits works with it like with the default one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bcosc_engine::{
    Encoding, Engine, EngineError, EngineInterpreter, Feedback, InputShapes, Network, Port,
    ProofError, Samples, Sensitivity, Session, SessionOptions, Stored, Unsupported, Value,
    default_engine, prove, run_all,
};
use bcosc_ir::{Interpreter, Model, Tensor, TensorType, Tensors};
use bcosc_testing::input;

/// Multiplies by constants, and counts how often a value is read from its memory.
#[derive(Clone, Debug, Default)]
struct Multiplier {
    reads: Arc<AtomicUsize>,
}

/// y = factor x, on a device of its own.
#[derive(Clone, Debug)]
struct Scaling {
    engine: Multiplier,
    factor: f32,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

#[derive(Debug)]
struct OnDevice {
    dims: Vec<u64>,
    elements: Vec<f32>,
    reads: Arc<AtomicUsize>,
}

impl Stored for OnDevice {
    fn tensor_type(&self) -> TensorType {
        Tensor::f32s(&self.dims, self.elements.clone()).tensor_type()
    }

    fn read(&self) -> Result<Tensor, EngineError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(Tensor::f32s(&self.dims, self.elements.clone()))
    }
}

impl Engine for Multiplier {
    fn name(&self) -> &'static str {
        "multiplier"
    }

    fn load(&self, model: &Model) -> Result<Box<dyn Network>, EngineError> {
        let graph = &model.graph;
        let mut factor = None;
        for id in graph.ops() {
            let operand = graph.input(id, 1).and_then(|value| graph.constant(value));
            match (graph.op(id).map(|op| op.op_type()), operand) {
                (Some("Mul"), Some(constant)) => factor = constant.to_f32s()?.first().copied(),
                (op, _) => {
                    return Err(EngineError::Unsupported(vec![Unsupported {
                        name: graph.label(id),
                        op: op.map(str::to_owned),
                        reason: "it multiplies by constants only".to_owned(),
                    }]));
                }
            }
        }
        let port = |value| Port {
            name: graph.value_name(value).to_owned(),
            tensor_type: graph.value_type(value),
        };
        Ok(Box::new(Scaling {
            engine: self.clone(),
            factor: factor.unwrap_or(1.0),
            inputs: graph.inputs().into_iter().map(port).collect(),
            outputs: graph.outputs().iter().map(|o| port(o.value)).collect(),
        }))
    }

    fn upload(&self, tensor: &Tensor) -> Result<Value, EngineError> {
        Ok(Value::stored(OnDevice {
            dims: tensor.dims(),
            elements: tensor.to_f32s()?,
            reads: self.reads.clone(),
        }))
    }
}

impl Network for Scaling {
    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    fn session(
        &self,
        _: &InputShapes,
        _: &SessionOptions,
    ) -> Result<Box<dyn Session>, EngineError> {
        Ok(Box::new(self.clone()))
    }
}

impl Session for Scaling {
    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    fn run(&self, inputs: Vec<Value>) -> Result<Vec<Value>, EngineError> {
        let scaled = |value: Value| {
            let device = match value.into_stored::<OnDevice>() {
                Ok(device) => device,
                Err(other) => {
                    let uploaded = self.engine.upload(&other.to_tensor()?)?;
                    let own = uploaded.into_stored::<OnDevice>();
                    own.map_err(|_| EngineError::InputCount {
                        expected: 1,
                        given: 0,
                    })?
                }
            };
            let elements = device.elements.iter().map(|x| x * self.factor).collect();
            Ok(Value::stored(OnDevice {
                dims: device.dims.clone(),
                elements,
                reads: self.engine.reads.clone(),
            }))
        };
        inputs.into_iter().map(scaled).collect()
    }
}

fn scaling(factor: f32) -> Model {
    input(13, "N,3")
        .param("factor", Tensor::f32s(&[], vec![factor]))
        .op("Mul", &["x", "factor"], "y", [])
        .output("y")
        .finish()
        .unwrap()
}

#[test]
fn proofs_and_sensitivity_run_on_any_engine() {
    let engine = Multiplier::default();
    let (twice, thrice) = (scaling(2.0), scaling(3.0));
    let inputs = Samples::default().draw(&twice, &Encoding::Raw).unwrap();
    let proof = |candidate: &Model| prove(&engine, &twice, candidate, &inputs, &inputs, 1e-4);
    assert_eq!(proof(&twice).unwrap().overall.max_abs, 0.0);
    assert!(matches!(proof(&thrice), Err(ProofError::Differs(_))));
    let outputs = run_all(&engine, &twice, &inputs).unwrap();
    assert!(Sensitivity::of(&outputs).unwrap().depends_on_input());
    assert_eq!(outputs, run_all(default_engine(), &twice, &inputs).unwrap());
}

#[test]
fn an_engine_names_what_it_does_not_compute() {
    let relu = input(13, "N")
        .op("Relu", &["x"], "y", [])
        .output("y")
        .finish()
        .unwrap();
    let error = run_all(&Multiplier::default(), &relu, &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "node `y` (Relu): it multiplies by constants only"
    );
}

#[test]
fn passes_run_models_on_any_engine() {
    let engine = Multiplier::default();
    let interpreter = EngineInterpreter::new(&engine);
    let x = Tensor::f32s(&[1, 3], vec![1.0, 2.0, 3.0]);
    let found = interpreter.run(&scaling(2.0), &Tensors::from([("x".to_owned(), x)]));
    assert_eq!(found.unwrap()["y"].to_f32s().unwrap(), [2.0, 4.0, 6.0]);
    assert_eq!(engine.reads.load(Ordering::Relaxed), 1);
    // Types are known whatever the engine.
    let facts = interpreter.facts(&scaling(2.0), 1 << 10).unwrap();
    assert_eq!(facts.types["y"].to_string(), "float[N,3]");
}

#[test]
fn state_is_read_on_request_only() {
    let engine = Multiplier::default();
    let network = engine.load(&scaling(2.0)).unwrap();
    let session = network.session(&InputShapes::new(), &SessionOptions::default());
    let start = Tensor::f32s(&[1, 3], vec![1.0, 2.0, 3.0]);
    let start = Tensors::from([("x".to_owned(), start)]);
    let mut doubling = Feedback::new(session.unwrap(), &[("y", "x")], &start).unwrap();
    for _ in 0..5 {
        assert!(doubling.run(&Tensors::new()).unwrap().is_empty());
    }
    assert_eq!(engine.reads.load(Ordering::Relaxed), 0);
    let state = doubling.read("x").unwrap();
    assert_eq!(state.to_f32s().unwrap(), [32.0, 64.0, 96.0]);
    assert_eq!(engine.reads.load(Ordering::Relaxed), 1);
}

#[test]
fn values_go_from_one_engine_to_another() {
    let engine = Multiplier::default();
    let shapes: InputShapes = [("x".to_owned(), vec![1, 3])].into();
    let session = |engine: &dyn Engine| {
        let network = engine.load(&scaling(2.0)).unwrap();
        network
            .session(&shapes, &SessionOptions::default())
            .unwrap()
    };
    let mut value = Value::from(Tensor::f32s(&[1, 3], vec![1.0, 2.0, 3.0]));
    for engine in [&engine as &dyn Engine, default_engine(), &engine] {
        value = session(engine).run(vec![value]).unwrap().remove(0);
    }
    let found = value.to_tensor().unwrap().to_f32s().unwrap();
    assert_eq!(found, [8.0, 16.0, 24.0]);
}
