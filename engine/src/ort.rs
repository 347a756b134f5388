//! A second engine: an installed ONNX Runtime, which is loaded while the program runs.

mod cuda;
mod fault;
mod library;
mod loaded;
mod network;
mod session;
mod tensor;

use bcosc_ir::{Model, Tensor};

use crate::{Device, Engine, EngineError, Network, Value};

/// What messages call the engine.
const NAME: &str = "ONNX Runtime";

/// Runs models with ONNX Runtime on a device.
#[derive(Debug)]
pub(crate) struct OnnxRuntime {
    device: Device,
}

impl OnnxRuntime {
    /// Loads the library. No function of it may be called before: the `ort` crate would panic without it.
    pub fn new(device: Device) -> Result<Self, EngineError> {
        library::load()?;
        if let Device::Cuda(number) = device {
            cuda::check(number)?;
        }
        Ok(OnnxRuntime { device })
    }
}

impl Engine for OnnxRuntime {
    fn name(&self) -> &'static str {
        NAME
    }

    fn load(&self, model: &Model) -> Result<Box<dyn Network>, EngineError> {
        Ok(Box::new(network::OrtNetwork::load(model, self.device)?))
    }

    fn upload(&self, tensor: &Tensor) -> Result<Value, EngineError> {
        Ok(Value::stored(tensor::OrtTensor::on(tensor, self.device)?))
    }
}
