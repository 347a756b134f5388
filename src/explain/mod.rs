//! Explanations: as graphs, as numbers, and as pictures.

mod explainer;
mod graph;
mod maps;

pub use explainer::{Explainer, Explanation, SizedExplainer};
pub(crate) use graph::explain_model;
pub use graph::{ExplainOptions, explanation_graph, explanation_path, write_model};
pub(crate) use maps::smooth;
