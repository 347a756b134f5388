//! Element types, and numbers of them.

use bcosc_ir::DataType;
use serde::{Deserialize, Serialize};

/// Element types of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Type {
    /// Single precision.
    F32,
    /// Double precision.
    F64,
    /// The upper half of single precision; kernels read and write it, and compute in single precision.
    Bf16,
    /// 64-bit integers.
    I64,
    /// 32-bit integers.
    I32,
    /// Unsigned bytes.
    U8,
    /// Truth values, a byte each.
    Bool,
}

impl Type {
    /// The type of ONNX elements, where kernels compute in it.
    pub fn of(dtype: DataType) -> Option<Self> {
        Some(match dtype {
            DataType::Float => Type::F32,
            DataType::Double => Type::F64,
            DataType::Int64 => Type::I64,
            DataType::Int32 => Type::I32,
            DataType::Uint8 => Type::U8,
            DataType::Bool => Type::Bool,
            _ => return None,
        })
    }

    /// As ONNX calls it.
    pub fn data_type(self) -> DataType {
        match self {
            Type::F32 => DataType::Float,
            Type::F64 => DataType::Double,
            Type::Bf16 => DataType::Bfloat16,
            Type::I64 => DataType::Int64,
            Type::I32 => DataType::Int32,
            Type::U8 => DataType::Uint8,
            Type::Bool => DataType::Bool,
        }
    }

    /// Bytes of an element.
    pub fn bytes(self) -> u64 {
        match self {
            Type::F64 | Type::I64 => 8,
            Type::F32 | Type::I32 => 4,
            Type::Bf16 => 2,
            Type::U8 | Type::Bool => 1,
        }
    }

    /// As CUDA C calls it.
    pub fn c(self) -> &'static str {
        match self {
            Type::F32 => "float",
            Type::F64 => "double",
            Type::Bf16 => "bf16",
            Type::I64 => "long long",
            Type::I32 => "int",
            Type::U8 => "unsigned char",
            Type::Bool => "bool",
        }
    }

    /// Whether elements have a fraction.
    pub fn is_float(self) -> bool {
        matches!(self, Type::F32 | Type::F64 | Type::Bf16)
    }
}

/// A number in a kernel's source, by its bits so that it can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Number {
    /// Its type.
    pub ty: Type,
    /// A double's bits for floating-point types, otherwise the integer.
    bits: i64,
}

impl Number {
    /// A number of a type.
    pub fn new(ty: Type, value: f64) -> Self {
        let bits = match ty.is_float() {
            true => value.to_bits() as i64,
            // Saturates, so that the smallest and largest numbers of 64 bits arrive.
            false => value as i64,
        };
        Number { ty, bits }
    }

    /// An integer of an integer type.
    pub fn int(ty: Type, value: i64) -> Self {
        match ty.is_float() {
            true => Number::new(ty, value as f64),
            false => Number { ty, bits: value },
        }
    }

    /// As a double.
    pub fn as_f64(self) -> f64 {
        match self.ty.is_float() {
            true => f64::from_bits(self.bits as u64),
            false => self.bits as f64,
        }
    }

    /// As an integer.
    pub fn as_i64(self) -> i64 {
        match self.ty.is_float() {
            true => f64::from_bits(self.bits as u64) as i64,
            false => self.bits,
        }
    }
}
