//! Extracting, splicing and re-parameterising graphs.
//!
//! | operation | what it does |
//! |---|---|
//! | [`Model::extract`] | a part of a graph becomes a model of its own |
//! | [`Graph::promote`] | a constant becomes an input of the graph |
//! | [`Graph::bind`] | an input of the graph becomes a constant |
//! | [`Model::splice`] | a model is put into another one |
//!
//! Nothing is changed where an operation fails. Weights are never copied: parts share them.

mod annotations;
mod cone;
mod copy;
mod extract;
mod names;
mod promote;
mod splice;

pub use cone::Cone;

use std::collections::BTreeSet;

use crate::{Graph, TensorType, Value};

/// Why an operation on a graph failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SurgeryError {
    /// A value does not exist, was removed, or is an omitted output.
    #[error("{what} {index} is not a value of the graph")]
    NoValue {
        /// What the value was given as.
        what: &'static str,
        /// Its place among those that were given.
        index: usize,
    },
    /// A value is given twice.
    #[error("{what} \"{value}\" is given twice")]
    Repeated {
        /// What the value was given as.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// A part of a graph needs an input of the whole that is not among its own.
    #[error("\"{output}\" depends on the input \"{input}\", which is not among the new inputs")]
    NotCutOff {
        /// Output of the part.
        output: String,
        /// Input of the whole.
        input: String,
    },
    /// The type of a value that becomes an input is not known.
    #[error("the type of \"{value}\" is not known, so it cannot become an input")]
    UnknownType {
        /// The value.
        value: String,
    },
    /// Only dense constants can become inputs.
    #[error("\"{value}\" is not a dense constant")]
    NotAConstant {
        /// The value.
        value: String,
    },
    /// Only inputs of the graph can be bound.
    #[error("\"{value}\" is not an input of the graph")]
    NotAnInput {
        /// The value.
        value: String,
    },
    /// Quantisation annotations or training graphs need a constant to stay one.
    #[error(
        "\"{value}\" must stay a constant: a quantisation annotation or a training graph refers to it"
    )]
    Pinned {
        /// The constant.
        value: String,
    },
    /// An input is bound to something of another type.
    #[error("the input \"{input}\" takes a {expected}, but is bound to a {found}")]
    TypeMismatch {
        /// The input.
        input: String,
        /// What it takes.
        expected: String,
        /// What it is given.
        found: String,
    },
    /// An input of the model that is spliced in gets no value.
    #[error("the input \"{input}\" of the spliced model is not bound")]
    Unbound {
        /// The input.
        input: String,
    },
    /// Two models use different versions of an operator set.
    #[error("the models use versions {host} and {guest} of the operator set \"{domain}\"")]
    OpsetVersions {
        /// The operator set; empty for standard ONNX.
        domain: String,
        /// Version that the model imports.
        host: i64,
        /// Version that the model which is spliced in imports.
        guest: i64,
    },
    /// An operator means one local function in one model and something else in the other.
    #[error("\"{function}\" is not the same function in both models")]
    FunctionsDiffer {
        /// The function, with its domain.
        function: String,
    },
}

/// Values that an operation was given: each there, named, and given once.
fn check_values(graph: &Graph, values: &[Value], what: &'static str) -> Result<(), SurgeryError> {
    let mut seen = BTreeSet::new();
    for (index, &value) in values.iter().enumerate() {
        if !is_there(graph, value) {
            return Err(SurgeryError::NoValue { what, index });
        }
        if !seen.insert(value) {
            let value = graph.value_name(value).to_owned();
            return Err(SurgeryError::Repeated { what, value });
        }
    }
    Ok(())
}

fn is_there(graph: &Graph, value: Value) -> bool {
    graph.contains(value.node)
        && value.slot < graph.output_count(value.node)
        && !graph.value_name(value).is_empty()
}

/// An error where a value of type `found` cannot be bound to an input; what is not known fits.
fn check_fits(
    input: &str,
    expected: Option<TensorType>,
    found: Option<TensorType>,
) -> Result<(), SurgeryError> {
    let (Some(expected), Some(found)) = (expected, found) else {
        return Ok(());
    };
    let fits = match (&expected.shape, &found.shape) {
        (Some(a), Some(b)) => {
            let mut dims = a.iter().zip(b).map(|(a, b)| (a.known(), b.known()));
            a.len() == b.len() && dims.all(|(a, b)| a.is_none() || b.is_none() || a == b)
        }
        _ => true,
    };
    match fits && expected.dtype == found.dtype {
        true => Ok(()),
        false => Err(SurgeryError::TypeMismatch {
            input: input.to_owned(),
            expected: expected.to_string(),
            found: found.to_string(),
        }),
    }
}
