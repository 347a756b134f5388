//! Elements of tensors and values of attributes.

use std::fmt;

use bcosc_onnx::DataType;
use bcosc_onnx::proto::{AttributeProto, TensorProto};

use half::{bf16, f16};

use super::text::{Lines, Quoted, is_plain};
use super::types::{Type, tensor_head};
use crate::node::attribute_type as kinds;

/// Tensors with more elements are cut short unless all values are wanted.
const SHORT: usize = 8;
/// How many elements a tensor that is cut short shows.
const SHOWN: usize = 4;

/// The elements in braces.
pub(super) fn elements(out: &mut Lines, tensor: &TensorProto, full: bool) -> fmt::Result {
    write!(out, "{{")?;
    if tensor.data_type == Some(DataType::String.to_i32()) {
        match tensor.strings() {
            Ok(strings) => {
                let joined = strings.iter().flat_map(|s| [s.as_ref(), b"\0"]).flatten();
                let digest = || digest(&joined.copied().collect::<Vec<u8>>());
                let quoted = |i: usize| Quoted(&String::from_utf8_lossy(&strings[i])).to_string();
                list(out, strings.len(), full, quoted, digest)?;
            }
            Err(_) => write!(out, "?")?,
        }
        return write!(out, "}}");
    }
    match (tensor.dtype(), tensor.payload()) {
        (Ok(dtype), Ok(bytes)) => {
            let count = stored_values(dtype, tensor.element_count().unwrap_or(0));
            list(
                out,
                count,
                full,
                |i| stored(dtype, &bytes, i, full),
                || digest(&bytes),
            )?;
        }
        _ => write!(out, "?")?,
    }
    write!(out, "}}")
}

fn list<T: fmt::Display>(
    out: &mut Lines,
    count: usize,
    full: bool,
    element: impl Fn(usize) -> T,
    digest: impl FnOnce() -> u32,
) -> fmt::Result {
    let cut = !full && count > SHORT;
    for i in 0..if cut { SHOWN } else { count } {
        write!(out, "{}{}", if i > 0 { ", " } else { "" }, element(i))?;
    }
    match cut {
        true => write!(out, ", ... {:08x}", digest()),
        false => Ok(()),
    }
}

/// How many values the typed field of a tensor has: complex numbers take two, and elements of less
/// than six bits share a byte.
fn stored_values(dtype: DataType, elements: u64) -> usize {
    let count = match dtype {
        DataType::Complex64 | DataType::Complex128 => elements.saturating_mul(2),
        DataType::Float6E2M3 | DataType::Float6E3M2 => elements,
        _ if dtype.bits().is_some_and(|bits| bits < 8) => dtype.byte_len(elements).unwrap_or(0),
        _ => elements,
    };
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// One stored value; the payload has been checked to hold it.
enum Stored {
    Int(i64),
    Uint(u64),
    Float(f32),
    Double(f64),
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stored::Int(value) => value.fmt(f),
            Stored::Uint(value) => value.fmt(f),
            Stored::Float(value) => Float(*value).fmt(f),
            Stored::Double(value) if value.is_finite() => write!(f, "{value:?}"),
            Stored::Double(value) => Float(*value as f32).fmt(f),
        }
    }
}

/// The value as the typed field of the tensor's element type holds it, which is how the parser
/// wants it; half precision is readable unless `exact`.
fn stored(dtype: DataType, bytes: &[u8], i: usize, exact: bool) -> Stored {
    use DataType as D;
    match dtype {
        D::Float16 if !exact => Stored::Float(f16::from_le_bytes(chunk(bytes, i)).to_f32()),
        D::Bfloat16 if !exact => Stored::Float(bf16::from_le_bytes(chunk(bytes, i)).to_f32()),
        D::Float | D::Complex64 => Stored::Float(f32::from_le_bytes(chunk(bytes, i))),
        D::Double | D::Complex128 => Stored::Double(f64::from_le_bytes(chunk(bytes, i))),
        D::Int64 => Stored::Int(i64::from_le_bytes(chunk(bytes, i))),
        D::Int32 => Stored::Int(i32::from_le_bytes(chunk(bytes, i)).into()),
        D::Int16 => Stored::Int(i16::from_le_bytes(chunk(bytes, i)).into()),
        D::Int8 => Stored::Int(i8::from_le_bytes(chunk(bytes, i)).into()),
        D::Uint64 => Stored::Uint(u64::from_le_bytes(chunk(bytes, i))),
        D::Uint32 => Stored::Uint(u32::from_le_bytes(chunk(bytes, i)).into()),
        D::Uint16 | D::Float16 | D::Bfloat16 => {
            Stored::Uint(u16::from_le_bytes(chunk(bytes, i)).into())
        }
        D::Float6E2M3 | D::Float6E3M2 => Stored::Uint(six_bits(bytes, i).into()),
        _ => Stored::Uint(chunk::<1>(bytes, i)[0].into()),
    }
}

fn chunk<const N: usize>(bytes: &[u8], i: usize) -> [u8; N] {
    bytes.as_chunks::<N>().0.get(i).copied().unwrap_or([0; N])
}

/// Element `i` of a stream of six-bit elements, low bits first.
fn six_bits(bytes: &[u8], i: usize) -> u16 {
    let (at, shift) = (i * 6 / 8, i * 6 % 8);
    let byte = |at: usize| u16::from(bytes.get(at).copied().unwrap_or(0));
    ((byte(at) | byte(at + 1) << 8) >> shift) & 0x3f
}

/// The shortest text that reads back as the same float, and not as an integer.
struct Float(f32);

impl fmt::Display for Float {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            x if x.is_nan() => f.write_str("nan"),
            f32::INFINITY => f.write_str("inf"),
            f32::NEG_INFINITY => f.write_str("-inf"),
            x => write!(f, "{x:?}"),
        }
    }
}

/// A 32-bit digest of a payload, equal on every machine. Four lanes keep large weights quick.
fn digest(bytes: &[u8]) -> u32 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    let (words, rest) = bytes.as_chunks::<8>();
    let (blocks, last) = words.as_chunks::<4>();
    let mut lanes = [1, 2, 3, 4];
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block) {
            *lane = mix(*lane, u64::from_le_bytes(*word));
        }
    }
    let last = last.iter().map(|word| u64::from_le_bytes(*word));
    let rest = rest.iter().map(|&byte| byte.into());
    let all = lanes.into_iter().chain(last).chain(rest);
    let hash = all.fold(bytes.len() as u64, mix);
    (hash >> 32) as u32 ^ hash as u32
}

/// The word for an attribute's type; taken from its content where old files do not say.
pub(super) fn attribute_kind(a: &AttributeProto) -> &'static str {
    const NAMES: [&str; 15] = [
        "undefined",
        "float",
        "int",
        "string",
        "tensor",
        "graph",
        "floats",
        "ints",
        "strings",
        "tensors",
        "graphs",
        "sparse_tensor",
        "sparse_tensors",
        "type_proto",
        "type_protos",
    ];
    let declared = a.r#type.and_then(|t| usize::try_from(t).ok()).unwrap_or(0);
    NAMES.get(declared).copied().unwrap_or("undefined")
}

/// Whether the attribute is a list without elements.
pub(super) fn is_empty_list(a: &AttributeProto) -> bool {
    match a.r#type.unwrap_or(0) {
        kinds::FLOATS => a.floats.is_empty(),
        kinds::INTS => a.ints.is_empty(),
        kinds::STRINGS => a.strings.is_empty(),
        kinds::TENSORS => a.tensors.is_empty(),
        kinds::GRAPHS => a.graphs.is_empty(),
        kinds::SPARSE_TENSORS => a.sparse_tensors.is_empty(),
        kinds::TYPE_PROTOS => a.type_protos.is_empty(),
        _ => false,
    }
}

/// The value of an attribute that holds no graphs. Old files do not declare the type, so whatever
/// is there is printed.
pub(super) fn attribute_value(out: &mut Lines, a: &AttributeProto, full: bool) -> fmt::Result {
    if let Some(tensor) = &a.t {
        return tensor_constant(out, tensor, full);
    }
    if let Some(r#type) = &a.tp {
        return write!(out, "{}", Type(r#type));
    }
    if let Some(bytes) = &a.s {
        return write!(out, "{}", Quoted(&String::from_utf8_lossy(bytes)));
    }
    if !a.ints.is_empty() {
        return bracketed(out, &a.ints, |out, i| write!(out, "{i}"));
    }
    if !a.floats.is_empty() {
        return bracketed(out, &a.floats, |out, x| write!(out, "{}", Float(*x)));
    }
    if !a.strings.is_empty() {
        return bracketed(out, &a.strings, |out, s| {
            write!(out, "{}", Quoted(&String::from_utf8_lossy(s)))
        });
    }
    if !a.tensors.is_empty() {
        return bracketed(out, &a.tensors, |out, t| tensor_constant(out, t, full));
    }
    if !a.type_protos.is_empty() {
        return bracketed(out, &a.type_protos, |out, t| write!(out, "{}", Type(t)));
    }
    if let Some(sparse) = &a.sparse_tensor {
        return write!(out, "sparse_tensor {:?}", sparse.dims);
    }
    match (a.r#type.unwrap_or(0), a.f, a.i) {
        (kinds::FLOAT, f, _) => write!(out, "{}", Float(f.unwrap_or(0.0))),
        (_, Some(f), None) => write!(out, "{}", Float(f)),
        (kinds::STRING, ..) => write!(out, "\"\""),
        (_, _, i) => write!(out, "{}", i.unwrap_or(0)),
    }
}

fn tensor_constant(out: &mut Lines, tensor: &TensorProto, full: bool) -> fmt::Result {
    tensor_head(out, tensor)?;
    match tensor.name.as_deref().filter(|name| is_plain(name)) {
        Some(name) => write!(out, " {name} = ")?,
        None => write!(out, " ")?,
    }
    elements(out, tensor, full)
}

fn bracketed<T>(
    out: &mut Lines,
    items: &[T],
    mut item: impl FnMut(&mut Lines, &T) -> fmt::Result,
) -> fmt::Result {
    write!(out, "[")?;
    for (i, entry) in items.iter().enumerate() {
        write!(out, "{}", if i > 0 { ", " } else { "" })?;
        item(out, entry)?;
    }
    write!(out, "]")
}
