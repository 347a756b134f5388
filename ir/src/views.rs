//! Typed views of operators: what an operator means, whichever opset wrote it.
//!
//! A view is `None` if the node is another operator or lacks what the specification requires.

mod axes;
mod conv;
mod gemm;
mod norm;
mod pool;

pub use axes::{AxesOp, axes_of, reduce, reduce_to, squeeze, unsqueeze};
pub use conv::{Conv, Padding, Window};
pub use gemm::{Gemm, MatMul};
pub use norm::BatchNorm;
pub use pool::{Pool, PoolKind};
