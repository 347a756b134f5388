//! The passes that make a convolutional network a B-cos network.

pub mod average_pool;
pub mod bcos;
pub mod calibrate_norms;
pub mod deploy;
pub mod double_input;
mod first_layer;
pub mod logit_bias;
pub mod lower;
mod measure;
pub mod remeasure_norms;
pub mod remove_biases;
pub mod reorder_head;
pub mod restore_norms;
#[cfg(test)]
mod robustness;
#[cfg(test)]
pub(crate) mod testing;
pub mod uncentre_norms;
