//! Types of values: element type and a shape whose dimensions may be symbolic.

use std::fmt;

use bcosc_onnx::DataType;
use bcosc_onnx::proto::{
    TensorShapeProto, TensorShapeProtoDimension, TensorShapeProtoDimensionValue, TypeProto,
    TypeProtoTensor, TypeProtoValue, ValueInfoProto,
};

/// One dimension of a shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dim {
    /// A size known when compiling.
    Known(u64),
    /// A name such as `batch`, or an expression over names such as `2*batch`. Equal texts are equal sizes.
    Symbol(String),
    /// Nothing is known.
    Unknown,
}

impl Dim {
    /// The size, where it is known.
    pub fn known(&self) -> Option<u64> {
        match self {
            Dim::Known(size) => Some(*size),
            Dim::Symbol(_) | Dim::Unknown => None,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Known(size) => size.fmt(f),
            Dim::Symbol(name) => f.write_str(name),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

/// The dimensions of a tensor, outermost first.
pub type Shape = Vec<Dim>;

/// Element type and shape of a tensor value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorType {
    /// Element type.
    pub dtype: DataType,
    /// Dimensions; `None` if even the rank is unknown.
    pub shape: Option<Shape>,
}

impl TensorType {
    /// A type with every dimension known.
    pub fn fixed(dtype: DataType, dims: &[u64]) -> Self {
        let shape = Some(dims.iter().copied().map(Dim::Known).collect());
        TensorType { dtype, shape }
    }

    /// The number of dimensions, where it is known.
    pub fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }

    /// The size of every dimension, where all of them are known.
    pub fn known_shape(&self) -> Option<Vec<u64>> {
        self.shape.as_ref()?.iter().map(Dim::known).collect()
    }

    /// Reads a dense tensor type; `None` for sequences, maps and the like.
    pub fn from_proto(proto: &TypeProto) -> Option<Self> {
        let Some(TypeProtoValue::TensorType(tensor)) = &proto.value else {
            return None;
        };
        let dtype = DataType::from_i32(tensor.elem_type.unwrap_or(0))?;
        let shape = tensor
            .shape
            .as_ref()
            .map(|shape| shape.dim.iter().map(dim_from_proto).collect());
        Some(TensorType { dtype, shape })
    }

    /// Writes the type; a symbolic expression that is not a plain name becomes an unknown dimension.
    pub fn to_proto(&self) -> TypeProto {
        let shape = self.shape.as_ref().map(|dims| TensorShapeProto {
            dim: dims.iter().map(dim_to_proto).collect(),
        });
        TypeProto {
            denotation: None,
            value: Some(TypeProtoValue::TensorType(TypeProtoTensor {
                elem_type: Some(self.dtype.to_i32()),
                shape,
            })),
        }
    }

    /// The type under a name, as graph inputs and outputs are declared.
    pub fn to_value_info(&self, name: &str) -> ValueInfoProto {
        ValueInfoProto {
            name: Some(name.to_owned()),
            r#type: Some(Box::new(self.to_proto())),
            ..ValueInfoProto::default()
        }
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dtype.fmt(f)?;
        if let Some(shape) = &self.shape {
            let dims: Vec<String> = shape.iter().map(Dim::to_string).collect();
            write!(f, "[{}]", dims.join(","))?;
        }
        Ok(())
    }
}

fn dim_from_proto(dim: &TensorShapeProtoDimension) -> Dim {
    match &dim.value {
        Some(TensorShapeProtoDimensionValue::DimValue(size)) => {
            u64::try_from(*size).map_or(Dim::Unknown, Dim::Known)
        }
        Some(TensorShapeProtoDimensionValue::DimParam(name)) if !name.is_empty() => {
            Dim::Symbol(name.clone())
        }
        _ => Dim::Unknown,
    }
}

fn dim_to_proto(dim: &Dim) -> TensorShapeProtoDimension {
    let value = match dim {
        Dim::Known(size) => i64::try_from(*size)
            .ok()
            .map(TensorShapeProtoDimensionValue::DimValue),
        Dim::Symbol(name) if is_identifier(name) => {
            Some(TensorShapeProtoDimensionValue::DimParam(name.clone()))
        }
        Dim::Symbol(_) | Dim::Unknown => None,
    };
    TensorShapeProtoDimension {
        denotation: None,
        value,
    }
}

/// Reads `batch,3,?`: sizes, names, and `?` for what is unknown. An empty text is a scalar.
pub(crate) fn dims_from_text(text: &str) -> Shape {
    let dims = text.split(',').map(str::trim).filter(|d| !d.is_empty());
    dims.map(|dim| match (dim, dim.parse()) {
        (_, Ok(size)) => Dim::Known(size),
        ("?", _) => Dim::Unknown,
        (name, _) => Dim::Symbol(name.to_owned()),
    })
    .collect()
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| c.is_alphanumeric() || c == '_')
        && !text.starts_with(|c: char| c.is_ascii_digit())
}
