//! ONNX wire format: schema, memory-mapped reader, streaming writer.
//!
//! [`read()`] maps a model file and decodes its structure; weights stay where they are, as
//! [`bytes::Bytes`] that point into the map. [`write()`] sends them from there to the output, so no
//! copy of the weights is ever gathered in memory. External data is followed inside the model's
//! folder only, and every declared size is checked against what is really there.
//!
//! ```
//! use bcosc_onnx::proto::{GraphProto, ModelProto};
//!
//! let model = ModelProto { ir_version: Some(10), graph: Some(Box::new(GraphProto::default())), ..Default::default() };
//! let bytes = bcosc_onnx::encode(&model)?;
//! assert_eq!(bcosc_onnx::decode(bytes)?.model, model);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod data_type;
mod error;
mod external;
mod fields;
pub mod proto;
mod read;
mod rope;
mod scan;
mod sidecar;
mod sniff;
mod target;
mod tensor;
mod walk;
mod write;

pub use data_type::DataType;
pub use error::{
    ExternalProblem, MalformedProblem, ReadError, ReadErrorKind, TensorError, TensorProblem,
    WriteError,
};
pub use read::{ModelFile, decode, map, read};
pub use scan::UnknownField;
pub use target::{STDOUT, is_stdout, write_bytes};
pub use write::{ExternalData, WriteOptions, Written, encode, write};
