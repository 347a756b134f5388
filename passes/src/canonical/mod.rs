//! The canonical form: what exporters add around a network is taken away.
//!
//! In order: local functions become operators, initializers become constants, sequences become
//! tensors; then constants and shapes are computed, operators that do nothing go, and with them
//! what nothing uses any more. Every pass keeps the function.

mod constants;
mod dead;
mod default_inputs;
mod fold;
mod functions;
mod sequences;
mod simplify;
mod worklist;

#[cfg(test)]
pub(crate) use worklist::{Rule, Site};

pub use dead::RemoveDead;
pub use default_inputs::DropDefaultInputs;
pub use fold::FoldConstants;
pub use functions::InlineFunctions;
pub use sequences::ResolveSequences;
pub use simplify::Simplify;
