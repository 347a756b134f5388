//! Explanations: as graphs, as numbers, and as pictures.

mod batch;
mod explainer;
mod graph;
mod maps;
pub mod raw;
pub mod sheet;

pub use batch::{Choice, Explained};
pub use explainer::{Explainer, Explanation, SizedExplainer};
pub(crate) use graph::explain_model;
pub use graph::{ExplainOptions, explanation_graph, explanation_path, write_model};
pub use maps::encoded as encoded_png;
pub(crate) use maps::smooth;
