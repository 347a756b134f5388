//! Running graphs on the CPU with tract.

mod activations;
mod attention;
mod branches;
mod constants;
mod conv_transpose;
mod facts;
mod guard;
mod infer;
mod load;
mod misread;
mod nodes;
mod output_shape;
mod resize;
mod sequences;
mod session;
mod symbols;
mod tensor;

use bcosc_ir::{Facts, Interpreter, InterpreterError, Model, Tensors};

pub use session::{InputShapes, Network, Session};

/// Infers and evaluates ONNX graphs with tract.
///
/// Results depend on the model and the inputs alone, not on the number of threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tract;

impl Interpreter for Tract {
    /// Infers what can be inferred: a node that tract does not know or cannot analyse leaves its
    /// outputs open. Initializers are not among the facts, since the model knows them, and a
    /// symbolic element that is no size (the -1 of a reshape) is [`bcosc_ir::Dim::Unknown`].
    fn facts(&self, model: &Model, largest_constant: u64) -> Result<Facts, InterpreterError> {
        facts::facts(model, largest_constant)
    }

    fn run(&self, model: &Model, inputs: &Tensors) -> Result<Tensors, InterpreterError> {
        let shapes = inputs
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.dims()))
            .collect();
        Session::new(model, &shapes)?.run(inputs)
    }
}
