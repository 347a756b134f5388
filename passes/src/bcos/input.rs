//! The input's channels are doubled: `[x, -x]` or `[x, 1-x]`.

pub mod double;
mod first_layer;
