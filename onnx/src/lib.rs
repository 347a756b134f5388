//! ONNX wire format: schema, memory-mapped reader, streaming writer.

mod fields;
pub mod proto;
