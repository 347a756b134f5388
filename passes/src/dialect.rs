//! Marker operators for B-cos layers, before they are lowered to standard ONNX.
//!
//! They are in the domain [`DOMAIN`], and never in a written model:
//!
//! ```text
//! n = bcosc.PatchNorm <kernel_shape, strides, pads, dilations, group> (x)   [N, group, spatial...]
//! n = bcosc.VectorNorm <axis> (x)                                           x's shape, 1 at axis
//! n = ... <constant = 1> (x)                  of x and a constant channel of ones, which carries the bias
//! z = bcosc.Scale <b, group> (y, n)                                         (|y| / n)^(b-1) * y
//! ```
//!
//! The deploy form has two more; a `PatchNorm` is an energy to the power 1/2:
//!
//! ```text
//! e = bcosc.Energy <window, group, channels, gain, epsilon, exponent> (x)
//!     (gain * sum of x^2 over the window and the group's channels + epsilon)^exponent   [N, group, spatial...]
//! z = bcosc.Weigh <group, channels, spatial> (x, e)
//!     every group of x's channels times its value of e                                  x's shape
//! ```
//!
//! Training has those of [`ConvInputGradient`] and [`ConvWeightGradient`].

mod gradients;

use bcosc_ir::views::Window;
use bcosc_ir::{Graph, NodeId, Op, Operand, Patch, Value};

pub use gradients::{ConvInputGradient, ConvWeightGradient};

/// Domain of the operators.
pub const DOMAIN: &str = "bcosc";

const PATCH_NORM: &str = "PatchNorm";
const VECTOR_NORM: &str = "VectorNorm";
const SCALE: &str = "Scale";
const ENERGY: &str = "Energy";
const WEIGH: &str = "Weigh";

/// Added to the squared norm of a patch.
pub const PATCH_EPSILON: f64 = 1e-6;
/// Added to the norm of a vector.
pub const VECTOR_EPSILON: f64 = 1e-12;
/// Added to the cosine before a power other than 1.
pub const COSINE_EPSILON: f64 = 1e-6;

/// `sqrt(sum of x^2 over the window and the group's channels + 1e-6)`, one value per group and position; `+ 1` with a constant
/// channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PatchNorm {
    /// Input [N, channels, spatial...].
    pub x: Value,
    /// Channels of x.
    pub channels: u64,
    /// The window of the convolution.
    pub window: Window,
    /// Groups of the convolution.
    pub group: u64,
    /// Whether a constant channel of ones is part of the layer's input.
    pub constant: bool,
}

impl PatchNorm {
    /// The operator.
    pub fn op(&self) -> Op {
        let op = self
            .window
            .write(Op::new(DOMAIN, PATCH_NORM).named("patch_norm"))
            .with_int("group", self.group as i64)
            .with_int("channels", self.channels as i64);
        with_constant(op, self.constant)
    }

    /// Views a node.
    pub fn of(graph: &Graph, node: NodeId) -> Option<Self> {
        let op = marker(graph, node, PATCH_NORM)?;
        let window = Window::of(op, op.get::<&[i64]>("kernel_shape")?.to_vec())?;
        Some(PatchNorm {
            x: graph.input(node, 0)?,
            channels: op.get("channels")?,
            window,
            group: op.get("group")?,
            constant: has_constant(op),
        })
    }
}

/// `||x||_2 + 1e-12` along one axis, which stays with size 1; `sqrt(||x||^2 + 1)` with a constant channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VectorNorm {
    /// Input.
    pub x: Value,
    /// The axis, counted from the end where negative.
    pub axis: i64,
    /// Whether the result of rank 2 is transposed, for layers that transpose their input.
    pub transposed: bool,
    /// Whether a constant channel of ones is part of the layer's input.
    pub constant: bool,
}

impl VectorNorm {
    /// The operator.
    pub fn op(&self) -> Op {
        let op = Op::new(DOMAIN, VECTOR_NORM)
            .named("vector_norm")
            .with_int("axis", self.axis)
            .with_int("transposed", self.transposed.into());
        with_constant(op, self.constant)
    }

    /// Views a node.
    pub fn of(graph: &Graph, node: NodeId) -> Option<Self> {
        let op = marker(graph, node, VECTOR_NORM)?;
        Some(VectorNorm {
            x: graph.input(node, 0)?,
            axis: op.get("axis")?,
            transposed: op.get("transposed")?,
            constant: has_constant(op),
        })
    }
}

/// `(|y| / n)^(b-1) * y`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// The node.
    pub node: NodeId,
    /// Output of the linear layer.
    pub y: Value,
    /// Norm of the layer's input.
    pub norm: Value,
    /// The exponent B.
    pub b: f64,
    /// Groups of the layer.
    pub group: u64,
    /// Output channels, for layers with groups.
    pub channels: u64,
    /// Spatial axes, for layers with groups.
    pub spatial: usize,
}

impl Scale {
    /// The operator.
    pub fn op(b: f64, group: u64, channels: u64, spatial: usize) -> Op {
        Op::new(DOMAIN, SCALE)
            .named("bcos")
            .with_float("b", b as f32)
            .with_int("group", group as i64)
            .with_int("channels", channels as i64)
            .with_int("spatial", spatial as i64)
    }

    /// Views a node.
    pub fn of(graph: &Graph, node: NodeId) -> Option<Self> {
        let op = marker(graph, node, SCALE)?;
        Some(Scale {
            node,
            y: graph.input(node, 0)?,
            norm: graph.input(node, 1)?,
            b: shortest(op.get("b")?),
            group: op.get("group")?,
            channels: op.get("channels")?,
            spatial: op.get("spatial")?,
        })
    }
}

/// A power of the sum of squares over the inputs of one output of a convolution.
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
    /// The exponent.
    pub exponent: f64,
}

impl Energy {
    /// The energy whose root is a patch norm, with exponent 1/2.
    pub fn of_norm(norm: PatchNorm) -> Self {
        Energy {
            // The square of the constant channel, or what keeps the norm above 0.
            epsilon: if norm.constant { 1.0 } else { PATCH_EPSILON },
            x: norm.x,
            channels: norm.channels,
            window: norm.window,
            group: norm.group,
            gain: 1.0,
            exponent: 0.5,
        }
    }

    /// Views a node of either form.
    pub fn of(graph: &Graph, node: NodeId) -> Option<Self> {
        if let Some(norm) = PatchNorm::of(graph, node) {
            return Some(Self::of_norm(norm));
        }
        let op = marker(graph, node, ENERGY)?;
        Some(Energy {
            x: graph.input(node, 0)?,
            channels: op.get("channels")?,
            window: Window::of(op, op.get::<&[i64]>("kernel_shape")?.to_vec())?,
            group: op.get("group")?,
            gain: op.get::<f32>("gain")?.into(),
            epsilon: shortest(op.get("epsilon")?),
            exponent: op.get::<f32>("exponent")?.into(),
        })
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

/// A tensor times one number per position and group of channels.
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
        let op = marker(graph, node, WEIGH)?;
        Some(Weigh {
            node,
            x: graph.input(node, 0)?,
            weight: graph.input(node, 1)?,
            group: op.get("group")?,
            channels: op.get("channels")?,
            spatial: op.get("spatial")?,
        })
    }
}

/// The decimal number that a single-precision attribute was written for.
pub(crate) fn shortest(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

/// The attribute that says that a constant channel is part of a layer's input.
const CONSTANT: &str = "constant";

fn with_constant(op: Op, constant: bool) -> Op {
    match constant {
        true => op.with_int(CONSTANT, 1),
        false => op,
    }
}

fn has_constant(op: &Op) -> bool {
    op.get::<i64>(CONSTANT) == Some(1)
}

fn marker<'a>(graph: &'a Graph, node: NodeId, op_type: &str) -> Option<&'a Op> {
    graph
        .op(node)
        .filter(|op| op.domain() == DOMAIN && op.op_type() == op_type)
}
