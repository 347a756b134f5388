//! Constants that nodes carry in their attributes.

use std::collections::BTreeMap;

use bcosc_ir::onnx::proto::{AttributeProto, NodeProto};
use bcosc_ir::{DataType, Tensor};

use super::node::{attribute, is};
use super::tensor::{Halves, is_half};

/// Constants by name.
pub(crate) type Constants = BTreeMap<String, Tensor>;

/// `AttributeProto.AttributeType.TENSOR`.
const TENSOR: i32 = 4;

/// Whether a node is ONNX's `Constant`.
pub(crate) fn is_constant(node: &NodeProto) -> bool {
    is(node, "Constant")
}

/// The value of a `Constant` node; `None` for strings and sparse tensors.
pub(crate) fn take_constant(node: NodeProto) -> Option<Tensor> {
    let attribute = node.attribute.into_iter().next()?;
    let floats = |dims: &[u64], values: &[f32]| Tensor::f32s(dims, values.to_vec());
    Some(match attribute.name.as_deref()? {
        "value" => Tensor::from_proto(*attribute.t?).ok()?,
        "value_int" => Tensor::i64s(&[], vec![attribute.i?]),
        "value_float" => floats(&[], &[attribute.f?]),
        "value_ints" => Tensor::i64_vec(&attribute.ints),
        "value_floats" => floats(&[attribute.floats.len() as u64], &attribute.floats),
        _ => return None,
    })
}

/// Writes out the value that `ConstantOfShape` fills with by default: tract takes it for a double.
pub(crate) fn complete(node: &mut NodeProto) {
    if is(node, "ConstantOfShape") && node.attribute.is_empty() {
        let zero = Tensor::f32s(&[1], vec![0.0]);
        node.attribute.push(AttributeProto {
            name: Some("value".to_owned()),
            r#type: Some(TENSOR),
            t: Some(Box::new(zero.into_proto())),
            ..AttributeProto::default()
        });
    }
}

/// Makes a `Cast` that keeps the type of a constant an `Identity`: tract takes the largest integer,
/// which means the end of an axis, for another one when it casts it.
pub(crate) fn keep_type(node: &mut NodeProto, dtype_of: &dyn Fn(&str) -> Option<DataType>) {
    if !is(node, "Cast") {
        return;
    }
    let from = node.input.first().and_then(|name| dtype_of(name));
    if let (Some(from), Some(to)) = (from, attribute(node, "to").and_then(|a| a.i))
        && to == i64::from(from.to_i32())
    {
        node.op_type = Some("Identity".to_owned());
        node.attribute.clear();
    }
}

/// The element type that stands for another one.
pub(crate) fn stand_in(halves: Halves) -> Option<DataType> {
    match halves {
        Halves::AsFloat => Some(DataType::Float),
        Halves::Bfloat16AsFloat16 => Some(DataType::Float16),
        Halves::Bfloat16Unknown => None,
    }
}

/// Replaces types by their stand-in where a node's attributes name an element type or hold a value.
pub(crate) fn retype(node: &mut NodeProto, halves: Halves, stand_in: DataType) {
    node.attribute
        .iter_mut()
        .for_each(|attribute| retype_attribute(attribute, halves, stand_in));
}

fn retype_attribute(attribute: &mut AttributeProto, halves: Halves, stand_in: DataType) {
    let is_replaced = |number: i32| match DataType::from_i32(number) {
        Some(dtype) if halves == Halves::AsFloat => is_half(dtype),
        dtype => dtype == Some(DataType::Bfloat16),
    };
    let names_type = matches!(attribute.name.as_deref(), Some("to" | "dtype"));
    let named = attribute.i.and_then(|i| i32::try_from(i).ok());
    if names_type && named.is_some_and(is_replaced) {
        attribute.i = Some(stand_in.to_i32().into());
    }
    let held = attribute
        .t
        .as_deref()
        .filter(|t| t.data_type.is_some_and(is_replaced));
    let widened = held
        .and_then(|t| Tensor::from_proto(t.clone()).ok())
        .and_then(|t| {
            let elements = t.to_f64s().ok()?;
            Tensor::floats(stand_in, &t.dims(), &elements)
        });
    if let Some(tensor) = widened {
        attribute.t = Some(Box::new(tensor.into_proto()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constant(attribute: AttributeProto) -> NodeProto {
        NodeProto {
            op_type: Some("Constant".into()),
            attribute: vec![attribute],
            ..NodeProto::default()
        }
    }

    #[test]
    fn every_dense_form_of_constant_is_read() {
        let named = |name: &str| AttributeProto {
            name: Some(name.into()),
            ..AttributeProto::default()
        };
        let int = constant(AttributeProto {
            i: Some(-3),
            ..named("value_int")
        });
        assert_eq!(take_constant(int), Some(Tensor::i64s(&[], vec![-3])));
        let floats = constant(AttributeProto {
            floats: vec![1.0, 2.5],
            ..named("value_floats")
        });
        assert_eq!(
            take_constant(floats),
            Some(Tensor::f32s(&[2], vec![1.0, 2.5]))
        );
        let held = Tensor::i64_vec(&[4, 5]);
        let tensor = constant(AttributeProto {
            t: Some(Box::new(held.proto().clone())),
            ..named("value")
        });
        assert_eq!(take_constant(tensor), Some(held));
        let text = constant(AttributeProto {
            s: Some("x".into()),
            ..named("value_string")
        });
        assert_eq!(take_constant(text), None);
    }

    #[test]
    fn bfloat16_attributes_become_what_tract_has() {
        let to = AttributeProto {
            name: Some("to".into()),
            i: Some(DataType::Bfloat16.to_i32().into()),
            ..AttributeProto::default()
        };
        let mut node = NodeProto {
            attribute: vec![to],
            ..NodeProto::default()
        };
        retype(&mut node, Halves::AsFloat, DataType::Float);
        assert_eq!(node.attribute[0].i, Some(1));
    }
}
