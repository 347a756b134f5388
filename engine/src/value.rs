//! Tensors that stay where they are.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bcosc_ir::{Tensor, TensorType};

use crate::EngineError;

/// What goes into a run and comes out of it: a tensor in host memory, or one that lies wherever an engine
/// keeps it. Clones share the elements.
///
/// The outputs of a run stay with the engine. Fed to a later run, of any session of that engine, they are not
/// copied; another engine reads them first. A value that is given up to a run, with no clone left elsewhere,
/// leaves its memory to the engine.
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
    /// Where the engine cannot read them.
    pub fn to_tensor(&self) -> Result<Tensor, EngineError> {
        match &self.0 {
            Place::Host(tensor) => Ok(tensor.clone()),
            Place::Engine(stored) => stored.read(),
        }
    }

    /// The value as the engine that keeps values of type `T` knows it; itself if it is not one of those.
    ///
    /// # Errors
    /// The value, where it lies in host memory or with another engine.
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
