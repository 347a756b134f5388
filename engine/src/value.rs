//! Tensors in host memory or in the memory of an engine.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bcosc_ir::{Tensor, TensorType};

use crate::EngineError;

/// An input or output of a run: a tensor in host memory, or in the memory of an engine.
/// Clones share the elements.
///
/// The outputs of a run stay in the engine's memory. As inputs of a later run of the same engine they are not
/// copied; another engine reads them first. If a run gets the last clone of a value, the engine can reuse its
/// memory.
#[derive(Clone, Debug)]
pub struct Value(Place);

#[derive(Clone, Debug)]
enum Place {
    Host(Tensor),
    Engine(Arc<dyn Stored>),
}

/// A tensor in the memory of an engine, which knows its own by their type; see [`Value::into_stored`].
pub trait Stored: Any + fmt::Debug + Send + Sync {
    /// Element type and shape.
    fn tensor_type(&self) -> TensorType;

    /// Copies the elements to host memory.
    fn read(&self) -> Result<Tensor, EngineError>;
}

impl From<Tensor> for Value {
    fn from(tensor: Tensor) -> Self {
        Value(Place::Host(tensor))
    }
}

impl Value {
    /// A value in the memory of an engine.
    pub fn stored(value: impl Stored) -> Self {
        Value(Place::Engine(Arc::new(value)))
    }

    /// A value in the memory of an engine, which keeps an eye on it.
    pub fn shared(value: Arc<impl Stored>) -> Self {
        Value(Place::Engine(value))
    }

    /// Element type and shape.
    pub fn tensor_type(&self) -> TensorType {
        match &self.0 {
            Place::Host(tensor) => tensor.tensor_type(),
            Place::Engine(stored) => stored.tensor_type(),
        }
    }

    /// The elements, copied to host memory if they are not there.
    ///
    /// # Errors
    /// If the engine cannot read them.
    pub fn to_tensor(&self) -> Result<Tensor, EngineError> {
        match &self.0 {
            Place::Host(tensor) => Ok(tensor.clone()),
            Place::Engine(stored) => stored.read(),
        }
    }

    /// The value as the engine that keeps values of type `T` knows it; itself if it is not one of those.
    ///
    /// # Errors
    /// The value, where it is in host memory or with another engine.
    pub fn into_stored<T: Stored>(self) -> Result<Arc<T>, Value> {
        let Place::Engine(stored) = self.0 else {
            return Err(self);
        };
        let any: Arc<dyn Any + Send + Sync> = stored.clone();
        match any.downcast() {
            Ok(found) => Ok(found),
            Err(_) => Err(Value(Place::Engine(stored))),
        }
    }
}
