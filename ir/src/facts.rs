//! The interface between passes and the engine that evaluates graphs.

use std::collections::BTreeMap;

use crate::{Dim, Model, Tensor, TensorType};

/// Facts about a graph's values, inferred without inputs, by value name.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Element types and shapes.
    pub types: BTreeMap<String, TensorType>,
    /// Values that do not depend on the graph's inputs.
    pub constants: BTreeMap<String, Tensor>,
    /// Integer scalars and vectors that depend on symbolic sizes only, such as the output of `Shape`.
    pub symbolic: BTreeMap<String, Vec<Dim>>,
}

/// Tensors by value name.
pub type Tensors = BTreeMap<String, Tensor>;

/// Runs ONNX graphs on behalf of passes.
pub trait Interpreter {
    /// Infers types and shapes of all values and evaluates what is constant.
    ///
    /// Constants larger than `largest_constant` bytes are left out.
    fn facts(&self, model: &Model, largest_constant: u64) -> Result<Facts, InterpreterError>;

    /// Infers the types of all values, records them in the graph, and returns what is known.
    fn infer(&self, model: &mut Model, largest_constant: u64) -> Result<Facts, InterpreterError> {
        let facts = self.facts(model, largest_constant)?;
        for id in model.graph.unordered().collect::<Vec<_>>() {
            for slot in 0..model.graph.output_count(id) {
                let value = model.graph.output(id, slot);
                if let Some(found) = facts.types.get(model.graph.value_name(value)) {
                    model.graph.set_value_type(value, found.clone());
                }
            }
        }
        Ok(facts)
    }

    /// Computes the graph's outputs (by name) from its inputs (by name).
    fn run(&self, model: &Model, inputs: &Tensors) -> Result<Tensors, InterpreterError>;
}

/// The interpreter failed to load or run a graph.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct InterpreterError(Box<dyn std::error::Error + Send + Sync>);

impl InterpreterError {
    /// An error of an interpreter.
    pub fn new(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        InterpreterError(Box::new(source))
    }
}
