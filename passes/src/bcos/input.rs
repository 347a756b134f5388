//! Doubles the input channels: `[x, -x]` or `[x, 1-x]`.

pub mod double;
mod first_layer;
mod sizes;
