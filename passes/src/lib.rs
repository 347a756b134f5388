//! Passes that convert a network to a B-cos network.
//!
//! A [`Pass`] is one rewrite; a [`recipe`] is an ordered list of them. Folders are stages: [`analysis`]
//! rewrites nothing, [`canonical`] does not depend on [`bcos`], [`bcos`] does not depend on [`deploy`].

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
pub use settings::{Biases, InputContract, LogitBias, Normalization, Settings};
