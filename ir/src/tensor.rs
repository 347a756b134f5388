//! Constant tensors: a slice of the mapped model file until a rewrite makes new ones.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bcosc_onnx::DataType;
use bcosc_onnx::proto::TensorProto;
use bytemuck::NoUninit;
use bytes::Bytes;
use half::{bf16, f16};

use crate::TensorType;

/// Why a tensor cannot be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// Declaration and data do not agree.
    #[error(transparent)]
    Onnx(#[from] bcosc_onnx::TensorError),
    /// The elements are of another kind than the caller needs.
    #[error("expected a tensor of {wanted} elements, found {found}")]
    WrongType {
        /// The kind that is needed.
        wanted: &'static str,
        /// The tensor's element type.
        found: DataType,
    },
}

/// An immutable dense tensor. Cloning shares the payload.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    proto: Arc<TensorProto>,
    dtype: DataType,
}

impl Tensor {
    /// Takes over an ONNX tensor as it is; its encoding is kept for the way out. An error where its
    /// type is not one that ONNX defines or its shape cannot be.
    pub fn from_proto(proto: TensorProto) -> Result<Self, TensorError> {
        proto.element_count()?;
        let dtype = proto.dtype()?;
        let proto = Arc::new(proto);
        Ok(Tensor { proto, dtype })
    }

    /// The ONNX message, without a name of its own.
    pub fn proto(&self) -> &TensorProto {
        &self.proto
    }

    /// The ONNX message, by value.
    pub fn into_proto(self) -> TensorProto {
        Arc::unwrap_or_clone(self.proto)
    }

    /// A tensor of `dtype` from little-endian elements. `bytes` must hold exactly the elements of `dims`.
    pub fn from_bytes(dtype: DataType, dims: &[u64], bytes: Bytes) -> Self {
        let proto = TensorProto {
            dims: dims.iter().map(|&d| d as i64).collect(),
            data_type: Some(dtype.to_i32()),
            raw_data: Some(bytes),
            ..TensorProto::default()
        };
        let proto = Arc::new(proto);
        Tensor { proto, dtype }
    }

    /// Single-precision elements in row-major order.
    pub fn f32s(dims: &[u64], elements: Vec<f32>) -> Self {
        debug_assert_eq!(dims.iter().product::<u64>(), elements.len() as u64);
        Self::from_bytes(DataType::Float, dims, owned(elements, f32::to_le_bytes))
    }

    /// 64-bit integers in row-major order.
    pub fn i64s(dims: &[u64], elements: Vec<i64>) -> Self {
        debug_assert_eq!(dims.iter().product::<u64>(), elements.len() as u64);
        Self::from_bytes(DataType::Int64, dims, owned(elements, i64::to_le_bytes))
    }

    /// A vector of 64-bit integers, as shapes and axes are given.
    pub fn i64_vec(elements: &[i64]) -> Self {
        Self::i64s(&[elements.len() as u64], elements.to_vec())
    }

    /// Elements rounded to a floating-point `dtype`; `None` when `dtype` is not float, double, float16 or bfloat16.
    pub fn floats(dtype: DataType, dims: &[u64], elements: &[f64]) -> Option<Self> {
        debug_assert_eq!(dims.iter().product::<u64>(), elements.len() as u64);
        let elements = elements.iter().copied();
        let bytes = match dtype {
            DataType::Float => le_bytes(elements, |x| (x as f32).to_le_bytes()),
            DataType::Double => le_bytes(elements, f64::to_le_bytes),
            DataType::Float16 => le_bytes(elements, |x| f16::from_f64(x).to_le_bytes()),
            DataType::Bfloat16 => le_bytes(elements, |x| bf16::from_f64(x).to_le_bytes()),
            _ => return None,
        };
        Some(Self::from_bytes(dtype, dims, bytes))
    }

    /// Element type.
    pub fn dtype(&self) -> DataType {
        self.dtype
    }

    /// Dimensions, outermost first.
    pub fn dims(&self) -> Vec<u64> {
        self.proto.dims.iter().map(|&d| d as u64).collect()
    }

    /// Number of elements, saturating.
    pub fn len(&self) -> u64 {
        self.dims().iter().fold(1, |n, &d| n.saturating_mul(d))
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element type and dimensions.
    pub fn tensor_type(&self) -> TensorType {
        TensorType::fixed(self.dtype(), &self.dims())
    }

    /// Size of the payload in bytes, saturating.
    pub fn byte_len(&self) -> u64 {
        self.dtype().byte_len(self.len()).unwrap_or(u64::MAX)
    }

    /// The elements, little-endian; borrows from the file where the tensor is in `raw_data`.
    pub fn bytes(&self) -> Result<Bytes, TensorError> {
        Ok(self.proto.payload()?)
    }

    /// The elements of any floating-point type, widened or rounded to single precision.
    /// An error for other element types.
    pub fn to_f32s(&self) -> Result<Vec<f32>, TensorError> {
        let bytes = self.bytes()?;
        Ok(match self.dtype() {
            DataType::Float => chunks(&bytes, f32::from_le_bytes),
            DataType::Double => chunks(&bytes, |b| f64::from_le_bytes(b) as f32),
            DataType::Float16 => chunks(&bytes, |b| f16::from_le_bytes(b).to_f32()),
            DataType::Bfloat16 => chunks(&bytes, |b| bf16::from_le_bytes(b).to_f32()),
            other => {
                return Err(TensorError::WrongType {
                    wanted: "a floating-point type",
                    found: other,
                });
            }
        })
    }

    /// The elements of any floating-point type in double precision. An error for other element types.
    pub fn to_f64s(&self) -> Result<Vec<f64>, TensorError> {
        match self.dtype() {
            DataType::Double => Ok(chunks(&self.bytes()?, f64::from_le_bytes)),
            _ => Ok(self.to_f32s()?.into_iter().map(f64::from).collect()),
        }
    }

    /// The elements in place when they are aligned single-precision floats, otherwise a converted copy.
    pub fn as_f32s<'a>(&self, bytes: &'a Bytes) -> Result<Cow<'a, [f32]>, TensorError> {
        match bytemuck::try_cast_slice(bytes) {
            Ok(slice) if self.dtype() == DataType::Float && cfg!(target_endian = "little") => {
                Ok(Cow::Borrowed(slice))
            }
            _ => self.to_f32s().map(Cow::Owned),
        }
    }

    /// The elements of any integer or boolean type. An error for other element types.
    pub fn to_i64s(&self) -> Result<Vec<i64>, TensorError> {
        let bytes = self.bytes()?;
        Ok(match self.dtype() {
            DataType::Int64 => chunks(&bytes, i64::from_le_bytes),
            DataType::Int32 => chunks(&bytes, |b| i32::from_le_bytes(b).into()),
            DataType::Int16 => chunks(&bytes, |b| i16::from_le_bytes(b).into()),
            DataType::Int8 => chunks(&bytes, |b| i8::from_le_bytes(b).into()),
            DataType::Uint64 => chunks(&bytes, |b| u64::from_le_bytes(b) as i64),
            DataType::Uint32 => chunks(&bytes, |b| u32::from_le_bytes(b).into()),
            DataType::Uint16 => chunks(&bytes, |b| u16::from_le_bytes(b).into()),
            DataType::Uint8 | DataType::Bool => chunks(&bytes, |[b]: [u8; 1]| b.into()),
            other => {
                return Err(TensorError::WrongType {
                    wanted: "an integer type",
                    found: other,
                });
            }
        })
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({})", self.tensor_type())
    }
}

/// Elements in memory.
struct Elements<T>(Vec<T>);

impl<T: NoUninit> AsRef<[u8]> for Elements<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// The bytes of `elements`, not copied if the processor has them in this order.
fn owned<T, const N: usize>(elements: Vec<T>, encode: impl Fn(T) -> [u8; N]) -> Bytes
where
    T: NoUninit + Send + 'static,
{
    match cfg!(target_endian = "little") {
        true => Bytes::from_owner(Elements(elements)),
        false => le_bytes(elements, encode),
    }
}

fn le_bytes<T, const N: usize>(
    elements: impl IntoIterator<Item = T>,
    encode: impl Fn(T) -> [u8; N],
) -> Bytes {
    elements
        .into_iter()
        .flat_map(encode)
        .collect::<Vec<u8>>()
        .into()
}

fn chunks<T, const N: usize>(bytes: &[u8], decode: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes
        .as_chunks::<N>()
        .0
        .iter()
        .map(|chunk| decode(*chunk))
        .collect()
}
