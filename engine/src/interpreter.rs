//! The interpreter of the passes, implemented with an engine.

use bcosc_ir::{Facts, Interpreter, InterpreterError, Model, Tensors};

use crate::{Engine, SessionOptions, default_engine, facts};

/// Evaluates graphs for passes. The engine computes values; types, shapes and constants are inferred by the same rules
/// for every engine, and graphs without inputs, which are small, are always computed by the default engine.
///
/// Inference does not load large weights. A model that is run is loaded once and then released, since passes run
/// each model only once.
#[derive(Clone, Copy, Debug)]
pub struct EngineInterpreter<'e> {
    engine: &'e dyn Engine,
}

impl<'e> EngineInterpreter<'e> {
    /// An interpreter with this engine.
    pub const fn new(engine: &'e dyn Engine) -> Self {
        EngineInterpreter { engine }
    }
}

impl Interpreter for EngineInterpreter<'_> {
    fn facts(&self, model: &Model, largest_constant: u64) -> Result<Facts, InterpreterError> {
        facts(model, largest_constant).map_err(InterpreterError::new)
    }

    fn run(&self, model: &Model, inputs: &Tensors) -> Result<Tensors, InterpreterError> {
        let shapes = inputs
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.dims()))
            .collect();
        let engine = match inputs.is_empty() {
            true => default_engine(),
            false => self.engine,
        };
        let network = engine.load(model).map_err(InterpreterError::new)?;
        let session = network.into_session(&shapes, &SessionOptions::default());
        let outputs = session.and_then(|session| session.run_named(inputs));
        outputs.map_err(InterpreterError::new)
    }
}
