//! Errors of reading and writing, with their location.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::DataType;

/// Why a model cannot be read.
#[derive(Debug)]
pub struct ReadError {
    /// The model file; `None` for a model in memory.
    pub path: Option<PathBuf>,
    /// What is wrong with it. Boxed, since the error travels through every return value.
    pub kind: Box<ReadErrorKind>,
}

impl ReadError {
    pub(crate) fn new(path: Option<&Path>, kind: ReadErrorKind) -> Self {
        Self {
            path: path.map(Path::to_path_buf),
            kind: Box::new(kind),
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}: {}", path.display(), self.kind),
            None => write!(f, "model in memory: {}", self.kind),
        }
    }
}

impl std::error::Error for ReadError {}

/// What is wrong with a model that cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadErrorKind {
    /// The file cannot be opened or mapped.
    #[error("cannot read the file: {0}")]
    Io(io::Error),
    /// The path names a folder.
    #[error("is a folder, not a model file")]
    Folder,
    /// The path names a pipe, a device or the like.
    #[error("is not a regular file")]
    NotRegular,
    /// The file is not an ONNX model; the text describes what it looks like.
    #[error("is not an ONNX model: {0}")]
    NotOnnx(&'static str),
    /// The bytes are not a valid ONNX protobuf message.
    #[error("is not a valid ONNX model, or is damaged: at byte {offset}, in {place}: {problem}")]
    Malformed {
        /// Where in the file, in bytes from its start.
        offset: u64,
        /// The message and the field, such as `graph.node[3].attribute[0].name (AttributeProto)`.
        place: String,
        /// What is wrong there.
        problem: MalformedProblem,
    },
    /// An error of the protobuf decoder that the scan did not detect.
    #[error("is not a valid ONNX model, or is damaged: {0}")]
    Decode(prost::DecodeError),
    /// The message has no graph.
    #[error("has no graph (field 7 of ModelProto)")]
    NoGraph,
    /// The message would need far more memory than the file has bytes.
    #[error(
        "refusing to decode a structure of {len} bytes that would need {needed} bytes of memory"
    )]
    TooDense {
        /// Bytes of memory.
        needed: u64,
        /// Bytes of the model.
        len: u64,
    },
    /// A tensor's declaration and its data do not match.
    #[error("{error} (at {place})")]
    Tensor {
        /// Location of the tensor, such as `graph.initializer[3]`.
        place: String,
        /// What is wrong with it.
        error: TensorError,
    },
    /// A tensor's external data cannot be read.
    #[error("tensor `{tensor}` (at {place}): {problem}")]
    External {
        /// The tensor's name.
        tensor: String,
        /// Location of the tensor, such as `graph.initializer[3]`.
        place: String,
        /// What is wrong with its data.
        problem: ExternalProblem,
    },
}

/// What is wrong with the bytes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MalformedProblem {
    /// A value runs past the end of its message or of the file.
    #[error("{needed} bytes are declared, but only {left} are left")]
    Truncated {
        /// Bytes that the value takes.
        needed: u64,
        /// Bytes there are.
        left: u64,
    },
    /// A variable-length number does not end.
    #[error("invalid varint (truncated or longer than ten bytes)")]
    Varint,
    /// A field has number 0 or one that is out of range, or a wire type that does not exist.
    #[error("invalid field key")]
    Key,
    /// A field has another wire type than the schema gives it.
    #[error("the field is encoded as {found} where the schema has {expected}")]
    WireType {
        /// What the schema says.
        expected: &'static str,
        /// What the bytes say.
        found: &'static str,
    },
    /// Packed fixed-width values do not fill the field.
    #[error("{len} bytes are not a whole number of values")]
    Packed {
        /// Bytes of the field.
        len: u64,
    },
    /// Messages are nested too deeply.
    #[error("messages are nested more than {0} deep")]
    TooDeep(u32),
    /// A text is not UTF-8.
    #[error("the text is not valid UTF-8")]
    Utf8,
    /// More kinds of unknown fields than any later schema could have added.
    #[error("more than {0} kinds of unknown fields")]
    TooManyUnknown(usize),
}

/// Why external data cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExternalProblem {
    /// The model was given as bytes, so there is no folder to look in.
    #[error("its data is in an external file; open the model by its path")]
    InMemory,
    /// There is no `location` entry.
    #[error("its external data has no `location`")]
    NoLocation,
    /// A key occurs twice.
    #[error("its external data has two `{0}` entries")]
    Twice(&'static str),
    /// The location is absolute or contains `..`.
    #[error("its external data location `{0}` is not a plain path inside the model's folder")]
    BadLocation(String),
    /// The location points outside the folder through a symbolic link.
    #[error("its external data location `{location}` points outside the model's folder, to {}", .target.display())]
    Outside {
        /// The location as the model gives it.
        location: String,
        /// The target of the link.
        target: PathBuf,
    },
    /// The location is a folder, a pipe or the like.
    #[error("its external data location `{0}` is not a regular file")]
    NotRegular(String),
    /// The file cannot be opened or mapped.
    #[error("cannot read its external data file `{location}`: {error}")]
    Io {
        /// The location as the model gives it.
        location: String,
        /// The system error.
        error: io::Error,
    },
    /// `offset` or `length` is not a plain decimal number.
    #[error("its external data `{key}` is `{value}`, not a number of bytes")]
    BadNumber {
        /// `offset` or `length`.
        key: &'static str,
        /// The value as the model gives it.
        value: String,
    },
    /// `length` differs from what the shape and the type take.
    #[error(
        "its external data has length {length}, but its shape and type require {declared} bytes"
    )]
    WrongLength {
        /// The `length` entry, in bytes.
        length: u64,
        /// What dims and data type take, in bytes.
        declared: u64,
    },
    /// The file ends before the data does.
    #[error(
        "its external data is at bytes {offset} to {end} of `{location}`, which has {size} bytes"
    )]
    Short {
        /// The location as the model gives it.
        location: String,
        /// First byte.
        offset: u64,
        /// One past the last byte.
        end: u128,
        /// Bytes of the file.
        size: u64,
    },
    /// The tensor holds data as well.
    #[error("it has both external and inline data")]
    Both,
}

/// A tensor whose declaration and data do not agree.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("tensor `{tensor}`: {problem}")]
pub struct TensorError {
    /// The tensor's name, empty where it has none.
    pub tensor: String,
    /// What is wrong.
    pub problem: TensorProblem,
}

/// What is wrong with a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TensorProblem {
    /// A dimension is negative.
    #[error("dimension {axis} is {dim}")]
    NegativeDim {
        /// Which dimension, from 0.
        axis: usize,
        /// Its value.
        dim: i64,
    },
    /// The shape has more elements, or more bytes, than 64 bits count.
    #[error("its shape {0:?} is too large")]
    TooLarge(Vec<i64>),
    /// The data type is missing, `UNDEFINED`, or one that the schema does not have.
    #[error("its data type {0} is not defined by ONNX")]
    DataType(i32),
    /// A fixed-size element type is needed.
    #[error("it holds strings, which have no fixed size")]
    Strings,
    /// Strings are needed.
    #[error("it holds {0}, not strings")]
    NotStrings(DataType),
    /// The data is a part of a larger tensor.
    #[error("it holds a segment of a larger tensor, which is not supported")]
    Segment,
    /// The data is in another file that has not been read.
    #[error("its data is in an external file that was not read")]
    Unresolved,
    /// `raw_data` has another length than the shape and the type take.
    #[error("it has {found} bytes of data, while {data_type} {dims:?} takes {expected}")]
    ByteCount {
        /// The element type.
        data_type: DataType,
        /// The shape.
        dims: Vec<i64>,
        /// Bytes that these take.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A typed field has another number of values than the shape and the type take.
    #[error("it has {found} values in {field}, while {data_type} {dims:?} takes {expected}")]
    ValueCount {
        /// The field that the type's values are in.
        field: &'static str,
        /// The element type.
        data_type: DataType,
        /// The shape.
        dims: Vec<i64>,
        /// Values that these take.
        expected: u64,
        /// Values there are.
        found: u64,
    },
    /// The values are in a field that is for other types.
    #[error("its values are in {found}, but those of type {data_type} belong in {expected}")]
    WrongField {
        /// The element type.
        data_type: DataType,
        /// The field for this element type.
        expected: &'static str,
        /// Where values are.
        found: &'static str,
    },
}

/// Why a model cannot be written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A system error for the output path.
    #[error("cannot write {}: {error}", .path.display())]
    Io {
        /// The file that cannot be written.
        path: PathBuf,
        /// The system error.
        error: io::Error,
    },
    /// The output is a folder or has no file name.
    #[error("cannot write {}: it is not a file name", .0.display())]
    NotAFile(PathBuf),
    /// A protobuf file holds less than 2 GiB.
    #[error(
        "the model takes {bytes} bytes, but an ONNX file can hold at most {}; use external data",
        crate::write::LIMIT
    )]
    TooLarge {
        /// Bytes of the encoded model.
        bytes: u64,
    },
    /// External data needs a place beside the model, and the output has none.
    #[error("cannot write external data next to {}: it is a device, a pipe or a symbolic link", .0.display())]
    NoSidecar(PathBuf),
    /// The file for the external data is another model's.
    #[error("{} holds external data of {}; choose another output name", .sidecar.display(), .model.display())]
    SidecarInUse {
        /// The file that would be overwritten.
        sidecar: PathBuf,
        /// The model that needs it.
        model: PathBuf,
    },
    /// A tensor's declaration and its data do not agree, or its external data was not read.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}
