//! What the rules of the deploy form say to each other, before it is written in standard ONNX.
//!
//! ```text
//! e = bcosc.Energy <window, group, channels, gain, epsilon, exponent> (x)
//!     (gain * sum of x^2 over the window and the group's channels + epsilon)^exponent   [N, group, spatial...]
//! z = bcosc.Weigh <group, channels, spatial> (x, e)
//!     every group of x's channels times its value of e                                  x's shape
//! ```
//!
//! A `bcosc.PatchNorm` is an energy to the power 1/2.

use bcosc_ir::views::Window;
use bcosc_ir::{DataType, Graph, NodeId, Op, Operand, Patch, Value};

use crate::Reason;
use crate::cnn::lower::PATCH_EPSILON;
use crate::marker::{DOMAIN, PatchNorm, Scale};

const ENERGY: &str = "Energy";
const WEIGH: &str = "Weigh";

/// A power of the sum of squares that one output of a convolution sees.
#[derive(Clone, Debug, PartialEq)]
pub struct Energy {
    /// Input [N, channels, spatial...].
    pub x: Value,
    /// Channels of x.
    pub channels: u64,
    /// The window of the convolution.
    pub window: Window,
    /// Groups of the convolution.
    pub group: u64,
    /// Factor of the sum.
    pub gain: f64,
    /// Added to the sum.
    pub epsilon: f64,
    /// The power that is taken.
    pub exponent: f64,
}

impl Energy {
    /// The energy whose root is a patch norm, with exponent 1/2.
    pub fn of_norm(norm: PatchNorm) -> Self {
        Energy {
            x: norm.x,
            channels: norm.channels,
            window: norm.window,
            group: norm.group,
            gain: 1.0,
            epsilon: PATCH_EPSILON,
            exponent: 0.5,
        }
    }

    /// Views a node of either form.
    pub fn of(graph: &Graph, node: NodeId) -> Option<Self> {
        if let Some(norm) = PatchNorm::of(graph, node) {
            return Some(Self::of_norm(norm));
        }
        let op = graph
            .op(node)
            .filter(|op| op.domain() == DOMAIN && op.op_type() == ENERGY)?;
        Some(Energy {
            x: graph.input(node, 0)?,
            channels: op.int("channels", 1) as u64,
            window: Window::of(op, op.ints("kernel_shape")?.to_vec())?,
            group: op.int("group", 1) as u64,
            gain: f64::from(op.float("gain", 1.0)),
            epsilon: shortest(op.float("epsilon", 0.0)),
            exponent: f64::from(op.float("exponent", 1.0)),
        })
    }

    /// The energy behind the scale of a layer that rules for B = 2 may rewrite.
    pub fn of_scale(graph: &Graph, scale: &Scale) -> Result<Self, Reason> {
        if scale.b != 2.0 {
            return Err(Reason::OnlyForB2);
        }
        let dtype = graph.value_type(scale.y).map(|t| t.dtype);
        if dtype.is_some_and(|dtype| dtype != DataType::Float) {
            return Err(Reason::NotSingle);
        }
        Energy::of(graph, scale.norm.node).ok_or(Reason::NoConvolution)
    }

    /// The same with another exponent.
    pub fn to_the(mut self, exponent: f64) -> Self {
        self.exponent = exponent;
        self
    }

    /// Adds the operator to a patch, on this energy's input.
    pub fn add(&self, patch: &mut Patch) -> Operand {
        self.add_on(patch, self.x.into())
    }

    /// Adds the operator to a patch, on another input.
    pub fn add_on(&self, patch: &mut Patch, x: Operand) -> Operand {
        let op = self
            .window
            .write(Op::new(DOMAIN, ENERGY).named("energy"))
            .with_int("group", self.group as i64)
            .with_int("channels", self.channels as i64)
            .with_float("gain", self.gain as f32)
            .with_float("epsilon", self.epsilon as f32)
            .with_float("exponent", self.exponent as f32);
        patch.op(op, &[x])
    }
}

/// Adds `squared / sqrt(energy)` to a patch, where a scale stood. The reciprocal is taken of the norm, which is
/// small; that of a depthwise layer is as large as its output, which is divided by it.
pub(crate) fn over_norm(
    patch: &mut Patch,
    scale: &Scale,
    squared: Operand,
    energy: Energy,
) -> Operand {
    if scale.group > 1 && scale.group == scale.channels {
        let norm = energy.to_the(0.5).add(patch);
        return patch.op(Op::new("", "Div").named("quotient"), &[squared, norm]);
    }
    let weight = energy.to_the(-0.5).add(patch);
    let op = Weigh::op(scale.group, scale.channels, scale.spatial);
    patch.op(op, &[squared, weight])
}

/// The decimal number that a single-precision attribute was written for.
fn shortest(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

/// A tensor times one number a position and group of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weigh {
    /// The node.
    pub node: NodeId,
    /// The tensor [N, channels, spatial...].
    pub x: Value,
    /// The numbers [N, group, spatial...].
    pub weight: Value,
    /// Groups.
    pub group: u64,
    /// Channels of x.
    pub channels: u64,
    /// Spatial axes.
    pub spatial: usize,
}

impl Weigh {
    /// The operator.
    pub fn op(group: u64, channels: u64, spatial: usize) -> Op {
        Op::new(DOMAIN, WEIGH)
            .named("weighed")
            .with_int("group", group as i64)
            .with_int("channels", channels as i64)
            .with_int("spatial", spatial as i64)
    }

    /// Views a node.
    pub fn of(graph: &Graph, node: NodeId) -> Option<Self> {
        let op = graph
            .op(node)
            .filter(|op| op.domain() == DOMAIN && op.op_type() == WEIGH)?;
        Some(Weigh {
            node,
            x: graph.input(node, 0)?,
            weight: graph.input(node, 1)?,
            group: op.int("group", 1) as u64,
            channels: op.int("channels", 1) as u64,
            spatial: op.int("spatial", 0) as usize,
        })
    }
}
