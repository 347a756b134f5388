//! Why a rule does not apply: typed, so that tests can ask for a reason and reports can word it.

use serde::{Serialize, Serializer};

/// Why a place was left alone, or why a model cannot be converted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The weight is computed while running.
    #[error("the weight is not a constant")]
    DynamicWeight,
    /// A shape that the rule needs is unknown.
    #[error("the shape of {0} is not known")]
    UnknownShape(String),
    /// Something else reads a value that the rule would change.
    #[error("\"{0}\" is used elsewhere too")]
    UsedElsewhere(String),
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
