//! Tensors and element types between ONNX and tract.

use bcosc_ir::{DataType, Dim, Tensor};
use tract_onnx::prelude::{DatumType, TDim, TractResult};
use tract_onnx::tract_hir::internal::{Tensor as TractTensor, bail};

use super::fault::Fault;
use crate::EngineError;

/// What half precision and bfloat16 are to tract, which does not have the latter and is slow and
/// incomplete in the former.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Halves {
    /// Computes both in single precision.
    AsFloat,
    /// Infers bfloat16 with half precision as a placeholder, where the model has no half precision itself.
    Bfloat16AsFloat16,
    /// Infers half precision; bfloat16 has no type.
    Bfloat16Unknown,
}

/// Whether numbers of a type take 16 bits.
pub(crate) fn is_half(dtype: DataType) -> bool {
    matches!(dtype, DataType::Float16 | DataType::Bfloat16)
}

/// tract's element type.
pub(crate) fn to_datum_type(dtype: DataType, halves: Halves) -> Option<DatumType> {
    Some(match dtype {
        DataType::Float => DatumType::F32,
        DataType::Float16 if halves == Halves::AsFloat => DatumType::F32,
        DataType::Float16 => DatumType::F16,
        DataType::Double => DatumType::F64,
        DataType::Bool => DatumType::Bool,
        DataType::Int8 => DatumType::I8,
        DataType::Int16 => DatumType::I16,
        DataType::Int32 => DatumType::I32,
        DataType::Int64 => DatumType::I64,
        DataType::Uint8 => DatumType::U8,
        DataType::Uint16 => DatumType::U16,
        DataType::Uint32 => DatumType::U32,
        DataType::Uint64 => DatumType::U64,
        DataType::String => DatumType::String,
        DataType::Bfloat16 => match halves {
            Halves::AsFloat => DatumType::F32,
            Halves::Bfloat16AsFloat16 => DatumType::F16,
            Halves::Bfloat16Unknown => return None,
        },
        _ => return None,
    })
}

/// The ONNX element type. tract computes shapes with symbolic integers, which ONNX knows as int64.
pub(crate) fn from_datum_type(datum_type: DatumType, halves: Halves) -> Option<DataType> {
    Some(match datum_type {
        DatumType::F32 => DataType::Float,
        DatumType::F16 if halves == Halves::Bfloat16AsFloat16 => DataType::Bfloat16,
        DatumType::F16 => DataType::Float16,
        DatumType::F64 => DataType::Double,
        DatumType::Bool => DataType::Bool,
        DatumType::I8 => DataType::Int8,
        DatumType::I16 => DataType::Int16,
        DatumType::I32 => DataType::Int32,
        DatumType::I64 | DatumType::TDim => DataType::Int64,
        DatumType::U8 => DataType::Uint8,
        DatumType::U16 => DataType::Uint16,
        DatumType::U32 => DataType::Uint32,
        DatumType::U64 => DataType::Uint64,
        DatumType::String => DataType::String,
        _ => return None,
    })
}

/// Copies a tensor into tract's memory.
pub(crate) fn to_tract(tensor: &Tensor, halves: Halves) -> Result<TractTensor, EngineError> {
    if halves == Halves::AsFloat && is_half(tensor.dtype()) {
        let widened = tensor.to_f32s()?;
        return to_tract(&Tensor::f32s(&tensor.dims(), widened), halves);
    }
    let datum_type = to_datum_type(tensor.dtype(), Halves::Bfloat16Unknown)
        .filter(|t| *t != DatumType::String)
        .ok_or_else(|| EngineError::DataType(tensor.dtype()))?;
    let copied = copied(datum_type, &tensor.dims(), &tensor.bytes()?);
    copied.map_err(|e| Fault::new("a tensor", format!("{e:#}")).loading())
}

#[expect(unsafe_code)]
fn copied(datum_type: DatumType, dims: &[u64], bytes: &[u8]) -> TractResult<TractTensor> {
    let shape = dims.iter().map(|&d| usize::try_from(d));
    let shape = shape.collect::<Result<Vec<usize>, _>>()?;
    let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    if elements.and_then(|n| n.checked_mul(datum_type.size_of())) != Some(bytes.len()) {
        bail!("{} bytes for {datum_type:?}{shape:?}", bytes.len());
    }
    // Where one size is 0, others are not bounded by the bytes.
    let strides = shape
        .iter()
        .try_fold(1isize, |n, &d| n.checked_mul(d.max(1).try_into().ok()?));
    if strides.is_none() {
        bail!("{datum_type:?}{shape:?} has sizes that are too large");
    }
    if datum_type == DatumType::Bool {
        // Anything but 0 and 1 in a Rust bool is undefined behaviour.
        let flags: Vec<bool> = bytes.iter().map(|byte| *byte != 0).collect();
        return TractTensor::from_shape(&shape, &flags);
    }
    // SAFETY: what is left are numbers, for which all bits mean something, and there are as many bytes
    // as they take. Zeroing large weights before they are written would show in the time of a proof.
    let mut tensor = unsafe { TractTensor::from_raw_dt(datum_type, &shape, bytes)? };
    if !bytes.is_empty() {
        swap_on_big_endian(tensor.as_bytes_mut(), datum_type);
    }
    Ok(tensor)
}

/// Copies a tensor out of tract; `None` for strings, for sizes that are not known, and for types
/// that ONNX does not have.
pub(crate) fn from_tract(tensor: &TractTensor) -> Option<Tensor> {
    let dims: Vec<u64> = tensor.shape().iter().map(|&d| d as u64).collect();
    if tensor.datum_type() == DatumType::TDim {
        let sizes = sizes(tensor)?
            .iter()
            .map(TDim::as_i64)
            .collect::<Option<Vec<i64>>>()?;
        return Some(Tensor::i64s(&dims, sizes));
    }
    let dtype = from_datum_type(tensor.datum_type(), Halves::Bfloat16Unknown)?;
    if dtype == DataType::String || !tensor.is_plain_ram() {
        return None;
    }
    let mut bytes = if tensor.len() == 0 {
        Vec::new()
    } else {
        tensor.as_bytes().to_vec()
    };
    swap_on_big_endian(&mut bytes, tensor.datum_type());
    Some(Tensor::from_bytes(dtype, &dims, bytes.into()))
}

/// The elements of a scalar or vector of symbolic integers, as dimensions.
pub(crate) fn symbolic_vector(tensor: &TractTensor) -> Option<Vec<Dim>> {
    if tensor.datum_type() != DatumType::TDim || tensor.rank() > 1 {
        return None;
    }
    Some(sizes(tensor)?.iter().map(from_tdim).collect())
}

/// A size as text, where it is not a number. Negative numbers, which no size is, are unknown.
pub(crate) fn from_tdim(dim: &TDim) -> Dim {
    match dim.as_i64() {
        Some(size) => u64::try_from(size).map_or(Dim::Unknown, Dim::Known),
        None => Dim::Symbol(dim.to_string()),
    }
}

pub(crate) fn sizes(tensor: &TractTensor) -> Option<&[TDim]> {
    tensor.try_as_plain_ram().ok()?.as_slice::<TDim>().ok()
}

fn swap_on_big_endian(bytes: &mut [u8], datum_type: DatumType) {
    if cfg!(target_endian = "big") {
        bytes
            .chunks_exact_mut(datum_type.size_of())
            .for_each(<[u8]>::reverse);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_beside_a_zero_are_bounded() {
        let empty = |dims: &[u64]| to_tract(&Tensor::f32s(dims, Vec::new()), Halves::AsFloat);
        assert!(empty(&[0, 1 << 20, 1 << 20]).is_ok());
        let error = empty(&[0, 1 << 40, 1 << 40]).unwrap_err().to_string();
        assert!(error.contains("too large"), "{error}");
    }
}
