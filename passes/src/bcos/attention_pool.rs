//! Attention pools, which the image towers of CLIP models end in.

pub mod positions;
#[cfg(test)]
pub(crate) mod testing;
pub mod unpool;
