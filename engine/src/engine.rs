//! The seam between bcosc and what runs models.
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
//! What a run puts out stays with the engine until it is read; see [`Value`]. [`crate::Feedback`] keeps the
//! state of a training loop there.

use std::collections::BTreeMap;
use std::fmt;

use bcosc_ir::{Model, Tensor, TensorType, Tensors};

use crate::{EngineError, Value};

/// The shape of each input, by name.
pub type InputShapes = BTreeMap<String, Vec<u64>>;

/// Something that runs ONNX models.
///
/// To be one, an engine has to compute what the operators of the ONNX standard say, and refuse the model with
/// [`EngineError::Unsupported`] where it would not. Outputs depend on the model and the inputs alone: not on the
/// number of threads, nor on what ran before or runs at the same time.
pub trait Engine: fmt::Debug + Send + Sync {
    /// Its name, for messages.
    fn name(&self) -> &'static str;

    /// Takes in a model's graph and weights, for inputs of any shape that it declares.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] names the nodes that the engine cannot compute.
    fn load(&self, model: &Model) -> Result<Box<dyn Network>, EngineError>;

    /// Takes a tensor into the engine's memory, for inputs that are the same in many runs.
    ///
    /// # Errors
    /// Where the engine does not have its element type, or no memory.
    fn upload(&self, tensor: &Tensor) -> Result<Value, EngineError>;
}

/// A model in an engine's memory.
pub trait Network: fmt::Debug + Send + Sync {
    /// What has to be fed, in the order of the graph, as the model declares it. Inputs that have an initializer
    /// are not among them.
    fn inputs(&self) -> &[Port];

    /// What is computed, in the order of the graph, as the model declares it.
    fn outputs(&self) -> &[Port];

    /// Prepares the network for inputs of these shapes. Sessions share what they can of its weights.
    ///
    /// # Errors
    /// Where a shape is missing, belongs to no input or does not fit its declaration, or the graph makes no
    /// sense for the shapes.
    fn session(
        &self,
        shapes: &InputShapes,
        options: &SessionOptions,
    ) -> Result<Box<dyn Session>, EngineError>;

    /// As [`Network::session`], giving up the network, so that weights need not be kept in two forms.
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

/// A network that is ready to run on inputs of fixed shapes. Threads can share it; runs do not know one another.
pub trait Session: fmt::Debug + Send + Sync {
    /// What has to be fed, in the order of the graph; all shapes are known.
    fn inputs(&self) -> &[Port];

    /// What is computed, in the order of the graph.
    fn outputs(&self) -> &[Port];

    /// Computes the outputs from one value for each input, both in the order of the graph.
    ///
    /// # Errors
    /// Where an input is missing or of another type or shape, or the computation fails.
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
    /// What is known of its type.
    pub tensor_type: Option<TensorType>,
}

/// How a session runs. What it computes does not depend on this, but for [`SessionOptions::unrounded`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// How many threads one run may use at most; 1 by default, which is best where many runs go side by side. The
    /// default engine always runs on the caller's thread alone.
    pub threads: usize,
    /// Whether outputs that are declared with 16 bits are left in single precision by an engine that computes
    /// them so. Comparisons see more that way.
    pub unrounded: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            threads: 1,
            unrounded: false,
        }
    }
}
