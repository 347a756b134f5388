//! `Conv`, and the window that convolutions and pools slide over their input.

use crate::{Attribute, Graph, NodeId, Op, Value};

/// How the border is filled up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Padding {
    /// Cells at the beginning of each axis, then at the end of each axis.
    Explicit(Vec<i64>),
    /// As many as make the output `ceil(input / stride)` long, the odd one at the end.
    SameUpper,
    /// As `SameUpper`, the odd one at the beginning.
    SameLower,
}

/// A sliding window over the spatial axes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window {
    /// Cells per axis.
    pub kernel: Vec<i64>,
    /// Step per axis.
    pub strides: Vec<i64>,
    /// Distance of the window's cells per axis.
    pub dilations: Vec<i64>,
    /// Border.
    pub padding: Padding,
}

impl Window {
    /// Reads the window attributes of an operator whose kernel is known.
    pub fn of(op: &Op, kernel: Vec<i64>) -> Option<Self> {
        let rank = kernel.len();
        let per_axis = |name| match op.get::<&[i64]>(name) {
            Some(values) if !values.is_empty() => Some(values.to_vec()).filter(|v| v.len() == rank),
            _ => Some(vec![1; rank]),
        };
        let padding = match op.get("auto_pad") {
            Some("SAME_UPPER") => Padding::SameUpper,
            Some("SAME_LOWER") => Padding::SameLower,
            Some("VALID") => Padding::Explicit(vec![0; 2 * rank]),
            None | Some("NOTSET") => match op.get::<&[i64]>("pads") {
                Some(pads) if !pads.is_empty() => {
                    Padding::Explicit(Some(pads.to_vec()).filter(|p| p.len() == 2 * rank)?)
                }
                _ => Padding::Explicit(vec![0; 2 * rank]),
            },
            Some(_) => return None,
        };
        let (strides, dilations) = (per_axis("strides")?, per_axis("dilations")?);
        Some(Window {
            kernel,
            strides,
            dilations,
            padding,
        })
    }

    /// The window of a 1x1x... convolution.
    pub fn pointwise(rank: usize) -> Self {
        Window::single_cell(&vec![1; rank])
    }

    /// The window that sees one position in so many along every axis.
    pub fn single_cell(strides: &[i64]) -> Self {
        let rank = strides.len();
        Window {
            kernel: vec![1; rank],
            strides: strides.to_vec(),
            dilations: vec![1; rank],
            padding: Padding::Explicit(vec![0; 2 * rank]),
        }
    }

    /// Whether every output sees exactly the input at its own position.
    pub fn is_pointwise(&self) -> bool {
        self.is_single_cell() && self.strides.iter().all(|&s| s == 1)
    }

    /// Whether every output sees exactly one position of the input.
    pub fn is_single_cell(&self) -> bool {
        let unpadded = match &self.padding {
            Padding::Explicit(_) => !self.is_padded(),
            // As many cells as a window of one needs: none.
            Padding::SameUpper | Padding::SameLower => true,
        };
        self.kernel.iter().all(|&k| k == 1) && unpadded
    }

    /// Whether cells may be put around the border.
    pub fn is_padded(&self) -> bool {
        match &self.padding {
            Padding::Explicit(pads) => pads.iter().any(|&p| p != 0),
            Padding::SameUpper | Padding::SameLower => true,
        }
    }

    /// Number of spatial axes.
    pub fn rank(&self) -> usize {
        self.kernel.len()
    }

    /// Number of cells in the window.
    pub fn cells(&self) -> i64 {
        self.kernel.iter().fold(1, |n, &k| n.saturating_mul(k))
    }

    /// An operator with the window's attributes; those at their defaults are left out.
    pub fn write(&self, mut op: Op) -> Op {
        op.set(Attribute::ints("kernel_shape", &self.kernel));
        op.unset("pads");
        op.unset("auto_pad");
        match &self.padding {
            Padding::Explicit(pads) if pads.iter().any(|&p| p != 0) => {
                op.set(Attribute::ints("pads", pads))
            }
            Padding::Explicit(_) => {}
            Padding::SameUpper => op.set(Attribute::string("auto_pad", "SAME_UPPER")),
            Padding::SameLower => op.set(Attribute::string("auto_pad", "SAME_LOWER")),
        }
        for (name, values) in [("strides", &self.strides), ("dilations", &self.dilations)] {
            op.unset(name);
            if values.iter().any(|&v| v != 1) {
                op.set(Attribute::ints(name, values));
            }
        }
        op
    }
}

/// A convolution: `x` `[N, C, spatial...]` with `w` `[O, C/group, kernel...]` and `bias` `[O]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// The node.
    pub node: NodeId,
    /// Input.
    pub x: Value,
    /// Weights.
    pub w: Value,
    /// Bias.
    pub bias: Option<Value>,
    /// Dimensions of the weights.
    pub weight_dims: Vec<u64>,
    /// The sliding window.
    pub window: Window,
    /// Number of groups.
    pub group: u64,
}

impl Conv {
    /// Views a `Conv` whose weights have a known shape, with at least one spatial axis and no size 0.
    pub fn of(graph: &Graph, node: NodeId) -> Option<Self> {
        let op = graph.op(node).filter(|op| op.is("Conv"))?;
        let (x, w) = (graph.input(node, 0)?, graph.input(node, 1)?);
        let weight_dims = graph.value_type(w)?.known_shape()?;
        let [out, per_group, cells @ ..] = &weight_dims[..] else {
            return None;
        };
        let kernel = cells.iter().map(|&k| i64::try_from(k).ok());
        let window = Window::of(op, kernel.collect::<Option<Vec<i64>>>()?)?;
        let group = op.get("group").filter(|&g: &u64| g > 0)?;
        let sound = out % group == 0 && !weight_dims.contains(&0) && !cells.is_empty();
        per_group.checked_mul(group).filter(|_| sound)?;
        let bias = graph.input(node, 2);
        Some(Conv {
            node,
            x,
            w,
            bias,
            weight_dims,
            window,
            group,
        })
    }

    /// Number of output channels.
    pub fn out_channels(&self) -> u64 {
        self.weight_dims[0]
    }

    /// Number of input channels, all groups together.
    pub fn in_channels(&self) -> u64 {
        self.weight_dims[1] * self.group
    }

    /// The output.
    pub fn y(&self) -> Value {
        Value {
            node: self.node,
            slot: 0,
        }
    }
}
