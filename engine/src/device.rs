//! Where engines compute.

use std::fmt;
use std::str::FromStr;

use crate::EngineError;

/// A processor that an engine computes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Device {
    /// The processor of the computer; `cpu`.
    #[default]
    Cpu,
    /// The CUDA device of this number; `cuda:0`, or `cuda` for the first.
    Cuda(u32),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl FromStr for Device {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        let unknown = || EngineError::UnknownDevice(text.to_owned());
        match (text, text.strip_prefix("cuda:")) {
            ("cpu", _) => Ok(Device::Cpu),
            ("cuda", _) => Ok(Device::Cuda(0)),
            (_, Some(number)) => number.parse().map(Device::Cuda).map_err(|_| unknown()),
            (_, None) => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_written() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(13)] {
            assert_eq!(device.to_string().parse::<Device>().unwrap(), device);
        }
        assert_eq!("cuda".parse::<Device>().unwrap(), Device::Cuda(0));
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "cpu:0"] {
            let error = text.parse::<Device>().unwrap_err();
            assert!(matches!(&error, EngineError::UnknownDevice(t) if t == text));
            assert!(error.to_string().contains("`cpu`, `cuda` or `cuda:N`"));
        }
    }
}
