//! Rewrites that turn a network into a B-cos network.
//!
//! A [`Pass`] is one rewrite; a [`recipe`] is an ordered list of them. Folders are stages: [`analysis`]
//! looks and rewrites nothing, [`canonical`] knows no B-cos, [`bcos`] knows no deploy form, [`deploy`] knows all.

pub mod analysis;
pub mod bcos;
pub mod canonical;
pub mod deploy;
pub mod dialect;
mod pass;
pub mod pipeline;
mod reason;
pub mod recipe;
mod settings;
#[cfg(test)]
mod testing;

pub use pass::{Change, Context, Effect, Outcome, Pass, PassError, Skip};
pub use reason::{NoVectors, Reason};
pub use settings::{InputContract, LogitBias, Normalization, Settings};
