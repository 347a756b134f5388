//! The canonical form: what exporters add around a network is taken away.
//!
//! In order: local functions become operators, initializers become constants, sequences become
//! tensors; then constants and shapes are computed, operators that do nothing go, and with them
//! what nothing uses any more. Every pass keeps the function.

mod constants;
pub mod cse;
mod dead;
mod default_inputs;
mod fold;
mod functions;
pub mod opset;
mod sequences;
mod simplify;
mod worklist;

#[cfg(test)]
pub(crate) use worklist::{Rule, Site};

pub use dead::REMOVE_DEAD;
pub use default_inputs::DROP_DEFAULT_INPUTS;
pub use fold::FOLD_CONSTANTS;
pub use functions::INLINE_FUNCTIONS;
pub use sequences::RESOLVE_SEQUENCES;
pub use simplify::SIMPLIFY;
