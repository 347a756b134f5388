//! Running plans on a device, through cudarc.
//!
//! cudarc panics where a library is absent, so `libraries` opens each one first, wherever it is. Handles of the driver and
//! of libraries live in types that give them back; unsafe code is here only.

#![allow(unsafe_code)]

mod code;
mod compile;
mod convolution;
mod descriptors;
mod engine;
mod found;
mod gpu;
mod libraries;
mod product;
mod program;
mod session;
mod value;

use std::str::FromStr;

use bcosc_engine::EngineError;

pub use compile::{Architecture, Compiler};
pub use engine::Cuda;
pub use libraries::{Library, require};

/// How products of single-precision numbers are rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// In single precision.
    #[default]
    Exact,
    /// Factors to TF32, sums in single precision.
    Tf32,
}

impl FromStr for Precision {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        match text {
            "fp32" => Ok(Precision::Exact),
            "tf32" => Ok(Precision::Tf32),
            _ => Err(EngineError::Load {
                place: format!("precision `{text}`"),
                reason: "it can be `fp32` or `tf32`".to_owned(),
            }),
        }
    }
}

/// Memory that a library may use while it works.
#[derive(Clone, Copy, Debug)]
struct Space {
    address: u64,
    bytes: u64,
}
