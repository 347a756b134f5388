//! What tract infers, as the compiler's facts.

use bcosc_ir::{Facts, Model, TensorType};
use tract_onnx::prelude::InferenceFact;
use tract_onnx::tract_hir::internal::Factoid;

use super::fault::Fault;
use super::infer::infer;
use super::load::{Loaded, Weights, load};
use super::tensor::{from_datum_type, from_tdim, from_tract, symbolic_vector};
use crate::EngineError;

/// Shapes are computed from constants up to this size, whatever the caller wants to be told.
const LARGEST_EVALUATED: u64 = 1 << 16;

/// Infers what can be inferred: a node that tract does not know or cannot analyse leaves its outputs open.
/// Initializers are not among the facts, since the model knows them, and a symbolic element that is not a size
/// (the -1 of a reshape) is [`bcosc_ir::Dim::Unknown`].
pub(crate) fn facts(model: &Model, largest_constant: u64) -> Result<Facts, EngineError> {
    let mut loaded = load(model, Weights::UpTo(largest_constant))?;
    for unsupported in &loaded.unsupported {
        tracing::debug!("{unsupported}");
    }
    for error in infer(&mut loaded.model, largest_constant.max(LARGEST_EVALUATED)).values() {
        tracing::debug!("{error}");
    }
    translate(&loaded, largest_constant).map_err(Fault::loading)
}

fn translate(loaded: &Loaded, largest_constant: u64) -> Result<Facts, Fault> {
    let mut facts = Facts::default();
    for (name, outlet) in &loaded.values {
        let fact = loaded
            .model
            .outlet_fact(*outlet)
            .map_err(|e| Fault::new(format!("`{name}`"), e))?;
        if let Some(known) = tensor_type(loaded, fact) {
            facts.types.insert(name.clone(), known);
        }
        let Some(value) = fact.value.concretize() else {
            continue;
        };
        if let Some(constant) = from_tract(&value) {
            if constant.byte_len() <= largest_constant {
                facts.constants.insert(name.clone(), constant);
            }
        } else if let Some(sizes) = symbolic_vector(&value) {
            facts.symbolic.insert(name.clone(), sizes);
        }
    }
    Ok(facts)
}

fn tensor_type(loaded: &Loaded, fact: &InferenceFact) -> Option<TensorType> {
    let dtype = from_datum_type(fact.datum_type.concretize()?, loaded.halves)?;
    let shape = (!fact.shape.is_open()).then(|| {
        let dims = fact.shape.dims();
        dims.map(|dim| {
            dim.concretize()
                .map_or(bcosc_ir::Dim::Unknown, |dim| from_tdim(&dim))
        })
        .collect()
    });
    Some(TensorType { dtype, shape })
}
