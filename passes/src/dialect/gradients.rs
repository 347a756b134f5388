//! Marker operators for the gradients of convolutions, before they are lowered to standard ONNX.
//!
//! A convolution `y = Conv <window, group> (x, w)` is one of three products of the same window; the others are
//!
//! ```text
//! dx = bcosc.ConvInputGradient <window, group> (dy, w, shape)   sum over k, o of dy[n, o, p] w[o, c, k]
//! dw = bcosc.ConvWeightGradient <window, group> (x, dy)         sum over n, p of dy[n, o, p] x[n, c, p * stride + k * dilation - pad]
//! ```
//!
//! `dx` has the shape of `x` and `dw` that of `w` `[O, C/group, kernel...]`; both are typed. One operator each, so that an
//! engine may use kernels of its own.

use bcosc_ir::views::Window;
use bcosc_ir::{Graph, NodeId, Op, Value};

use super::{DOMAIN, marker};

const INPUT_GRADIENT: &str = "ConvInputGradient";
const WEIGHT_GRADIENT: &str = "ConvWeightGradient";

/// The gradient of a convolution with respect to its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvInputGradient {
    /// Cotangent of the convolution's output [N, O, spatial...].
    pub dy: Value,
    /// Weight of the convolution [O, C/group, kernel...].
    pub w: Value,
    /// The shape of its input at run time, as integers; `None` where the type of the result has all that is needed.
    pub shape: Option<Value>,
    /// The window of the convolution.
    pub window: Window,
    /// Groups of the convolution.
    pub group: u64,
}

impl ConvInputGradient {
    /// The operator.
    pub fn op(window: &Window, group: u64) -> Op {
        gradient(INPUT_GRADIENT, "input_gradient", window, group)
    }

    /// Views a node.
    pub fn of(graph: &Graph, node: NodeId) -> Option<Self> {
        let (window, group) = convolution(marker(graph, node, INPUT_GRADIENT)?)?;
        Some(ConvInputGradient {
            dy: graph.input(node, 0)?,
            w: graph.input(node, 1)?,
            shape: graph.input(node, 2),
            window,
            group,
        })
    }
}

/// The gradient of a convolution with respect to its weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvWeightGradient {
    /// Input of the convolution [N, C, spatial...].
    pub x: Value,
    /// Cotangent of its output [N, O, spatial...].
    pub dy: Value,
    /// The window of the convolution.
    pub window: Window,
    /// Groups of the convolution.
    pub group: u64,
}

impl ConvWeightGradient {
    /// The operator.
    pub fn op(window: &Window, group: u64) -> Op {
        gradient(WEIGHT_GRADIENT, "weight_gradient", window, group)
    }

    /// Views a node.
    pub fn of(graph: &Graph, node: NodeId) -> Option<Self> {
        let (window, group) = convolution(marker(graph, node, WEIGHT_GRADIENT)?)?;
        Some(ConvWeightGradient {
            x: graph.input(node, 0)?,
            dy: graph.input(node, 1)?,
            window,
            group,
        })
    }
}

fn gradient(op_type: &str, name: &str, window: &Window, group: u64) -> Op {
    window
        .write(Op::new(DOMAIN, op_type).named(name))
        .with_int("group", group as i64)
}

fn convolution(op: &Op) -> Option<(Window, u64)> {
    let window = Window::of(op, op.get::<&[i64]>("kernel_shape")?.to_vec())?;
    Some((window, op.get("group")?))
}
