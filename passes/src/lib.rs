//! Rewrites that turn a network into a B-cos network.
//!
//! A [`Pass`] is one rewrite; a recipe ([`recipe::CNN`]) is an ordered list of them.

pub mod autodiff;
pub mod canonical;
mod channels;
pub mod clip;
pub mod cnn;
mod dense;
pub mod explain;
pub mod image;
pub mod layer;
pub mod linearity;
pub mod marker;
pub mod opset;
mod pass;
pub mod pipeline;
pub mod preprocessing;
pub mod raise;
mod reason;
pub mod recipe;
mod settings;
mod sharing;
#[cfg(test)]
mod testing;
pub mod vit;
pub mod weights;

pub use pass::{Change, Context, Effect, Outcome, Pass, PassError, Skip};
pub use reason::Reason;
pub use settings::{InputContract, LogitBias, Normalization, Settings};
