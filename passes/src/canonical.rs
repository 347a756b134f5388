//! The canonical form: removes what exporters add around a network.
//!
//! In order: inline local functions, convert default inputs to constants, replace sequences by tensors,
//! evaluate constants and shapes, remove operators without effect, remove unused nodes. All passes are
//! exact.

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
