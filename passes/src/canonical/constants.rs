//! Reading constants, from initializers and `Constant` nodes.

use bcosc_ir::onnx::proto::{AttributeProto, TensorProto};
use bcosc_ir::{DataType, Graph, Node, NodeId, Op, ParameterData, Tensor, Value};
use half::{bf16, f16};

use crate::Reason;

/// The tensor of a `Constant` node, from any of its attributes.
pub(super) fn held_by(op: &Op) -> Result<Tensor, Reason> {
    let proto = op.attributes().first().map(bcosc_ir::Attribute::proto);
    let proto = proto.ok_or(Reason::Malformed)?;
    let tensor = match proto.name.as_deref().unwrap_or_default() {
        "value" => op.tensor("value"),
        "value_float" => proto.f.map(|x| Tensor::f32s(&[], vec![x])),
        "value_floats" => {
            let length = proto.floats.len() as u64;
            Some(Tensor::f32s(&[length], proto.floats.clone()))
        }
        "value_int" => proto.i.map(|x| Tensor::i64s(&[], vec![x])),
        "value_ints" => Some(Tensor::i64_vec(&proto.ints)),
        "value_string" | "value_strings" => strings(proto),
        "sparse_value" => return Err(Reason::Sparse),
        _ => None,
    };
    tensor.ok_or(Reason::Malformed)
}

fn strings(proto: &AttributeProto) -> Option<Tensor> {
    let single = proto.name.as_deref() == Some("value_string");
    let string_data = if single {
        vec![proto.s.clone()?]
    } else {
        proto.strings.clone()
    };
    let dims = if single {
        Vec::new()
    } else {
        vec![string_data.len() as i64]
    };
    Tensor::from_proto(TensorProto {
        dims,
        data_type: Some(DataType::String.to_i32()),
        string_data,
        ..TensorProto::default()
    })
    .ok()
}

/// The tensor of a constant value: a parameter that is not also an input, or
/// a `Constant` node.
pub(super) fn constant(graph: &Graph, value: Value) -> Option<Tensor> {
    match graph.node(value.node) {
        Node::Parameter(parameter) if parameter.as_input.is_none() => match &parameter.data {
            ParameterData::Dense(tensor) => Some(tensor.clone()),
            ParameterData::Sparse(_) => None,
        },
        Node::Op(op) if op.is("Constant") => held_by(op).ok(),
        _ => None,
    }
}

/// Constant integers.
pub(super) fn integers(graph: &Graph, value: Value) -> Option<Vec<i64>> {
    constant(graph, value)?.to_i64s().ok()
}

/// One constant integer.
pub(super) fn integer(graph: &Graph, value: Value) -> Option<i64> {
    match integers(graph, value)?[..] {
        [single] => Some(single),
        _ => None,
    }
}

/// Integers that are an attribute in some opsets and an input in others. `Ok(None)` if neither
/// is present.
pub(super) fn list(
    graph: &Graph,
    node: NodeId,
    attribute: &str,
    slot: u32,
) -> Result<Option<Vec<i64>>, Reason> {
    if let Some(values) = graph.op(node).and_then(|op| op.get::<&[i64]>(attribute)) {
        return Ok(Some(values.to_vec()));
    }
    let Some(value) = graph.input(node, slot) else {
        return Ok(None);
    };
    let name = || graph.value_name(value).to_owned();
    integers(graph, value)
        .map(Some)
        .ok_or_else(|| Reason::NotConstant(name()))
}

/// Whether every element equals `number`; stops at the first that does not.
pub(super) fn is_filled_with(tensor: &Tensor, number: i8) -> bool {
    let one = i64::from(number);
    let pattern = match tensor.dtype() {
        DataType::Float => f32::from(number).to_le_bytes().to_vec(),
        DataType::Double => f64::from(number).to_le_bytes().to_vec(),
        DataType::Float16 => f16::from_f32(number.into()).to_le_bytes().to_vec(),
        DataType::Bfloat16 => bf16::from_f32(number.into()).to_le_bytes().to_vec(),
        DataType::Int64 | DataType::Uint64 => one.to_le_bytes().to_vec(),
        DataType::Int32 | DataType::Uint32 => (one as i32).to_le_bytes().to_vec(),
        _ => return false,
    };
    tensor.bytes().is_ok_and(|bytes| {
        bytes
            .chunks(pattern.len())
            .all(|element| element == pattern)
    })
}
