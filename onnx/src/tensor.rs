//! Access to a tensor's elements, whichever field holds them.
//!
//! ONNX stores elements in `raw_data` or in the typed field that its data type is assigned to:
//! most small types are in `int32_data`, one element a value, the 2- and 4-bit ones already packed.
//! Here all of them come out as what `raw_data` would hold: row-major, little-endian, packed.

use std::mem::size_of;

use bytes::Bytes;

use crate::DataType;
use crate::error::{TensorError, TensorProblem};
use crate::proto::TensorProto;

/// `TensorProto.DataLocation.EXTERNAL`.
pub(crate) const EXTERNAL: i32 = 1;

impl TensorProto {
    /// The element type.
    ///
    /// # Errors
    /// If the number is absent, 0 (`UNDEFINED`) or one that the schema does not have.
    pub fn dtype(&self) -> Result<DataType, TensorError> {
        let number = self.data_type.unwrap_or(0);
        DataType::from_i32(number).ok_or_else(|| self.error(TensorProblem::DataType(number)))
    }

    /// The product of the dimensions; 1 for a scalar.
    ///
    /// # Errors
    /// If a dimension is negative or the product does not fit 64 bits. A zero among the dimensions
    /// makes the product 0 whatever the others are.
    pub fn element_count(&self) -> Result<u64, TensorError> {
        let mut count = Some(1u64);
        for (axis, &dim) in self.dims.iter().enumerate() {
            let Ok(size) = u64::try_from(dim) else {
                return Err(self.error(TensorProblem::NegativeDim { axis, dim }));
            };
            count = count.and_then(|c| c.checked_mul(size));
        }
        match count {
            Some(count) => Ok(count),
            None if self.dims.contains(&0) => Ok(0),
            None => Err(self.too_large()),
        }
    }

    /// Bytes that the shape and the type take: the length of [`TensorProto::payload`].
    ///
    /// # Errors
    /// As [`TensorProto::dtype`] and [`TensorProto::element_count`]; for strings; and if the size
    /// does not fit 64 bits.
    pub fn byte_len(&self) -> Result<u64, TensorError> {
        let data_type = self.dtype()?;
        if data_type == DataType::String {
            return Err(self.error(TensorProblem::Strings));
        }
        let count = self.element_count()?;
        data_type.byte_len(count).ok_or_else(|| self.too_large())
    }

    /// Whether the model says that the data is in another file.
    ///
    /// After [`crate::read()`] such a tensor has its bytes in `raw_data` *and* keeps `data_location`
    /// and `external_data` as they were: the two together mark data that came from outside. A model
    /// file never has both, and [`crate::write()`] never writes both.
    pub fn is_external(&self) -> bool {
        self.data_location == Some(EXTERNAL)
    }

    /// The elements as `raw_data` holds them: row-major, little-endian, elements below a byte
    /// packed from the low bits up. No copy is made where they are in `raw_data` already. Values
    /// in `int32_data` and `uint64_data` that are wider than the type are cut to its low bits, and
    /// booleans become 0 or 1.
    ///
    /// # Errors
    /// As [`TensorProto::byte_len`]; and if the tensor is a segment, holds another number of bytes
    /// or values than its shape and type take, or holds them in another type's field.
    pub fn payload(&self) -> Result<Bytes, TensorError> {
        let len = self.byte_len()?;
        self.check()?;
        let data_type = self.dtype()?;
        if let Some(raw) = &self.raw_data
            && raw.len() as u64 == len
        {
            return Ok(raw.clone());
        }
        Ok(self.typed(data_type).into())
    }

    /// The elements of a string tensor, row-major.
    ///
    /// # Errors
    /// If the tensor is of another type, is a segment, or has another number of strings than its
    /// shape takes.
    pub fn strings(&self) -> Result<&[Bytes], TensorError> {
        let data_type = self.dtype()?;
        if data_type != DataType::String {
            return Err(self.error(TensorProblem::NotStrings(data_type)));
        }
        self.check()?;
        Ok(&self.string_data)
    }

    /// Checks that the data is what the shape and the type declare: in `raw_data` or in the type's
    /// own field, and of the right size. Nothing is allocated and no payload is looked at.
    ///
    /// # Errors
    /// As [`TensorProto::payload`], strings being fine here.
    pub fn check(&self) -> Result<(), TensorError> {
        let data_type = self.dtype()?;
        if self.segment.is_some() {
            return Err(self.error(TensorProblem::Segment));
        }
        if self.is_external() && self.raw_data.is_none() {
            return Err(self.error(TensorProblem::Unresolved));
        }
        let count = self.element_count()?;
        let own = Field::of(data_type);
        for field in Field::ALL {
            if field != own && field.len(self) > 0 {
                return Err(self.error(TensorProblem::WrongField {
                    data_type,
                    expected: own.name(),
                    found: field.name(),
                }));
            }
        }
        let raw = self.raw_data.as_ref().map_or(0, |r| r.len() as u64);
        if data_type == DataType::String {
            if raw > 0 {
                return Err(self.error(TensorProblem::Strings));
            }
        } else if raw > 0 || self.is_external() {
            if own.len(self) > 0 {
                return Err(self.error(TensorProblem::WrongField {
                    data_type,
                    expected: "raw_data alone",
                    found: own.name(),
                }));
            }
            let expected = self.byte_len()?;
            if raw != expected {
                return Err(self.error(TensorProblem::ByteCount {
                    data_type,
                    dims: self.dims.clone(),
                    expected,
                    found: raw,
                }));
            }
            return Ok(());
        }
        let expected = values(data_type, count).ok_or_else(|| self.too_large())?;
        let found = own.len(self) as u64;
        if found != expected {
            return Err(self.error(TensorProblem::ValueCount {
                field: own.name(),
                data_type,
                dims: self.dims.clone(),
                expected,
                found,
            }));
        }
        Ok(())
    }

    /// The values of the typed field as `raw_data` would hold them.
    fn typed(&self, data_type: DataType) -> Vec<u8> {
        use DataType as D;
        match data_type {
            D::Float | D::Complex64 => flat(&self.float_data, |v| v.to_le_bytes()),
            D::Double | D::Complex128 => flat(&self.double_data, |v| v.to_le_bytes()),
            D::Int64 => flat(&self.int64_data, |v| v.to_le_bytes()),
            D::Uint64 => flat(&self.uint64_data, |v| v.to_le_bytes()),
            D::Uint32 => flat(&self.uint64_data, |v| (v as u32).to_le_bytes()),
            D::Int32 => flat(&self.int32_data, |v| v.to_le_bytes()),
            D::Int16 | D::Uint16 | D::Float16 | D::Bfloat16 => {
                flat(&self.int32_data, |v| (v as u16).to_le_bytes())
            }
            D::Bool => flat(&self.int32_data, |v| [u8::from(v != 0)]),
            D::Float6E2M3 | D::Float6E3M2 => pack_6_bits(&self.int32_data),
            _ => flat(&self.int32_data, |v| [v as u8]),
        }
    }

    fn too_large(&self) -> TensorError {
        self.error(TensorProblem::TooLarge(self.dims.clone()))
    }

    pub(crate) fn error(&self, problem: TensorProblem) -> TensorError {
        TensorError {
            tensor: self.name.clone().unwrap_or_default(),
            problem,
        }
    }
}

/// The typed fields of a tensor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Float,
    Int32,
    String,
    Int64,
    Double,
    Uint64,
}

impl Field {
    const ALL: [Field; 6] = [
        Field::Float,
        Field::Int32,
        Field::String,
        Field::Int64,
        Field::Double,
        Field::Uint64,
    ];

    /// Where ONNX puts the values of a type.
    fn of(data_type: DataType) -> Field {
        use DataType as D;
        match data_type {
            D::Float | D::Complex64 => Field::Float,
            D::Double | D::Complex128 => Field::Double,
            D::Int64 => Field::Int64,
            D::Uint32 | D::Uint64 => Field::Uint64,
            D::String => Field::String,
            _ => Field::Int32,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Field::Float => "float_data",
            Field::Int32 => "int32_data",
            Field::String => "string_data",
            Field::Int64 => "int64_data",
            Field::Double => "double_data",
            Field::Uint64 => "uint64_data",
        }
    }

    fn len(self, tensor: &TensorProto) -> usize {
        match self {
            Field::Float => tensor.float_data.len(),
            Field::Int32 => tensor.int32_data.len(),
            Field::String => tensor.string_data.len(),
            Field::Int64 => tensor.int64_data.len(),
            Field::Double => tensor.double_data.len(),
            Field::Uint64 => tensor.uint64_data.len(),
        }
    }
}

/// How many values of the typed field this many elements take.
fn values(data_type: DataType, elements: u64) -> Option<u64> {
    use DataType as D;
    match data_type {
        // Real and imaginary part.
        D::Complex64 | D::Complex128 => elements.checked_mul(2),
        // Packed already: a value is a byte.
        D::Uint4 | D::Int4 | D::Float4E2M1 | D::Uint2 | D::Int2 => data_type.byte_len(elements),
        _ => Some(elements),
    }
}

fn flat<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    let mut out = Vec::with_capacity(values.len() * size_of::<[u8; N]>());
    for &value in values {
        out.extend_from_slice(&bytes(value));
    }
    out
}

/// Four elements go into three bytes, as one stream of bits from the low end up.
fn pack_6_bits(values: &[i32]) -> Vec<u8> {
    let mut out = Vec::with_capacity((values.len() * 6).div_ceil(8));
    for group in values.chunks(4) {
        let mut bits = 0u32;
        for (i, &value) in group.iter().enumerate() {
            bits |= (value as u32 & 0x3f) << (6 * i);
        }
        out.extend_from_slice(&bits.to_le_bytes()[..(group.len() * 6).div_ceil(8)]);
    }
    out
}
