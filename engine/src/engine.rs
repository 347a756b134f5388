//! The interface between bcosc and the engines that run models.
//!
//! An [`Engine`] loads a model's graph and weights into a [`Network`]. A network makes a [`Session`] for inputs
//! of given shapes. A session runs, any number of times and on any thread:
//!
//! ```
//! use bcosc_engine::{EngineError, SessionOptions, default_engine};
//! use bcosc_ir::{Model, Tensor};
//!
//! fn logits(model: &Model, image: Tensor) -> Result<Tensor, EngineError> {
//!     let network = default_engine().load(model)?;
//!     let shapes = [("image".to_owned(), image.dims())].into();
//!     let session = network.session(&shapes, &SessionOptions::default())?;
//!     session.run(vec![image.into()])?[0].to_tensor()
//! }
//! ```
//!
//! What a run outputs stays with the engine until it is read; see [`Value`]. [`crate::Feedback`] keeps the
//! state of a training loop there.

use std::collections::BTreeMap;
use std::fmt;

use bcosc_ir::{Model, Tensor, TensorType, Tensors};

use crate::{EngineError, Precision, Value};

/// The shape of each input, by name.
pub type InputShapes = BTreeMap<String, Vec<u64>>;

/// An engine that runs ONNX models.
///
/// An engine must compute operators as the ONNX standard defines them, and reject the model with
/// [`EngineError::Unsupported`] if it cannot. Outputs depend on the model and the inputs only, not on the
/// number of threads, or on earlier or concurrent runs.
pub trait Engine: fmt::Debug + Send + Sync {
    /// Its name, for messages.
    fn name(&self) -> &'static str;

    /// Whether it also computes the operators of the domain `bcosc` that stand for whole gradients of convolutions.
    fn has_markers(&self) -> bool {
        false
    }

    /// Checks that its sessions can have a precision, before anything else is done.
    ///
    /// # Errors
    /// [`EngineError::Precision`] if not.
    fn require(&self, precision: Precision) -> Result<(), EngineError> {
        precision.require_single(self.name())
    }

    /// Loads a model's graph and weights, for inputs of any shape that it declares.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] names the nodes that the engine cannot compute.
    fn load(&self, model: &Model) -> Result<Box<dyn Network>, EngineError>;

    /// Copies a tensor into the engine's memory, for inputs that are the same in many runs.
    ///
    /// # Errors
    /// If the engine does not have its element type, or no memory.
    fn upload(&self, tensor: &Tensor) -> Result<Value, EngineError>;
}

/// A model in an engine's memory.
pub trait Network: fmt::Debug + Send + Sync {
    /// The inputs as the model declares them, in the order of the graph, without those that have an
    /// initializer.
    fn inputs(&self) -> &[Port];

    /// The outputs as the model declares them, in the order of the graph.
    fn outputs(&self) -> &[Port];

    /// Prepares the network for inputs of these shapes. Sessions share weights where possible.
    ///
    /// # Errors
    /// If a shape is missing, belongs to no input or does not fit its declaration, or the graph makes no
    /// sense for the shapes.
    fn session(
        &self,
        shapes: &InputShapes,
        options: &SessionOptions,
    ) -> Result<Box<dyn Session>, EngineError>;

    /// As [`Network::session`], but consumes the network, so that weights need not be kept in two forms.
    ///
    /// # Errors
    /// As [`Network::session`].
    fn into_session(
        self: Box<Self>,
        shapes: &InputShapes,
        options: &SessionOptions,
    ) -> Result<Box<dyn Session>, EngineError> {
        self.session(shapes, options)
    }
}

/// A network that is ready to run on inputs of fixed shapes. Threads can share it; runs are independent.
pub trait Session: fmt::Debug + Send + Sync {
    /// The inputs, in the order of the graph; all shapes are known.
    fn inputs(&self) -> &[Port];

    /// The outputs, in the order of the graph; shapes that follow from those of the inputs are known.
    fn outputs(&self) -> &[Port];

    /// Computes the outputs from one value for each input, both in the order of the graph.
    ///
    /// # Errors
    /// If an input is missing or of another type or shape, or the computation fails.
    fn run(&self, inputs: Vec<Value>) -> Result<Vec<Value>, EngineError>;

    /// As [`Session::run`], with all inputs and outputs by name and in host memory.
    ///
    /// # Errors
    /// As [`Session::run`], and where an input is not one of the model's.
    fn run_named(&self, inputs: &Tensors) -> Result<Tensors, EngineError> {
        let mut values = Vec::with_capacity(inputs.len());
        for Port { name, .. } in self.inputs() {
            let given = inputs.get(name);
            let given = given.ok_or_else(|| EngineError::MissingInput(name.clone()))?;
            values.push(Value::from(given.clone()));
        }
        let is_input = |name: &&String| self.inputs().iter().any(|port| port.name == **name);
        if let Some(stranger) = inputs.keys().find(|name| !is_input(name)) {
            return Err(EngineError::UnknownInput(stranger.clone()));
        }
        let outputs = self.run(values)?;
        let named = self.outputs().iter().zip(outputs);
        named
            .map(|(port, value)| Ok((port.name.clone(), value.to_tensor()?)))
            .collect()
    }
}

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its type, as far as known.
    pub tensor_type: Option<TensorType>,
}

/// Options of a session. Only [`SessionOptions::unrounded`] and [`SessionOptions::precision`] affect the results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// Maximum number of threads of one run; 1 by default, which is best for many concurrent runs. The
    /// default engine always runs on the caller's thread.
    pub threads: usize,
    /// Whether an engine that computes in single precision returns 16-bit outputs without rounding, for more precise
    /// comparisons.
    pub unrounded: bool,
    /// How products are rounded. An engine, or a device, that does not have it refuses it with [`EngineError::Precision`].
    pub precision: Precision,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            threads: 1,
            unrounded: false,
            precision: Precision::default(),
        }
    }
}
