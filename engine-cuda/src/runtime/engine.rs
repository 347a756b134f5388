//! The engine.

use std::sync::Arc;

use bcosc_engine::{
    Device, Engine, EngineError, InputShapes, Network, Port, Session, SessionOptions, Unsupported,
    Value, ports,
};
use bcosc_ir::{Model, Tensor};

use super::Precision;
use super::gpu::Gpu;
use super::libraries::NAME;
use super::program::Program;
use super::session::CudaSession;
use super::value::CudaValue;
use crate::operators::{Reason, rule};
use crate::plan::plan;

/// Runs models on a CUDA device.
#[derive(Debug)]
pub struct Cuda {
    gpu: Arc<Gpu>,
    precision: Precision,
}

impl Cuda {
    /// Opens a device, the driver and NVIDIA's libraries, where they are installed.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] names what is missing and how to get it; [`EngineError::Device`] for the CPU.
    pub fn new(device: Device, precision: Precision) -> Result<Self, EngineError> {
        let Device::Cuda(number) = device else {
            return Err(EngineError::Device {
                engine: NAME,
                device,
            });
        };
        let gpu = Gpu::open(number)?;
        Ok(Cuda { gpu, precision })
    }

    /// The name of the device.
    pub fn device_name(&self) -> &str {
        &self.gpu.name
    }
}

impl Engine for Cuda {
    fn name(&self) -> &'static str {
        NAME
    }

    fn has_markers(&self) -> bool {
        true
    }

    fn load(&self, model: &Model) -> Result<Box<dyn Network>, EngineError> {
        known(model)?;
        let graph = &model.graph;
        let port = |value| Port {
            name: graph.value_name(value).to_owned(),
            tensor_type: graph.value_type(value),
        };
        let outputs = graph.outputs().iter().map(|output| Port {
            name: output.info.name.clone().unwrap_or_default(),
            tensor_type: graph.value_type(output.value),
        });
        Ok(Box::new(CudaNetwork {
            gpu: self.gpu.clone(),
            precision: self.precision,
            inputs: graph.inputs().into_iter().map(port).collect(),
            outputs: outputs.collect(),
            model: model.clone(),
        }))
    }

    fn upload(&self, tensor: &Tensor) -> Result<Value, EngineError> {
        Ok(Value::stored(CudaValue::of(&self.gpu, tensor)?))
    }
}

/// Names the operators that have no rule, whatever the shapes will be.
fn known(model: &Model) -> Result<(), EngineError> {
    let graph = &model.graph;
    let unknown = graph.ops().into_iter().filter_map(|node| {
        let op = graph.op(node)?;
        rule(op.domain(), op.op_type())
            .is_none()
            .then(|| Unsupported {
                name: graph.label(node),
                op: Some(op.kind()),
                reason: Reason::NoRule.to_string(),
            })
    });
    match unknown.collect::<Vec<_>>() {
        parts if parts.is_empty() => Ok(()),
        parts => Err(EngineError::Unsupported(parts)),
    }
}

/// A model for a device. Sessions plan it for their shapes.
#[derive(Debug)]
struct CudaNetwork {
    gpu: Arc<Gpu>,
    precision: Precision,
    model: Model,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

impl Network for CudaNetwork {
    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    fn session(
        &self,
        shapes: &InputShapes,
        _: &SessionOptions,
    ) -> Result<Box<dyn Session>, EngineError> {
        let mut inputs = self.inputs.clone();
        ports::specialise(&mut inputs, shapes)?;
        let program = Program::load(&self.gpu, plan(&self.model, shapes)?, self.precision)?;
        let session = CudaSession::new(&self.gpu, program, inputs, self.outputs.clone())?;
        Ok(Box::new(session))
    }
}
