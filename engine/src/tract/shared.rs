//! Weights that several networks share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bcosc_ir::{Model, Tensor};
use tract_onnx::prelude::Tensor as TractTensor;

use super::fold::Folded;
use super::tensor::{Halves, to_tract};
use crate::EngineError;

/// Smaller tensors are copied for each network.
const WORTH_SHARING: u64 = 1 << 12;

/// A copy in tract's memory, once there is one.
type Copied = Mutex<Option<Arc<TractTensor>>>;

/// The weights of a model, copied into tract's memory when the first network needs them.
#[derive(Debug)]
pub(crate) struct Shared {
    /// By the address of the elements, which the tensor keeps in place.
    weights: BTreeMap<usize, (Tensor, Copied)>,
    /// What is computed from them.
    pub folded: Arc<Folded>,
}

impl Shared {
    /// The weights of a model whose elements lie in its file as they are.
    pub fn of(model: &Model) -> Self {
        let graph = &model.graph;
        let constants = graph
            .unordered()
            .filter_map(|id| graph.constant(graph.output(id, 0)));
        let large = constants.filter(|tensor| tensor.byte_len() >= WORTH_SHARING);
        let placed =
            large.filter_map(|tensor| Some((address(&tensor)?, (tensor, Mutex::default()))));
        Shared {
            weights: placed.collect(),
            folded: Arc::new(Folded::of_shared()),
        }
    }

    /// A tensor in tract's memory, if it is one of these weights. In single precision, as sessions compute.
    pub fn get(&self, tensor: &Tensor) -> Result<Option<Arc<TractTensor>>, EngineError> {
        let known = address(tensor).and_then(|address| self.weights.get(&address));
        let Some((weight, copy)) = known else {
            return Ok(None);
        };
        if weight.dtype() != tensor.dtype() || weight.dims() != tensor.dims() {
            return Ok(None);
        }
        let mut copy = copy.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(copy) = &*copy {
            return Ok(Some(copy.clone()));
        }
        let made = Arc::new(to_tract(weight, Halves::AsFloat)?);
        self.folded.share(&made);
        *copy = Some(made.clone());
        Ok(Some(made))
    }
}

/// Where a tensor's elements are, if they are in one place for all its copies.
fn address(tensor: &Tensor) -> Option<usize> {
    let raw = tensor.proto().raw_data.as_ref()?;
    (!raw.is_empty()).then(|| raw.as_ptr().addr())
}
