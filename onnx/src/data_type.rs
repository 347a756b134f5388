//! The element types of ONNX tensors.

use std::fmt;

/// Declares the types once: variant, `TensorProto.DataType` number, ONNX name, bits an element.
macro_rules! data_types {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $bits:expr;)*) => {
        /// The element type of a tensor: every `TensorProto.DataType` except `UNDEFINED`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i32)]
        pub enum DataType {
            $($(#[$doc])* $variant = $number,)*
        }

        impl DataType {
            /// Every type, in the order of its number.
            pub const ALL: &[DataType] = &[$(DataType::$variant),*];

            /// The type that ONNX gives this number, or `None` for 0 (`UNDEFINED`) and for numbers
            /// that the schema does not have.
            pub fn from_i32(number: i32) -> Option<DataType> {
                match number {
                    $($number => Some(DataType::$variant),)*
                    _ => None,
                }
            }

            /// The name in ONNX's textual syntax, such as `float` or `int64`.
            pub fn name(self) -> &'static str {
                match self {
                    $(DataType::$variant => $name,)*
                }
            }

            /// Bits of one element in `raw_data`, or `None` for strings, which have no fixed size.
            pub fn bits(self) -> Option<u32> {
                match self {
                    $(DataType::$variant => $bits,)*
                }
            }
        }
    };
}

data_types! {
    /// IEEE 754 single precision.
    Float = 1, "float", Some(32);
    /// Unsigned, 8 bits.
    Uint8 = 2, "uint8", Some(8);
    /// Signed, 8 bits.
    Int8 = 3, "int8", Some(8);
    /// Unsigned, 16 bits.
    Uint16 = 4, "uint16", Some(16);
    /// Signed, 16 bits.
    Int16 = 5, "int16", Some(16);
    /// Signed, 32 bits.
    Int32 = 6, "int32", Some(32);
    /// Signed, 64 bits.
    Int64 = 7, "int64", Some(64);
    /// UTF-8 text of any length.
    String = 8, "string", None;
    /// One byte, 0 or 1.
    Bool = 9, "bool", Some(8);
    /// IEEE 754 half precision.
    Float16 = 10, "float16", Some(16);
    /// IEEE 754 double precision.
    Double = 11, "double", Some(64);
    /// Unsigned, 32 bits.
    Uint32 = 12, "uint32", Some(32);
    /// Unsigned, 64 bits.
    Uint64 = 13, "uint64", Some(64);
    /// Two floats: real and imaginary part.
    Complex64 = 14, "complex64", Some(64);
    /// Two doubles: real and imaginary part.
    Complex128 = 15, "complex128", Some(128);
    /// The upper half of a single precision number.
    Bfloat16 = 16, "bfloat16", Some(16);
    /// 8 bits: 4 exponent, 3 mantissa, no infinity.
    Float8E4M3Fn = 17, "float8e4m3fn", Some(8);
    /// 8 bits: 4 exponent, 3 mantissa, no infinity, no negative zero.
    Float8E4M3Fnuz = 18, "float8e4m3fnuz", Some(8);
    /// 8 bits: 5 exponent, 2 mantissa.
    Float8E5M2 = 19, "float8e5m2", Some(8);
    /// 8 bits: 5 exponent, 2 mantissa, no infinity, no negative zero.
    Float8E5M2Fnuz = 20, "float8e5m2fnuz", Some(8);
    /// Unsigned, two in a byte.
    Uint4 = 21, "uint4", Some(4);
    /// Signed, two in a byte.
    Int4 = 22, "int4", Some(4);
    /// 4 bits: 2 exponent, 1 mantissa; two in a byte.
    Float4E2M1 = 23, "float4e2m1", Some(4);
    /// A power of two, for scales.
    Float8E8M0 = 24, "float8e8m0", Some(8);
    /// Unsigned, four in a byte.
    Uint2 = 25, "uint2", Some(2);
    /// Signed, four in a byte.
    Int2 = 26, "int2", Some(2);
    /// 6 bits: 2 exponent, 3 mantissa; four in three bytes.
    Float6E2M3 = 27, "float6e2m3", Some(6);
    /// 6 bits: 3 exponent, 2 mantissa; four in three bytes.
    Float6E3M2 = 28, "float6e3m2", Some(6);
}

impl DataType {
    /// The number that ONNX gives this type.
    pub fn to_i32(self) -> i32 {
        self as i32
    }

    /// Whether images, weights and results can have this type: 16, 32 or 64 bits of floating point.
    pub fn is_float(self) -> bool {
        use DataType::{Bfloat16, Double, Float, Float16};
        matches!(self, Float | Double | Float16 | Bfloat16)
    }

    /// Bytes that this many elements take in `raw_data`: elements below a byte are packed, and the
    /// last byte is filled up. `None` for strings, and where the size does not fit 64 bits.
    pub fn byte_len(self, elements: u64) -> Option<u64> {
        let bits = u64::from(self.bits()?);
        if bits.is_multiple_of(8) {
            return elements.checked_mul(bits / 8);
        }
        // Whole groups of 8 elements take `bits` bytes, so nothing overflows on the way.
        let whole = (elements / 8).checked_mul(bits)?;
        whole.checked_add((elements % 8 * bits).div_ceil(8))
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_come_back() {
        for (i, &t) in DataType::ALL.iter().enumerate() {
            assert_eq!(t.to_i32(), i as i32 + 1);
            assert_eq!(DataType::from_i32(t.to_i32()), Some(t));
        }
        assert_eq!(DataType::ALL.len(), 28);
        for n in [i32::MIN, -1, 0, 29, i32::MAX] {
            assert_eq!(DataType::from_i32(n), None);
        }
    }

    #[test]
    fn packed_lengths_round_up() {
        let cases = [
            (DataType::Int4, [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]),
            (DataType::Uint2, [0, 1, 1, 1, 1, 2, 2, 2, 2, 3]),
            (DataType::Float6E2M3, [0, 1, 2, 3, 3, 4, 5, 6, 6, 7]),
            (DataType::Int16, [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]),
        ];
        for (t, lens) in cases {
            for (n, len) in lens.into_iter().enumerate() {
                assert_eq!(t.byte_len(n as u64), Some(len), "{t} x {n}");
            }
        }
        assert_eq!(DataType::String.byte_len(1), None);
        assert_eq!(DataType::Float.byte_len(1 << 62), None);
        assert_eq!(DataType::Int4.byte_len(u64::MAX), Some(1 << 63));
    }
}
