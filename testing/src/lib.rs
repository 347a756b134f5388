//! Helpers for tests of all crates: small models, inputs without zeros, comparisons.
//!
//! Failures panic: this crate is for tests alone.

mod array;
mod builder;
mod find;
mod inputs;
mod layers;
pub mod message;
mod same;

pub use array::{Array, outputs};
pub use builder::{image, infer, inferred, input, model, text};
pub use find::{body, op, value};
pub use inputs::{batch, counting, inputs_for, noise, weight};
pub use layers::Layers;
pub use same::assert_same_function;
