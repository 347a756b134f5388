//! Reverse mode over the graph: what explanations and training are made of.
//!
//! [`detached`] differentiates along the linear path, with every dynamic factor held fixed; the
//! [`explanation`] graph is made with it.

pub mod detached;
pub mod explanation;
pub mod scores;
mod sizes;
