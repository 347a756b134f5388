//! Explanations: as graphs, as numbers, and as pictures.

mod batch;
mod explainer;
mod maps;
pub mod raw;
pub mod sheet;
pub(in crate::vision) mod side_by_side;

pub use batch::{Choice, Explained};
pub use explainer::{Explainer, Explanation, SizedExplainer};
pub use maps::encoded as encoded_png;
pub(crate) use maps::smooth;
