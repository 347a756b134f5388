//! Passes for the image towers of CLIP models.

pub mod drop_positions;
#[cfg(test)]
pub(crate) mod testing;
pub mod unpool;
