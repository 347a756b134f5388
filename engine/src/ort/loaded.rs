//! A model in ONNX Runtime's memory.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bcosc_ir::onnx::proto::ModelProto;
use bcosc_ir::onnx::{ExternalData, WriteError, WriteOptions, encode, write};
use bcosc_ir::{Model, ParameterData};
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use tempfile::TempDir;

use super::{cuda, fault};
use crate::{Device, EngineError};

/// The name of a model's file.
const FILE: &str = "model.onnx";

/// The version of the file format that the oldest library reads. Later versions have added types alone.
const FORMAT: i64 = 8;

/// Weights of more bytes go through a file: ONNX Runtime maps it, but copies twice what it gets in memory.
const LARGEST_IN_MEMORY: u64 = 64 << 20;

/// A model that runs on a number of threads, for inputs of any shape.
#[derive(Debug)]
pub(crate) struct Loaded {
    session: Mutex<Session>,
    /// Where it runs.
    pub device: Device,
    /// The file of weights that are mapped. After the session, since some systems keep files that are mapped.
    _weights: Option<TempDir>,
}

impl Loaded {
    /// Loads a model.
    pub fn new(model: &Model, threads: usize, device: Device) -> Result<Self, EngineError> {
        let proto = labelled(model);
        // Where there is no room for files, there may be memory.
        if weight_bytes(model) > LARGEST_IN_MEMORY
            && let Ok(folder) = written(&proto)
        {
            return Loaded::from_file(model, folder, threads, device);
        }
        match encode(&proto) {
            Ok(bytes) => {
                drop(proto);
                let made = builder(threads, device).and_then(|mut b| b.commit_from_memory(&bytes));
                Ok(Loaded {
                    session: Mutex::new(made.map_err(|e| fault::loading(&e, model))?),
                    device,
                    _weights: None,
                })
            }
            Err(WriteError::TooLarge { .. }) => {
                Loaded::from_file(model, written(&proto)?, threads, device)
            }
            Err(error) => Err(unwritten(error)),
        }
    }

    /// Loads a model from where [`written`] has put it.
    fn from_file(
        model: &Model,
        folder: TempDir,
        threads: usize,
        device: Device,
    ) -> Result<Self, EngineError> {
        let path = folder.path().join(FILE);
        let made = builder(threads, device).and_then(|mut b| b.commit_from_file(&path));
        Ok(Loaded {
            session: Mutex::new(made.map_err(|e| fault::loading(&e, model))?),
            device,
            // On Unix, what is mapped stays; so nothing is left behind if the process is killed.
            _weights: (!cfg!(unix)).then_some(folder),
        })
    }

    /// The session, for one run: the `ort` crate does not let runs share it.
    pub fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Results are to depend on the model and its inputs alone, and threads that wait leave the processor to others.
fn builder(threads: usize, device: Device) -> ort::Result<SessionBuilder> {
    let providers = match device {
        Device::Cpu => Vec::new(),
        Device::Cuda(number) => vec![cuda::provider(number)],
    };
    Ok(Session::builder()?
        .with_execution_providers(providers)?
        .with_intra_threads(threads)?
        .with_inter_threads(1)?
        .with_parallel_execution(false)?
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?
        .with_deterministic_compute(true)?
        .with_config_entry("session.set_denormal_as_zero", "0")?
        .with_optimization_level(GraphOptimizationLevel::All)?)
}

/// Bytes of all initializers.
fn weight_bytes(model: &Model) -> u64 {
    let parameters = model.graph.parameters().into_iter();
    let bytes = parameters.map(|(_, parameter)| match &parameter.data {
        ParameterData::Dense(tensor) => tensor.byte_len(),
        ParameterData::Sparse(_) => 0,
    });
    bytes.fold(0, u64::saturating_add)
}

/// A folder with the model and the file of its weights.
fn written(proto: &ModelProto) -> Result<TempDir, EngineError> {
    let folder = tempfile::tempdir().map_err(unwritten)?;
    let options = WriteOptions {
        external_data: ExternalData::Always,
    };
    write(proto, &folder.path().join(FILE), &options).map_err(unwritten)?;
    Ok(folder)
}

/// The model, with a name on every node, since errors name nodes by nothing else.
fn labelled(model: &Model) -> ModelProto {
    let mut proto = model.to_proto();
    proto.ir_version = proto.ir_version.map(|version| version.min(FORMAT));
    let nodes = proto.graph.iter_mut().flat_map(|graph| &mut graph.node);
    for node in nodes.filter(|node| node.name.as_deref().is_none_or(str::is_empty)) {
        node.name = node.output.first().cloned();
    }
    proto
}

fn unwritten(error: impl fmt::Display) -> EngineError {
    EngineError::Load {
        place: "the model".to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{DataType, ModelBuilder, Tensor};

    use super::super::session::OrtSession;
    use super::*;
    use crate::{SessionOptions, Value, onnx_runtime};

    #[test]
    fn weights_in_a_file_compute_what_weights_in_memory_do() {
        let engine = match onnx_runtime(Device::Cpu) {
            Ok(engine) => engine,
            Err(EngineError::Unavailable { reason, .. }) => {
                eprintln!("not tested: {reason}");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        // Tensors of less than 1,024 bytes stay in the model's own file.
        let weights = (0..40 * 40).map(|i| (i % 7) as f32 - 3.0).collect();
        let model = ModelBuilder::new(13)
            .input("x", DataType::Float, "N,40")
            .param("w", Tensor::f32s(&[40, 40], weights))
            .op("MatMul", &["x", "w"], "y", [])
            .output_as("y", DataType::Float, "N,40")
            .finish()
            .unwrap();
        let x = Tensor::f32s(&[2, 40], (0..80).map(|i| i as f32).collect());
        let shapes = [("x".to_owned(), x.dims())].into();
        let network = engine.load(&model).unwrap();
        let session = network
            .session(&shapes, &SessionOptions::default())
            .unwrap();
        let folder = written(&labelled(&model)).unwrap();
        let path = folder.path().to_owned();
        assert!(path.join("model.onnx.data").metadata().unwrap().len() >= 6400);
        let loaded = Loaded::from_file(&model, folder, 1, Device::Cpu).unwrap();
        let filed = OrtSession::new(
            loaded.into(),
            session.inputs().to_vec(),
            session.outputs().to_vec(),
        );
        let run = |session: &dyn crate::Session| {
            let outputs = session.run(vec![Value::from(x.clone())]).unwrap();
            outputs[0].to_tensor().unwrap()
        };
        assert_eq!(run(&filed), run(session.as_ref()));
        drop(filed);
        assert!(!path.exists());
    }
}
