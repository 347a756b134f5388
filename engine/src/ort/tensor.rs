//! Tensors in ONNX Runtime's memory.

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;

use bcosc_ir::{DataType, Tensor, TensorType};
use bytes::Bytes;
use half::{bf16, f16};
use ort::memory::AllocationDevice;
use ort::session::SessionInputValue;
use ort::value::{DynTensor, PrimitiveTensorElementType, TensorElementType, TensorRef};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::{cuda, fault};
use crate::{Device, EngineError, Stored, Value};

/// Element types, in ONNX, ONNX Runtime and Rust.
macro_rules! elements {
    ($($dtype:ident, $ort:ident, $rust:ty;)*) => {
        /// Whether values can be of a type.
        pub(crate) fn is_numeric(dtype: DataType) -> bool {
            matches!(dtype, $(DataType::$dtype)|*)
        }

        /// ONNX's name of a type.
        fn from_ort(element: TensorElementType) -> Option<DataType> {
            match element {
                $(TensorElementType::$ort => Some(DataType::$dtype),)*
                _ => None,
            }
        }

        /// A copy of a tensor.
        fn upload(tensor: &Tensor) -> Result<DynTensor, EngineError> {
            match tensor.dtype() {
                $(DataType::$dtype => upload_as::<$rust>(tensor),)*
                other => Err(EngineError::DataType(other)),
            }
        }

        /// The elements of a tensor as an input; `bytes` are those of `tensor`.
        fn view<'b>(tensor: &Tensor, bytes: &'b [u8]) -> Result<SessionInputValue<'b>, EngineError> {
            match tensor.dtype() {
                $(DataType::$dtype => view_as::<$rust>(tensor, bytes),)*
                other => Err(EngineError::DataType(other)),
            }
        }

        /// A copy of the elements, little-endian.
        fn download(tensor: &DynTensor, dtype: DataType) -> Result<Vec<u8>, EngineError> {
            match dtype {
                $(DataType::$dtype => download_as::<$rust>(tensor),)*
                other => Err(EngineError::DataType(other)),
            }
        }
    };
}

elements! {
    Float, Float32, f32;
    Double, Float64, f64;
    Float16, Float16, f16;
    Bfloat16, Bfloat16, bf16;
    Int8, Int8, i8;
    Int16, Int16, i16;
    Int32, Int32, i32;
    Int64, Int64, i64;
    Uint8, Uint8, u8;
    Uint16, Uint16, u16;
    Uint32, Uint32, u32;
    Uint64, Uint64, u64;
    Bool, Bool, bool;
}

/// A tensor in ONNX Runtime's memory.
#[derive(Debug)]
pub(crate) struct OrtTensor {
    tensor: DynTensor,
    dtype: DataType,
}

impl OrtTensor {
    /// Copies a tensor to a device.
    pub fn on(tensor: &Tensor, device: Device) -> Result<Self, EngineError> {
        let here = upload(tensor)?;
        Ok(OrtTensor {
            tensor: match device {
                Device::Cpu => here,
                Device::Cuda(number) => cuda::uploaded(&here, number)?,
            },
            dtype: tensor.dtype(),
        })
    }

    /// What a run has computed; `None` if it is not numeric.
    pub fn computed(tensor: DynTensor) -> Option<Self> {
        let dtype = from_ort(*tensor.data_type())?;
        Some(OrtTensor { tensor, dtype })
    }
}

impl Stored for OrtTensor {
    fn tensor_type(&self) -> TensorType {
        TensorType::fixed(self.dtype, &dims(&self.tensor))
    }

    fn read(&self) -> Result<Tensor, EngineError> {
        let bytes = match self.tensor.memory_info().is_cpu_accessible() {
            true => download(&self.tensor, self.dtype)?,
            false => {
                let here = self.tensor.to(AllocationDevice::CPU, 0);
                download(&here.map_err(|e| fault::elsewhere(&e))?, self.dtype)?
            }
        };
        let dims = dims(&self.tensor);
        Ok(Tensor::from_bytes(self.dtype, &dims, bytes.into()))
    }
}

fn dims(tensor: &DynTensor) -> Vec<u64> {
    tensor.shape().iter().map(|&d| d.unsigned_abs()).collect()
}

/// A value that is kept while a run reads it.
pub(crate) enum Operand {
    Stored(Arc<OrtTensor>),
    /// A tensor and its elements.
    Host(Tensor, Bytes),
}

impl Operand {
    /// The value itself, or what another engine has of it.
    pub fn of(value: Value) -> Result<Self, EngineError> {
        match value.into_stored::<OrtTensor>() {
            Ok(stored) => Ok(Operand::Stored(stored)),
            Err(other) => {
                let tensor = other.to_tensor()?;
                let bytes = tensor.bytes()?;
                Ok(Operand::Host(tensor, bytes))
            }
        }
    }

    /// The value as an input, without a copy where possible.
    pub fn view(&self) -> Result<SessionInputValue<'_>, EngineError> {
        match self {
            Operand::Stored(stored) => Ok((&stored.tensor).into()),
            Operand::Host(tensor, bytes) => view(tensor, bytes),
        }
    }
}

fn upload_as<T: Element>(tensor: &Tensor) -> Result<DynTensor, EngineError> {
    let elements = T::decode(&tensor.bytes()?).into_owned();
    let made = ort::value::Tensor::from_array((shape(tensor)?, elements));
    Ok(made.map_err(|e| fault::elsewhere(&e))?.upcast())
}

fn view_as<'b, T: Element>(
    tensor: &Tensor,
    bytes: &'b [u8],
) -> Result<SessionInputValue<'b>, EngineError> {
    let elements = T::decode(bytes);
    let shape = shape(tensor)?;
    let made = match elements {
        Cow::Borrowed(elements) => TensorRef::from_array_view((shape, elements)).map(Into::into),
        Cow::Owned(elements) => ort::value::Tensor::from_array((shape, elements)).map(Into::into),
    };
    made.map_err(|e| fault::elsewhere(&e))
}

fn download_as<T: Element>(tensor: &DynTensor) -> Result<Vec<u8>, EngineError> {
    let (_, elements) = tensor
        .try_extract_tensor::<T>()
        .map_err(|e| fault::elsewhere(&e))?;
    Ok(T::encode(elements))
}

/// The sizes of a tensor; the `ort` crate multiplies them without a check, also where one is zero.
fn shape(tensor: &Tensor) -> Result<Vec<i64>, EngineError> {
    let dims = tensor.dims();
    let product = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
    if product.is_none() {
        return Err(EngineError::Run {
            place: super::NAME.to_owned(),
            reason: format!("{} is too large", tensor.tensor_type()),
        });
    }
    Ok(dims.into_iter().map(|d| d as i64).collect())
}

/// A Rust type of elements. Bytes are little-endian, as in ONNX.
trait Element: PrimitiveTensorElementType + Debug + Clone + 'static {
    /// Elements of bytes, in place where they are aligned.
    fn decode(bytes: &[u8]) -> Cow<'_, [Self]>;

    /// Bytes of elements.
    fn encode(elements: &[Self]) -> Vec<u8>;
}

macro_rules! numbers {
    ($($rust:ty),*) => {
        $(impl Element for $rust {
            fn decode(bytes: &[u8]) -> Cow<'_, [Self]> {
                if cfg!(target_endian = "little") && let Ok(elements) = <[Self]>::ref_from_bytes(bytes) {
                    return Cow::Borrowed(elements);
                }
                let mut elements = vec![Self::new_zeroed(); bytes.len() / size_of::<Self>()];
                let whole = &bytes[..size_of_val(elements.as_slice())];
                elements.as_mut_bytes().copy_from_slice(whole);
                swap_on_big_endian(elements.as_mut_bytes(), size_of::<Self>());
                Cow::Owned(elements)
            }

            fn encode(elements: &[Self]) -> Vec<u8> {
                let mut bytes = elements.as_bytes().to_vec();
                swap_on_big_endian(&mut bytes, size_of::<Self>());
                bytes
            }
        })*
    };
}

numbers!(f32, f64, f16, bf16, i8, i16, i32, i64, u8, u16, u32, u64);

impl Element for bool {
    /// Anything but 0 and 1 in a Rust bool is undefined behaviour.
    fn decode(bytes: &[u8]) -> Cow<'_, [Self]> {
        bytes.iter().map(|byte| *byte != 0).collect()
    }

    fn encode(elements: &[Self]) -> Vec<u8> {
        elements.as_bytes().to_vec()
    }
}

fn swap_on_big_endian(bytes: &mut [u8], size: usize) {
    if cfg!(target_endian = "big") {
        bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
    }
}
