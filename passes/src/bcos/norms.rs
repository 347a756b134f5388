//! Norms without means: made so, restored where an exporter folded them, and with measured statistics.

pub mod calibrate;
pub mod remeasure;
pub mod restore;
mod statistics;
pub mod uncentre;
