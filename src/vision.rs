//! Prediction, explanation, evaluation, calibration and training data: images from disk.

pub(crate) mod align;
pub(crate) mod calibrate;
pub mod data;
pub(crate) mod evaluate;
pub(crate) mod explain;
pub(crate) mod images;
pub(crate) mod labels;
pub(crate) mod predict;
mod random;
pub(crate) mod train;
