//! Attributes of a node, with the defaults of the register.

use bcosc_onnx::proto::AttributeProto;

use super::Literal;
use crate::Op;
use crate::node::attribute_type;

/// What an attribute can be read as: integers that hold its value, `bool` (whether it is not 0), `f32`, `&str`, `&[i64]`.
pub trait AttributeValue<'a>: Sized {
    /// Reads the attribute of a node.
    fn given(attribute: &'a AttributeProto) -> Option<Self>;
    /// Reads the default of the specification.
    fn of_default(literal: Literal) -> Option<Self>;
}

impl Op {
    /// An attribute, or else its default. `None` if the node has it in another type, where it has no default, and
    /// where the default depends on the opset: see [`Op::get_at`].
    pub fn get<'a, T: AttributeValue<'a>>(&'a self, name: &str) -> Option<T> {
        match self.attribute(name) {
            Some(attribute) => T::given(attribute.proto()),
            None => T::of_default(self.operator()?.default(name)?),
        }
    }

    /// An attribute, or else the default that it has in an opset. `None` if the node has it in another type, and where
    /// it has no default.
    pub fn get_at<'a, T: AttributeValue<'a>>(&'a self, name: &str, opset: i64) -> Option<T> {
        match self.attribute(name) {
            Some(attribute) => T::given(attribute.proto()),
            None => {
                let schema = self.operator()?.schema(opset);
                T::of_default(schema.attribute(name)?.default?)
            }
        }
    }
}

macro_rules! integers {
    ($($integer:ty)*) => {$(
        impl AttributeValue<'_> for $integer {
            fn given(attribute: &AttributeProto) -> Option<Self> {
                attribute.i.and_then(|value| value.try_into().ok())
            }

            fn of_default(literal: Literal) -> Option<Self> {
                match literal {
                    Literal::Int(value) => value.try_into().ok(),
                    _ => None,
                }
            }
        }
    )*};
}

integers! { i32 i64 u64 usize }

impl AttributeValue<'_> for bool {
    fn given(attribute: &AttributeProto) -> Option<Self> {
        i64::given(attribute).map(|value| value != 0)
    }

    fn of_default(literal: Literal) -> Option<Self> {
        i64::of_default(literal).map(|value| value != 0)
    }
}

impl AttributeValue<'_> for f32 {
    fn given(attribute: &AttributeProto) -> Option<Self> {
        attribute.f
    }

    fn of_default(literal: Literal) -> Option<Self> {
        match literal {
            Literal::Float(value) => Some(value),
            _ => None,
        }
    }
}

impl<'a> AttributeValue<'a> for &'a str {
    fn given(attribute: &'a AttributeProto) -> Option<Self> {
        std::str::from_utf8(attribute.s.as_ref()?).ok()
    }

    fn of_default(literal: Literal) -> Option<Self> {
        match literal {
            Literal::String(value) => Some(value),
            _ => None,
        }
    }
}

impl<'a> AttributeValue<'a> for &'a [i64] {
    fn given(attribute: &'a AttributeProto) -> Option<Self> {
        // Files of the first format version name no types.
        let is_list = matches!(attribute.r#type, None | Some(0 | attribute_type::INTS));
        is_list.then_some(&attribute.ints)
    }

    fn of_default(literal: Literal) -> Option<Self> {
        match literal {
            Literal::Ints(values) => Some(values),
            _ => None,
        }
    }
}
