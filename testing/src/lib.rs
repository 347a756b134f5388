//! What tests of all crates share: small models, inputs without zeros, and comparisons that can fail.
//!
//! Failures panic: this crate is for tests alone.

mod array;
mod builder;
mod inputs;
mod same;

pub use array::{Array, outputs};
pub use builder::{Layers, image, infer, model, text};
pub use inputs::{batch, inputs_for, noise, weight};
pub use same::assert_same_function;
