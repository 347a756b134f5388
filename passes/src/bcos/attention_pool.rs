//! Attention pools, the last layers of CLIP image encoders.

pub mod positions;
#[cfg(test)]
pub(crate) mod testing;
pub mod unpool;
