//! Tensors in tract's memory.

use std::sync::Arc;

use bcosc_ir::{DataType, Dim, Tensor, TensorType};
use tract_onnx::prelude::{DatumType, Tensor as TractTensor};

use super::tensor::{Halves, from_datum_type, from_tract, is_half, to_tract};
use crate::{EngineError, Stored, Value};

/// A tensor of numbers in tract's memory.
#[derive(Debug)]
pub(crate) struct TractValue {
    tensor: Arc<TractTensor>,
    /// What it is to ONNX. Half precision and bfloat16 are in single precision here, as they were computed.
    dtype: DataType,
}

impl TractValue {
    /// Copies a tensor.
    pub fn of(tensor: &Tensor) -> Result<Self, EngineError> {
        Ok(TractValue {
            tensor: Arc::new(to_tract(tensor, Halves::AsFloat)?),
            dtype: tensor.dtype(),
        })
    }

    /// What tract computes with: the elements themselves, which no copy is made of, but for half precision and
    /// bfloat16, which are rounded.
    pub fn operand(self: Arc<Self>) -> Result<Arc<TractTensor>, EngineError> {
        if is_half(self.dtype) {
            return Ok(Arc::new(to_tract(&self.read()?, Halves::AsFloat)?));
        }
        // Where this is the only reference, tract may write the result over the elements.
        Ok(Arc::try_unwrap(self).map_or_else(|shared| shared.tensor.clone(), |value| value.tensor))
    }
}

impl Stored for TractValue {
    fn tensor_type(&self) -> TensorType {
        let dims = self.tensor.shape().iter();
        TensorType {
            dtype: self.dtype,
            shape: Some(dims.map(|&d| Dim::Known(d as u64)).collect()),
        }
    }

    fn read(&self) -> Result<Tensor, EngineError> {
        let tensor = from_tract(&self.tensor).ok_or(EngineError::DataType(self.dtype))?;
        if !is_half(self.dtype) {
            return Ok(tensor);
        }
        let rounded = Tensor::floats(self.dtype, &tensor.dims(), &tensor.to_f64s()?);
        rounded.ok_or(EngineError::DataType(self.dtype))
    }
}

/// What tract has computed as a value, rounded to 16 bits where `half` says so; `None` if it is not numeric.
pub(crate) fn computed(tensor: Arc<TractTensor>, half: Option<DataType>) -> Option<Value> {
    if tensor.datum_type() == DatumType::TDim {
        return from_tract(&tensor).map(Value::from);
    }
    let dtype = from_datum_type(tensor.datum_type(), Halves::Bfloat16Unknown)?;
    if dtype == DataType::String || !tensor.is_plain_ram() {
        return None;
    }
    let dtype = half.filter(|_| dtype == DataType::Float).unwrap_or(dtype);
    Some(Value::stored(TractValue { tensor, dtype }))
}
