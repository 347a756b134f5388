//! Runs graphs on NVIDIA GPUs.
//!
//! A graph becomes a plan in steps, each a module:
//!
//! | module | from | to |
//! |---|---|---|
//! | `infer` | a graph and shapes of inputs | types and sizes of all values |
//! | `lower`, `operators` | the graph | a [`program`]: tensors defined by expressions, and calls of libraries |
//! | `storage` | the program | the same with other memory, where products are rounded |
//!
//! Nothing here needs a GPU.

pub mod expr;
pub mod folder;
pub mod fuse;
mod infer;
pub mod kernels;
mod lower;
mod operators;
pub mod plan;
pub mod program;
pub mod runtime;
mod storage;

pub use lower::lower;
pub use operators::operators;
pub use plan::{Plan, Planned, plan, plan_in};
