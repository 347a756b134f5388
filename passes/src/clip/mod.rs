//! Passes for the image towers of CLIP models.

pub mod drop_positions;
pub mod unpool;
