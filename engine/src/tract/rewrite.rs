//! Nodes that tract does not have, or computes otherwise, as others that it does.

pub(crate) mod activations;
pub(crate) mod output_shape;
pub(crate) mod resize;
pub(crate) mod sequences;
