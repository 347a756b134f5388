//! Batch norms: uncentring, restoring folded norms, measuring statistics.

pub mod calibrate;
pub mod remeasure;
pub mod restore;
mod statistics;
pub mod uncentre;
