//! The bcosc graph.
//!
//! A [`Model`] mirrors an ONNX model without loss: unchanged parts are written back as they were read. Its
//! [`Graph`] is read through [`NodeId`]s and [`Value`]s, changed only through [`Patch`]es, and
//! translated at the borders by [`Model::from_proto`] and [`Model::to_proto`].

mod build;
#[cfg(debug_assertions)]
mod check;
mod export;
mod facts;
mod graph;
mod import;
mod metadata;
mod model;
mod node;
pub mod ops;
mod order;
mod patch;
mod print;
mod surgery;
mod tensor;
mod types;
pub mod views;

pub use bcosc_onnx as onnx;
pub use bcosc_onnx::DataType;
pub use build::ModelBuilder;
pub use facts::{Facts, Interpreter, InterpreterError, Tensors};
pub use graph::{Graph, GraphOutput, NodeId, Use, Value};
pub use import::ImportError;
pub use model::Model;
pub use node::{Attribute, Node, Op, Parameter, ParameterData};
pub use patch::{ORIGIN, Operand, Patch, PatchError};
pub use print::{ModelText, TextOptions};
pub use surgery::{Cone, SurgeryError};
pub use tensor::{Tensor, TensorError};
pub use types::{Dim, Shape, TensorType};
