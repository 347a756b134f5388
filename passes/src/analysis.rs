//! Analyses and views of a graph. Nothing here rewrites.

pub mod carried;
pub mod channel_axis;
pub mod channels;
pub(crate) mod dense;
pub mod image;
pub mod layers;
pub mod linearity;
pub mod preprocessing;
pub mod raise;
pub mod scalars;
pub mod weights;
