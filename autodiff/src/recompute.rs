//! Pieces of the forward pass that rules compute again, as no operator of the graph gives them.

pub(crate) mod attention;
pub(crate) mod gates;
pub(crate) mod norms;
