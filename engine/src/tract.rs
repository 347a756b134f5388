//! The default engine: tract, which runs on the CPU.

mod attention_shape;
mod conditions;
mod constants;
mod conv_transpose;
mod facts;
mod fault;
mod infer;
mod load;
mod network;
mod node;
mod operators;
mod refused;
mod rewrite;
mod session;
mod symbols;
mod tensor;
mod value;

use bcosc_ir::{Model, Tensor};

use crate::{Engine, EngineError, Network, Value};

pub(crate) use facts::facts;

/// Runs models with tract; half precision and bfloat16 are computed in single precision.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tract;

impl Engine for Tract {
    fn name(&self) -> &'static str {
        "tract"
    }

    fn load(&self, model: &Model) -> Result<Box<dyn Network>, EngineError> {
        Ok(Box::new(network::TractNetwork::load(model)?))
    }

    fn upload(&self, tensor: &Tensor) -> Result<Value, EngineError> {
        Ok(Value::stored(value::TractValue::of(tensor)?))
    }
}
