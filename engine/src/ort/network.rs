//! A model, and the sessions that share it.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bcosc_ir::{Model, TensorType};

use super::NAME;
use super::loaded::Loaded;
use super::session::OrtSession;
use super::tensor::is_numeric;
use crate::{Device, EngineError, InputShapes, Network, Port, Session, SessionOptions, ports};

/// A model in ONNX Runtime's memory, once for each number of threads that it runs on.
#[derive(Debug)]
pub(crate) struct OrtNetwork {
    model: Model,
    device: Device,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    by_threads: Mutex<BTreeMap<usize, Arc<Loaded>>>,
}

impl OrtNetwork {
    /// Loads the model for all threads of the machine, which most sessions run on; only then is it known what ONNX Runtime does
    /// not compute.
    pub fn load(model: &Model, device: Device) -> Result<Self, EngineError> {
        let network = OrtNetwork {
            inputs: inputs(model)?,
            outputs: outputs(model)?,
            model: model.clone(),
            device,
            by_threads: Mutex::default(),
        };
        network.loaded(thread::available_parallelism().map_or(1, NonZero::get))?;
        Ok(network)
    }

    fn loaded(&self, threads: usize) -> Result<Arc<Loaded>, EngineError> {
        let mut by_threads = self
            .by_threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = by_threads.get(&threads) {
            return Ok(found.clone());
        }
        // What no session has makes room.
        by_threads.retain(|_, loaded| Arc::strong_count(loaded) > 1);
        let loaded = Arc::new(Loaded::new(&self.model, threads, self.device)?);
        by_threads.insert(threads, loaded.clone());
        Ok(loaded)
    }
}

impl Network for OrtNetwork {
    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Whether the graph makes sense for the shapes shows in the first run.
    fn session(
        &self,
        shapes: &InputShapes,
        options: &SessionOptions,
    ) -> Result<Box<dyn Session>, EngineError> {
        options.precision.require_single(NAME)?;
        let mut inputs = self.inputs.clone();
        ports::specialise(&mut inputs, shapes)?;
        let loaded = self.loaded(options.threads.max(1))?;
        Ok(Box::new(OrtSession::new(
            loaded,
            inputs,
            self.outputs.clone(),
        )))
    }
}

/// The inputs as the model declares them.
fn inputs(model: &Model) -> Result<Vec<Port>, EngineError> {
    let graph = &model.graph;
    let inputs = graph.inputs().into_iter().map(|value| {
        let name = graph.value_name(value).to_owned();
        match graph.value_type(value) {
            Some(declared) if is_numeric(declared.dtype) => Ok(Port {
                name,
                tensor_type: Some(declared),
            }),
            _ => Err(EngineError::UntypedInput(name)),
        }
    });
    inputs.collect()
}

/// The outputs as the model declares them. The `ort` crate takes for granted that it knows all types there are.
fn outputs(model: &Model) -> Result<Vec<Port>, EngineError> {
    let outputs = model.graph.outputs().iter().map(|output| {
        let name = model.graph.value_name(output.value).to_owned();
        let declared = output.info.r#type.as_deref().map(TensorType::from_proto);
        match declared {
            None => Ok(Port {
                name,
                tensor_type: None,
            }),
            Some(Some(declared)) if is_numeric(declared.dtype) => Ok(Port {
                name,
                tensor_type: Some(declared),
            }),
            Some(_) => Err(EngineError::Output(name)),
        }
    });
    outputs.collect()
}
