//! Types and declarations.

use std::fmt::{self, Display};

use bcosc_onnx::DataType;
use bcosc_onnx::proto::{
    TensorProto, TensorShapeProto, TensorShapeProtoDimensionValue, TypeProto, TypeProtoValue,
    ValueInfoProto,
};

use super::text::{Lines, Name};

pub(super) fn value_info(out: &mut Lines, info: &ValueInfoProto) -> fmt::Result {
    let name = Name(info.name.as_deref().unwrap_or_default());
    match info.r#type.as_deref() {
        Some(r#type) if r#type.value.is_some() => write!(out, "{} {name}", Type(r#type)),
        _ => write!(out, "{name}"),
    }
}

/// Element type and dimensions of a tensor.
pub(super) fn tensor_head(out: &mut Lines, tensor: &TensorProto) -> fmt::Result {
    write!(out, "{}", element_name(tensor.data_type))?;
    if tensor.dims.is_empty() {
        return Ok(());
    }
    let dims: Vec<String> = tensor.dims.iter().map(i64::to_string).collect();
    write!(out, "[{}]", dims.join(","))
}

fn element_name(number: Option<i32>) -> &'static str {
    number
        .and_then(DataType::from_i32)
        .map_or("undefined", DataType::name)
}

/// A type in the textual syntax.
pub(super) struct Type<'a>(pub &'a TypeProto);

impl Display for Type<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.value {
            None => Ok(()),
            Some(TypeProtoValue::TensorType(t)) => tensor_type(f, t.elem_type, t.shape.as_ref()),
            Some(TypeProtoValue::SparseTensorType(t)) => {
                f.write_str("sparse_tensor(")?;
                tensor_type(f, t.elem_type, t.shape.as_ref())?;
                f.write_str(")")
            }
            Some(TypeProtoValue::SequenceType(t)) => wrapped(f, "seq", t.elem_type.as_deref()),
            Some(TypeProtoValue::OptionalType(t)) => wrapped(f, "optional", t.elem_type.as_deref()),
            Some(TypeProtoValue::MapType(t)) => {
                let key = element_name(t.key_type);
                wrapped(f, &format!("map({key}, "), t.value_type.as_deref())
            }
            Some(TypeProtoValue::OpaqueType(t)) => {
                f.write_str("opaque(")?;
                if let Some(domain) = t.domain.as_deref().filter(|d| !d.is_empty()) {
                    write!(f, "{domain}, ")?;
                }
                write!(f, "{})", t.name.as_deref().unwrap_or_default())
            }
        }
    }
}

fn wrapped(f: &mut fmt::Formatter<'_>, head: &str, inner: Option<&TypeProto>) -> fmt::Result {
    let open = if head.contains('(') { "" } else { "(" };
    write!(f, "{head}{open}")?;
    if let Some(inner) = inner {
        Type(inner).fmt(f)?;
    }
    f.write_str(")")
}

/// No brackets is a scalar; empty brackets are an unknown rank.
fn tensor_type(
    f: &mut fmt::Formatter<'_>,
    elem_type: Option<i32>,
    shape: Option<&TensorShapeProto>,
) -> fmt::Result {
    f.write_str(element_name(elem_type))?;
    let Some(shape) = shape else {
        return f.write_str("[]");
    };
    for (i, dim) in shape.dim.iter().enumerate() {
        f.write_str(if i > 0 { "," } else { "[" })?;
        match &dim.value {
            Some(TensorShapeProtoDimensionValue::DimValue(size)) => size.fmt(f)?,
            Some(TensorShapeProtoDimensionValue::DimParam(name)) => Name(name).fmt(f)?,
            None => f.write_str("?")?,
        }
    }
    f.write_str(if shape.dim.is_empty() { "" } else { "]" })
}
