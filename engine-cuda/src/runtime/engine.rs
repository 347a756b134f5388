//! The engine.

use std::sync::Arc;

use bcosc_engine::{
    Device, Engine, EngineError, InputShapes, Network, Port, Precision, Session, SessionOptions,
    Unsupported, Value, ports,
};
use bcosc_ir::{Model, Tensor, TensorType};

use super::compile::Architecture;
use super::gpu::Gpu;
use super::libraries::NAME;
use super::program::Program;
use super::session::CudaSession;
use super::value::CudaValue;
use crate::operators::{Reason, rule};
use crate::plan::{Buffer, plan_in};

/// The first architecture whose tensor cores take TF32 and bf16.
const AMPERE: u32 = 80;

/// Runs models on a CUDA device.
#[derive(Debug)]
pub struct Cuda {
    gpu: Arc<Gpu>,
}

impl Cuda {
    /// Opens a device, the driver and NVIDIA's libraries, where they are installed.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] names what is missing and how to get it; [`EngineError::Device`] for the CPU.
    pub fn new(device: Device) -> Result<Self, EngineError> {
        let Device::Cuda(number) = device else {
            return Err(EngineError::Device {
                engine: NAME,
                device,
            });
        };
        let gpu = Gpu::open(number)?;
        Ok(Cuda { gpu })
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

    fn require(&self, precision: Precision) -> Result<(), EngineError> {
        has(self.gpu.architecture, precision)
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
            inputs: graph.inputs().into_iter().map(port).collect(),
            outputs: outputs.collect(),
            model: model.clone(),
        }))
    }

    fn upload(&self, tensor: &Tensor) -> Result<Value, EngineError> {
        Ok(Value::stored(CudaValue::of(&self.gpu, tensor)?))
    }
}

/// Refuses a precision that tensor cores of an architecture do not have.
fn has(Architecture(own): Architecture, precision: Precision) -> Result<(), EngineError> {
    if precision == Precision::Fp32 || own >= AMPERE {
        return Ok(());
    }
    Err(EngineError::Precision {
        engine: NAME,
        precision,
        reason: format!(
            "this device has compute capability {}.{}, and that takes 8.0 or newer; fp32 works on it",
            own / 10,
            own % 10
        ),
    })
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
        options: &SessionOptions,
    ) -> Result<Box<dyn Session>, EngineError> {
        has(self.gpu.architecture, options.precision)?;
        let mut inputs = self.inputs.clone();
        ports::specialise(&mut inputs, shapes)?;
        let planned = plan_in(&self.model, shapes, options.precision)?;
        let mut outputs = self.outputs.clone();
        for (port, binding) in outputs.iter_mut().zip(&planned.plan.outputs) {
            let buffer = planned.plan.buffers.get(binding.buffer);
            let known = |buffer: &Buffer| TensorType::fixed(buffer.ty.data_type(), &binding.dims);
            port.tensor_type = buffer.map(known);
        }
        let program = Program::load(&self.gpu, planned)?;
        let session = CudaSession::new(&self.gpu, program, inputs, outputs)?;
        Ok(Box::new(session))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_devices_have_single_precision_alone() {
        for precision in Precision::ALL {
            assert!(has(Architecture(80), precision).is_ok());
            assert!(has(Architecture(103), precision).is_ok());
        }
        assert!(has(Architecture(75), Precision::Fp32).is_ok());
        for precision in [Precision::Tf32, Precision::Bf16] {
            let error = has(Architecture(75), precision).unwrap_err();
            assert!(matches!(&error, EngineError::Precision { .. }));
            let text = error.to_string();
            assert!(
                text.contains("7.5") && text.contains("fp32 works"),
                "{text}"
            );
        }
    }
}
