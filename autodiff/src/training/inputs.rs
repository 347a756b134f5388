//! Inputs of a training step that are no state.

use bcosc_ir::{DataType, Model, Operand, Patch, TensorType, Value};
use bcosc_passes::{PassError, Reason};

use super::{LEARNING_RATE, STEP};
use crate::build::Build;

/// The inputs that every step takes.
pub(super) struct Inputs {
    pub rate: Value,
    pub step: Value,
    dtype: DataType,
}

impl Inputs {
    /// Adds them; the step computes in the type of a value.
    pub fn add(model: &mut Model, like: Value) -> Self {
        let found = model.graph.value_type(like);
        let dtype = found.map_or(DataType::Float, |found| found.dtype);
        let graph = &mut model.graph;
        Inputs {
            rate: graph.add_input(LEARNING_RATE, TensorType::fixed(dtype, &[])),
            step: graph.add_input(STEP, TensorType::fixed(DataType::Int64, &[])),
            dtype,
        }
    }

    /// Builds operators of this type.
    pub fn build<'p>(&self, model: &Model, patch: &'p mut Patch) -> Build<'p> {
        Build {
            patch,
            opset: model.opset("").unwrap_or(0),
            dtype: self.dtype,
        }
    }
}

/// Applies a patch; returns the values that some of its operands became.
pub(super) fn apply<const N: usize>(
    model: &mut Model,
    patch: Patch,
    kept: [Operand; N],
) -> Result<[Value; N], PassError> {
    let found = apply_all(model, patch, &kept)?;
    found
        .try_into()
        .map_err(|_| PassError::Model(Reason::Malformed))
}

/// As [`apply`], for any number of operands.
pub(super) fn apply_all(
    model: &mut Model,
    mut patch: Patch,
    kept: &[Operand],
) -> Result<Vec<Value>, PassError> {
    for operand in kept {
        patch.keep(*operand);
    }
    let added = model.graph.apply(patch)?;
    let applied = kept.iter().map(|operand| {
        let malformed = PassError::Model(Reason::Malformed);
        operand.applied(&added).ok_or(malformed)
    });
    applied.collect()
}
