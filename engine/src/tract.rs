//! The default engine: tract, which runs on the CPU.

mod attention_shape;
mod broadcast;
mod choice;
mod conditions;
mod constants;
mod conv_transpose;
mod deconvolution;
mod facts;
mod fault;
mod fold;
mod infer;
mod load;
mod lower;
mod network;
mod node;
mod operators;
mod refused;
mod rewrite;
mod rule;
mod session;
mod shared;
mod splice;
mod symbols;
mod tensor;
mod typed;
mod value;

use std::sync::Arc;

use bcosc_ir::{Model, Tensor};

use crate::{Engine, EngineError, Network, Value};

pub(crate) use facts::facts;
use shared::Shared;

/// What messages call the engine.
const NAME: &str = "tract";

/// Runs models with tract; half precision and bfloat16 are computed in single precision.
#[derive(Clone, Debug)]
pub(crate) struct Tract {
    shared: Option<Arc<Shared>>,
}

impl Tract {
    pub const fn new() -> Self {
        Tract { shared: None }
    }

    /// Networks share the weights that they have in common with a model.
    pub fn sharing(model: &Model) -> Self {
        let shared = Some(Arc::new(Shared::of(model)));
        Tract { shared }
    }
}

impl Engine for Tract {
    fn name(&self) -> &'static str {
        NAME
    }

    fn load(&self, model: &Model) -> Result<Box<dyn Network>, EngineError> {
        Ok(Box::new(network::TractNetwork::load(
            model,
            self.shared.as_ref(),
        )?))
    }

    fn upload(&self, tensor: &Tensor) -> Result<Value, EngineError> {
        Ok(Value::stored(value::TractValue::of(tensor)?))
    }
}
