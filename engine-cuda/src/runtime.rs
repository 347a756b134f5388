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
mod graph;
mod handle;
mod kernel;
mod libraries;
mod memory;
mod product;
mod program;
mod session;
mod value;

pub use compile::{Architecture, Compiler};
pub use engine::Cuda;
pub use libraries::{Library, require};

/// Memory that a library may use while it works.
#[derive(Clone, Copy, Debug)]
struct Space {
    address: u64,
    bytes: u64,
}
