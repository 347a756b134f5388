//! Runs.

use std::borrow::Cow;
use std::sync::Arc;

use ort::value::DynTensorValueType;

use super::loaded::Loaded;
use super::tensor::{Operand, OrtTensor};
use super::{cuda, fault};
use crate::{Device, EngineError, Port, Session, Value, ports};

/// A model with inputs of fixed shapes.
#[derive(Debug)]
pub(crate) struct OrtSession {
    loaded: Arc<Loaded>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

impl OrtSession {
    /// A session whose inputs have the shapes of `inputs`.
    pub fn new(loaded: Arc<Loaded>, inputs: Vec<Port>, outputs: Vec<Port>) -> Self {
        OrtSession {
            loaded,
            inputs,
            outputs,
        }
    }
}

impl Session for OrtSession {
    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    fn run(&self, inputs: Vec<Value>) -> Result<Vec<Value>, EngineError> {
        ports::check(&self.inputs, &inputs)?;
        let operands = inputs.into_iter().map(Operand::of);
        let operands: Vec<Operand> = operands.collect::<Result<_, _>>()?;
        if let Device::Cuda(number) = self.loaded.device {
            let bound = self.inputs.iter().zip(&operands);
            let bound = bound.map(|(port, operand)| Ok((port, operand.view()?)));
            let bound: Vec<_> = bound.collect::<Result<_, EngineError>>()?;
            let mut session = self.loaded.session();
            let computed = cuda::run(&mut session, number, &bound, &self.outputs)?;
            let stored = computed.into_iter().zip(&self.outputs);
            return stored
                .map(|(tensor, port)| {
                    let stored = OrtTensor::computed(tensor);
                    let stored = stored.ok_or_else(|| EngineError::Output(port.name.clone()))?;
                    Ok(Value::stored(stored))
                })
                .collect();
        }
        let named = self.inputs.iter().zip(&operands);
        let named = named.map(|(port, operand)| Ok((Cow::from(&port.name), operand.view()?)));
        let named: Vec<_> = named.collect::<Result<_, EngineError>>()?;
        let mut session = self.loaded.session();
        let computed = session.run(named).map_err(|e| fault::running(&e))?;
        let computed = computed.into_iter().zip(&self.outputs);
        computed
            .map(|((_, value), port)| {
                let tensor = value.downcast::<DynTensorValueType>().ok();
                let stored = tensor.and_then(OrtTensor::computed);
                let stored = stored.ok_or_else(|| EngineError::Output(port.name.clone()))?;
                Ok(Value::stored(stored))
            })
            .collect()
    }
}
