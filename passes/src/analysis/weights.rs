//! Reading and writing constant weights in double precision.

use bcosc_ir::{
    DataType, Graph, Model, Node, NodeId, ParameterData, Tensor, TensorError, TensorType, Value,
};

use crate::{Outcome, PassError, Reason};

/// The elements of a floating-point constant as `f64`, with its type and dimensions.
#[derive(Clone, Debug)]
pub struct Floats {
    /// Element type of the constant.
    pub dtype: DataType,
    /// Dimensions, outermost first.
    pub dims: Vec<u64>,
    /// Elements in row-major order.
    pub elements: Vec<f64>,
}

impl Floats {
    /// A tensor of the same type and shape with other elements.
    pub fn with(&self, elements: &[f64]) -> Tensor {
        self.shaped(&self.dims, elements)
    }

    /// A tensor of the same type with another shape and elements.
    pub fn shaped(&self, dims: &[u64], elements: &[f64]) -> Tensor {
        tensor(self.dtype, dims, elements)
    }
}

/// A tensor of a floating-point type; single precision if `dtype` is not one.
pub fn tensor(dtype: DataType, dims: &[u64], elements: &[f64]) -> Tensor {
    Tensor::floats(dtype, dims, elements)
        .unwrap_or_else(|| Tensor::f32s(dims, elements.iter().map(|&x| x as f32).collect()))
}

/// Why a weight cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// The rule does not apply; the node is skipped.
    #[error(transparent)]
    NoMatch(#[from] Reason),
    /// The weight is broken.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl WeightError {
    /// The error of a pass that requires the rule to apply.
    pub fn at(self, model: &Model, node: NodeId) -> PassError {
        match self {
            WeightError::NoMatch(reason) => PassError::unsupported(model, node, reason),
            WeightError::Tensor(source) => PassError::Weight {
                node: model.graph.label(node),
                source,
            },
        }
    }

    /// Records a skip if the rule does not apply; an invalid weight is an error.
    pub fn skip_or_fail(
        self,
        graph: &Graph,
        node: NodeId,
        outcome: &mut Outcome,
    ) -> Result<(), PassError> {
        match self {
            WeightError::NoMatch(reason) => {
                outcome.skipped(graph.label(node), reason);
                Ok(())
            }
            WeightError::Tensor(source) => Err(PassError::Weight {
                node: graph.label(node),
                source,
            }),
        }
    }
}

/// Element type and dimensions of a constant, without reading it; `None` if the value is not a valid
/// constant.
pub fn constant_type(graph: &Graph, value: Value) -> Option<TensorType> {
    let sound = |tensor: &Tensor| tensor.proto().check().is_ok().then(|| tensor.tensor_type());
    match graph.node(value.node) {
        Node::Parameter(parameter) => match &parameter.data {
            ParameterData::Dense(tensor) => sound(tensor),
            ParameterData::Sparse(_) => None,
        },
        _ => sound(&graph.constant(value)?),
    }
}

/// Reads a constant.
pub fn floats(graph: &Graph, value: Value) -> Result<Floats, WeightError> {
    let tensor = graph.constant(value).ok_or(Reason::DynamicWeight)?;
    Ok(Floats {
        dtype: tensor.dtype(),
        dims: tensor.dims(),
        elements: tensor.to_f64s()?,
    })
}
