//! Running plans on a device, through cudarc.
//!
//! cudarc panics where a library is absent, so `libraries` opens each one first, wherever it is.

#![allow(unsafe_code)]

mod compile;
mod libraries;

pub use compile::{Architecture, Compiler};
pub use libraries::{Library, require};
