//! ONNX Runtime on a CUDA device: its provider, and runs whose outputs stay on the device.

use std::path::Path;
use std::sync::OnceLock;

use ort::ep::{self, ExecutionProvider, ExecutionProviderDispatch};
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{Session, SessionInputValue};
use ort::util::preload_dylib;
use ort::value::{DynTensor, DynTensorValueType};

use super::{NAME, fault, library};
use crate::{EngineError, Port};

/// What the provider loads. It looks where the system keeps libraries, which are not the folders of Python packages.
const LIBRARIES: [&str; 8] = [
    "libcudart.so",
    "libnvJitLink.so",
    "libcublasLt.so",
    "libcublas.so",
    "libnvrtc.so",
    "libcurand.so",
    "libcufft.so",
    "libcudnn.so",
];

/// How to get what is missing.
const ADVICE: &str = "install it with `pip install onnxruntime-gpu[cuda,cudnn]` instead of `onnxruntime`, in an active Python \
    environment, and NVIDIA's driver";

/// The provider for a device.
pub(crate) fn provider(number: u32) -> ExecutionProviderDispatch {
    let number = i32::try_from(number).unwrap_or(i32::MAX);
    ep::CUDA::default()
        .with_device_id(number)
        .with_tf32(false)
        .build()
        .error_on_failure()
}

/// Checks that the library has the provider, and that it finds a device and what it loads.
pub(crate) fn check(number: u32) -> Result<(), EngineError> {
    let unavailable = |reason: String| EngineError::Unavailable {
        engine: NAME,
        reason: format!("{reason}; {ADVICE}"),
    };
    let has_provider = ep::CUDA::default().is_available();
    if !has_provider.map_err(|e| fault::elsewhere(&e))? {
        return Err(unavailable(
            "the library that is installed has no CUDA provider".to_owned(),
        ));
    }
    preload();
    let builder = Session::builder().map_err(|e| fault::elsewhere(&e))?;
    match builder.with_execution_providers([provider(number)]) {
        Ok(_) => Ok(()),
        Err(error) => Err(unavailable(format!(
            "its CUDA provider does not start on cuda:{number}: {}",
            error.message().trim()
        ))),
    }
}

/// Opens NVIDIA's libraries from Python packages, once. One that is not there is the system's to find, or the provider's to
/// miss.
fn preload() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        let folders = library::nvidia_folders();
        for stem in LIBRARIES {
            for folder in &folders {
                if let Some(file) = library::newest_of(folder, stem) {
                    opened(&file);
                    break;
                }
            }
        }
    });
}

fn opened(file: &Path) {
    if let Err(error) = preload_dylib(file) {
        tracing::debug!("{}: {error}", file.display());
    }
}

/// Runs a session whose outputs stay on the device. Inputs that are there are read in place.
pub(crate) fn run(
    session: &mut Session,
    number: u32,
    inputs: &[(&Port, SessionInputValue<'_>)],
    outputs: &[Port],
) -> Result<Vec<DynTensor>, EngineError> {
    let number = i32::try_from(number).unwrap_or(i32::MAX);
    // A binding of its own for each run, since the next run with a binding writes over its outputs.
    let mut binding = session.create_binding().map_err(|e| fault::running(&e))?;
    for (port, value) in inputs {
        let bound = binding.bind_input(port.name.as_str(), &**value);
        bound.map_err(|e| fault::running(&e))?;
    }
    let device = (AllocationDevice::CUDA, AllocatorType::Device);
    for port in outputs {
        let place = MemoryInfo::new(device.0, number, device.1, MemoryType::Default);
        let place = place.map_err(|e| fault::running(&e))?;
        let bound = binding.bind_output_to_device(port.name.as_str(), &place);
        bound.map_err(|e| fault::running(&e))?;
    }
    let computed = session.run_binding(&binding);
    let mut computed = computed.map_err(|e| fault::running(&e))?;
    let found = outputs.iter().map(|port| {
        let value = computed.remove(port.name.as_str());
        let tensor = value.and_then(|value| value.downcast::<DynTensorValueType>().ok());
        tensor.ok_or_else(|| EngineError::Output(port.name.clone()))
    });
    found.collect()
}

/// A copy of a tensor on a device.
pub(crate) fn uploaded(tensor: &DynTensor, number: u32) -> Result<DynTensor, EngineError> {
    let number = i32::try_from(number).unwrap_or(i32::MAX);
    let copied = tensor.to(AllocationDevice::CUDA, number);
    copied.map_err(|e| fault::elsewhere(&e))
}
