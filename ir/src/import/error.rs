//! Errors of importing a model.

use crate::TensorError;

/// Why a model cannot be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// No `graph` field.
    #[error("the model has no graph")]
    NoGraph,
    /// Two producers of one name.
    #[error("value \"{value}\" is defined twice, the second time by {by}")]
    DuplicateValue {
        /// The name.
        value: String,
        /// The second producer.
        by: String,
    },
    /// An attribute that a node has more than once.
    #[error("{node} has more than one attribute \"{attribute}\"")]
    DuplicateAttribute {
        /// Name of the attribute.
        attribute: String,
        /// The node.
        node: String,
    },
    /// A name that nothing produces.
    #[error("{by} reads \"{value}\", which no node, input or initializer of the model defines")]
    UndefinedValue {
        /// The name.
        value: String,
        /// The reader.
        by: String,
    },
    /// A cycle.
    #[error("{node} is part of a cycle; graphs must be acyclic")]
    Cycle {
        /// One of the nodes.
        node: String,
    },
    /// An initializer with an invalid type or shape.
    #[error("initializer \"{name}\": {source}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong with it.
        source: TensorError,
    },
    /// A graph input or initializer without a name.
    #[error("{what} number {index} has no name")]
    Unnamed {
        /// Kind of thing.
        what: &'static str,
        /// Its place in the file's list.
        index: usize,
    },
}
