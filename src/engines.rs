//! Which engine runs models, and on which device.

#[cfg(feature = "cuda")]
mod preferred;

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

#[cfg(feature = "ort")]
use bcosc_engine::onnx_runtime;
use bcosc_engine::{Device, Engine, EngineError, Network, Precision, Value, default_engine};
use bcosc_ir::{Model, Tensor};
use serde::{Serialize, Serializer};

use crate::Error;

/// Where models run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first CUDA device, if there is one and NVIDIA's libraries are installed; otherwise the CPU. A model with an operator
    /// that has no CUDA kernel runs on the CPU; `auto`.
    Auto,
    /// The CPU; `cpu`.
    #[default]
    Cpu,
    /// The CUDA device of this number; `cuda:0`, or `cuda` for the first.
    Cuda(u32),
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => Device::Cpu.fmt(f),
            DeviceChoice::Cuda(number) => Device::Cuda(*number).fmt(f),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("auto", _) => Ok(DeviceChoice::Auto),
            (_, Ok(Device::Cpu)) => Ok(DeviceChoice::Cpu),
            (_, Ok(Device::Cuda(number))) => Ok(DeviceChoice::Cuda(number)),
            _ => Err("expected `auto`, `cpu`, `cuda` or `cuda:N`".to_owned()),
        }
    }
}

impl Serialize for DeviceChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl DeviceChoice {
    /// An engine that runs models there: tract on the CPU, bcosc's own on CUDA devices.
    ///
    /// # Errors
    /// [`Error::Device`] if a CUDA device is asked for and cannot be used.
    pub fn open(self) -> Result<Box<dyn Engine>, Error> {
        Ok(Box::new(self.engine()?))
    }

    /// As [`DeviceChoice::open`], to be looked at.
    ///
    /// # Errors
    /// [`Error::Device`] if a CUDA device is asked for and cannot be used.
    pub(crate) fn engine(self) -> Result<Opened, Error> {
        self.engine_or(|| Ok(Opened::BuiltIn(default_engine())))
    }

    /// The engine for a device, with another one on the CPU.
    fn engine_or(self, cpu: impl FnOnce() -> Result<Opened, Error>) -> Result<Opened, Error> {
        match self {
            DeviceChoice::Cpu => cpu(),
            DeviceChoice::Cuda(number) => {
                let engine = cuda(number).map_err(|reason| self.missing("CUDA", reason))?;
                Ok(Opened::Shared(engine))
            }
            DeviceChoice::Auto => match cuda(0) {
                Ok(engine) => preferred(engine, cpu()?),
                Err(_) => cpu(),
            },
        }
    }

    fn missing(self, engine: &'static str, reason: String) -> Error {
        Error::Device {
            device: self,
            source: EngineError::Unavailable { engine, reason },
        }
    }
}

/// The CUDA engine on a device, opened once for the whole process; why not, otherwise.
#[cfg(feature = "cuda")]
fn cuda(number: u32) -> Result<Arc<dyn Engine>, String> {
    use std::collections::BTreeMap;
    use std::sync::{Mutex, PoisonError};

    use bcosc_engine_cuda::runtime::Cuda;

    type Opening = Result<Arc<dyn Engine>, String>;
    static OPENED: Mutex<BTreeMap<u32, Opening>> = Mutex::new(BTreeMap::new());
    // A panic in between leaves the map as it was.
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let open = || match Cuda::new(Device::Cuda(number)) {
        Ok(engine) => {
            tracing::debug!("CUDA device {number} is {}", engine.device_name());
            Ok(Arc::new(engine) as Arc<dyn Engine>)
        }
        Err(EngineError::Unavailable { reason, .. }) => {
            tracing::debug!("no CUDA device, so `auto` is the CPU: {reason}");
            Err(reason)
        }
        Err(error) => Err(error.to_string()),
    };
    opened.entry(number).or_insert_with(open).clone()
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: u32) -> Result<Arc<dyn Engine>, String> {
    Err("this bcosc was built without it; build it with the feature `cuda`".to_owned())
}

/// A CUDA engine with another one for models that it has no kernels for.
#[cfg(feature = "cuda")]
fn preferred(engine: Arc<dyn Engine>, cpu: Opened) -> Result<Opened, Error> {
    Ok(Opened::Shared(Arc::new(preferred::Preferred {
        first: engine,
        second: cpu,
    })))
}

#[cfg(not(feature = "cuda"))]
fn preferred(engine: Arc<dyn Engine>, _: Opened) -> Result<Opened, Error> {
    Ok(Opened::Shared(engine))
}

/// What runs training steps.
#[cfg(feature = "vision")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum EngineChoice {
    /// On a CUDA device bcosc's own engine; on the CPU ONNX Runtime if it is installed, otherwise tract
    #[default]
    Auto,
    /// tract, which is built in and runs on the CPU
    Tract,
    /// An installed ONNX Runtime
    #[cfg(feature = "ort")]
    Ort,
}

#[cfg(feature = "vision")]
impl EngineChoice {
    /// The engine on a device.
    ///
    /// # Errors
    /// [`Error::Device`] if what is asked for is not installed, or does not run on the device.
    pub(crate) fn open(self, device: DeviceChoice) -> Result<Opened, Error> {
        match self {
            EngineChoice::Auto => device.engine_or(|| Ok(installed())),
            EngineChoice::Tract => match device {
                DeviceChoice::Auto | DeviceChoice::Cpu => Ok(Opened::BuiltIn(default_engine())),
                DeviceChoice::Cuda(number) => Err(Error::Device {
                    device,
                    source: EngineError::Device {
                        engine: default_engine().name(),
                        device: Device::Cuda(number),
                    },
                }),
            },
            #[cfg(feature = "ort")]
            EngineChoice::Ort => {
                let open = |on| onnx_runtime(on).map(|engine| Opened::Shared(engine.into()));
                let found = match device {
                    DeviceChoice::Cpu => open(Device::Cpu),
                    DeviceChoice::Cuda(number) => open(Device::Cuda(number)),
                    // Its package for the CPU has no CUDA.
                    DeviceChoice::Auto => open(Device::Cuda(0)).or_else(|error| match error {
                        EngineError::Unavailable { .. } => open(Device::Cpu),
                        error => Err(error),
                    }),
                };
                found.map_err(|source| Error::Device { device, source })
            }
        }
    }
}

/// ONNX Runtime if it is installed, otherwise tract.
#[cfg(feature = "vision")]
fn installed() -> Opened {
    #[cfg(feature = "ort")]
    if let Ok(engine) = onnx_runtime(Device::Cpu) {
        return Opened::Shared(engine.into());
    }
    Opened::BuiltIn(default_engine())
}

/// An engine that is ready.
#[derive(Clone, Debug)]
pub(crate) enum Opened {
    BuiltIn(&'static dyn Engine),
    Shared(Arc<dyn Engine>),
}

impl Opened {
    /// Whether this is tract.
    pub fn is_built_in(&self) -> bool {
        matches!(self, Opened::BuiltIn(_))
    }

    /// The same, if its sessions can have a precision.
    ///
    /// # Errors
    /// [`Error::Precision`] if not.
    #[cfg(feature = "vision")]
    pub fn in_precision(self, precision: Precision) -> Result<Self, Error> {
        let checked = self.require(precision);
        checked.map_err(|source| Error::Precision { source })?;
        Ok(self)
    }
}

impl Engine for Opened {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn has_markers(&self) -> bool {
        (**self).has_markers()
    }

    fn require(&self, precision: Precision) -> Result<(), EngineError> {
        (**self).require(precision)
    }

    fn load(&self, model: &Model) -> Result<Box<dyn Network>, EngineError> {
        (**self).load(model)
    }

    fn upload(&self, tensor: &Tensor) -> Result<Value, EngineError> {
        (**self).upload(tensor)
    }
}

impl Deref for Opened {
    type Target = dyn Engine;

    fn deref(&self) -> &Self::Target {
        match self {
            Opened::BuiltIn(engine) => *engine,
            Opened::Shared(engine) => engine.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_as_they_are_written() {
        for device in [
            DeviceChoice::Auto,
            DeviceChoice::Cpu,
            DeviceChoice::Cuda(0),
            DeviceChoice::Cuda(13),
        ] {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for text in ["", "gpu", "Auto", "cuda:", "cuda:-1", "cpu:0"] {
            let error = text.parse::<DeviceChoice>().unwrap_err();
            assert!(
                error.contains("`auto`, `cpu`, `cuda` or `cuda:N`"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_cpu_is_tract_and_a_device_that_is_missing_is_an_error_that_says_so() {
        assert!(DeviceChoice::Cpu.engine().unwrap().is_built_in());
        let device = DeviceChoice::Cuda(10_000);
        let error = device.engine().unwrap_err();
        assert!(matches!(&error, Error::Device { device: on, .. } if *on == device));
        let text = error.to_string();
        assert!(
            text.contains("cuda:10000") && text.contains("--device"),
            "{text}"
        );
    }

    #[cfg(feature = "vision")]
    #[test]
    fn tract_has_single_precision_alone() {
        let tract = || EngineChoice::Tract.open(DeviceChoice::Cpu).unwrap();
        assert!(tract().in_precision(Precision::Fp32).is_ok());
        for precision in [Precision::Tf32, Precision::Bf16] {
            let error = tract().in_precision(precision).unwrap_err();
            assert!(matches!(error, Error::Precision { .. }), "{error}");
        }
    }

    #[cfg(feature = "vision")]
    #[test]
    fn tract_has_no_devices() {
        let error = EngineChoice::Tract.open(DeviceChoice::Cuda(0)).unwrap_err();
        assert!(error.to_string().contains("tract on cuda:0"), "{error}");
        let any = EngineChoice::Tract.open(DeviceChoice::Auto);
        assert!(any.unwrap().is_built_in());
    }
}
