//! The form of the constant channel behind each operator.

use bcosc_ir::ops::Trait;
use bcosc_ir::views::{Conv, Gemm, MatMul, Pool, Window, axes_of};
use bcosc_ir::{Dim, Graph, NodeId, Op, Value};

use super::forms::Forms;
use super::windows::{dense, keeps_sizes, sizes};
use crate::dialect::Scale;

/// A graph, and the forms that are known so far.
pub(super) struct Rules<'a> {
    pub graph: &'a Graph,
    pub forms: &'a mut Forms,
}

/// Operators that are neither elementwise nor norms, whose result has the sizes of their first operand.
const SAME_SIZES: &[&str] = &["Hardmax", "LRN", "LogSoftmax", "Softmax"];

/// Operators that mix or resize the positions of each image.
const PER_IMAGE: &[&str] = &[
    "ConvTranspose",
    "DeformConv",
    "GlobalAveragePool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "GridSample",
    "Resize",
    "Upsample",
];

impl Rules<'_> {
    /// The form of what a node computes; `None` if it does not depend on the image, or if no form is known to fit.
    pub(super) fn behind(&mut self, node: NodeId) -> Option<usize> {
        // Passes before this one leave some types out.
        let dims = self.dims(self.graph.output(node, 0));
        let rank = dims.as_ref().map(Vec::len);
        let found = self.known(node, rank);
        let found = found.filter(|&form| rank.is_none_or(|rank| self.rank(form) == rank));
        let followed = found.is_some_and(|form| self.forms.form(form).images.is_none());
        match dims {
            Some(dims) if found.is_none() || followed => self.forms.by_name(&dims).or(found),
            _ => found,
        }
    }

    fn known(&mut self, node: NodeId, rank: Option<usize>) -> Option<usize> {
        let graph = self.graph;
        if let Some(scale) = Scale::of(graph, node) {
            return self.forms.get(scale.y);
        }
        let op = graph.op(node).filter(|op| op.domain().is_empty())?;
        match op.op_type() {
            "Conv" => {
                let conv = Conv::of(graph, node)?;
                self.windowed(node, conv.x, &conv.window, false)
            }
            "MaxPool" | "AveragePool" => {
                let pool = Pool::of(graph, node)?;
                self.windowed(node, pool.x, &pool.window, pool.ceil_mode)
            }
            "MatMul" => self.product(node),
            "Gemm" => self.gemm(node),
            "Attention" => {
                let form = self.operand(node, 2)?;
                self.forms.per_image(form)
            }
            "Concat" => {
                let form = self.widest(node, rank)?;
                let axis = place(op.get("axis")?, self.rank(form))?;
                self.forms.mean(form, &[axis])
            }
            name if PER_IMAGE.contains(&name) => {
                let form = self.operand(node, 0)?;
                self.forms.per_image(form)
            }
            name if SAME_SIZES.contains(&name) => self.operand(node, 0),
            name if name.starts_with("Reduce") => self.reduced(node, op),
            _ if op.has_any(&[Trait::Elementwise, Trait::Norm]) => self.widest(node, rank),
            _ if op.has(Trait::Structural) => self.moved(node, op, rank),
            _ => None,
        }
    }

    /// Behind a window: local where the form is.
    fn windowed(&mut self, node: NodeId, x: Value, window: &Window, ceil: bool) -> Option<usize> {
        let form = self.forms.get(x)?;
        let form = self.forms.mean(form, &[1])?;
        let rank = window.rank() + 2;
        let found = self.forms.form(form);
        let spatial = found.wide.get(2..).filter(|axes| axes.len() + 2 == rank)?;
        let sizes = sizes(window, ceil);
        if keeps_sizes(&sizes) || !spatial.contains(&true) {
            return Some(form);
        }
        if spatial.contains(&false) || found.images.is_none() {
            let axes: Vec<usize> = (2..rank).collect();
            return self.forms.mean(form, &axes);
        }
        let dims = self.dims(self.graph.output(node, 0)).unwrap_or_default();
        let single = (2..rank).filter(|&axis| dims.get(axis) == Some(&Dim::Known(1)));
        let single: Vec<usize> = single.collect();
        Some(self.forms.pooled(form, sizes, dense(window), &single))
    }

    /// The form after a matrix product. The axis that is summed must be constant; its place is taken by the axis of the units.
    fn product(&mut self, node: NodeId) -> Option<usize> {
        let MatMul { a, b, .. } = MatMul::of(self.graph, node)?;
        let (form, axes) = match (self.forms.get(a), self.forms.get(b)) {
            (Some(form), None) => (form, 1..2),
            (None, Some(form)) => (form, 2..3),
            (Some(_), Some(form)) => (form, 1..3),
            (None, None) => return None,
        };
        let rank = self.rank(form);
        let axes: Option<Vec<usize>> = axes.map(|from_end| rank.checked_sub(from_end)).collect();
        self.forms.mean(form, &axes?)
    }

    fn gemm(&mut self, node: NodeId) -> Option<usize> {
        let gemm = Gemm::of(self.graph, node)?;
        let form = self.forms.get(gemm.a)?;
        if gemm.trans_a {
            let form = self.forms.mean(form, &[0])?;
            return self.forms.transposed(form, &[1, 0]);
        }
        self.forms.mean(form, &[1])
    }

    fn reduced(&mut self, node: NodeId, op: &Op) -> Option<usize> {
        let form = self.operand(node, 0)?;
        let axes = places(axes_of(self.graph, node)?, self.rank(form))?;
        let form = self.forms.mean(form, &axes)?;
        match op.get::<i64>("keepdims")? {
            0 => self.forms.squeezed(form, &axes),
            _ => Some(form),
        }
    }

    /// Behind an operator that moves elements: along axes on which it leaves images alone, or else by the operator itself.
    fn moved(&mut self, node: NodeId, op: &Op, rank: Option<usize>) -> Option<usize> {
        let graph = self.graph;
        let form = self.operand(node, 0)?;
        let before = self.rank(form);
        let found = match op.op_type() {
            _ if op.has(Trait::Copy) => return Some(form),
            "Transpose" => {
                let order = op.get::<&[i64]>("perm").map(<[i64]>::to_vec);
                let reversed = || (0..before as i64).rev().collect();
                let order = places(order.unwrap_or_else(reversed), before)?;
                return self.forms.transposed(form, &order);
            }
            "Split" => return self.forms.mean(form, &[place(op.get("axis")?, before)?]),
            "Slice" => {
                let axes = places(self.cut(node)?, before)?;
                return self.forms.mean(form, &axes);
            }
            "Gather" => self.gathered(node, form, place(op.get("axis")?, before)?),
            "Squeeze" => axes_of(graph, node).and_then(|axes| {
                let axes = places(axes, before)?;
                let form = self.forms.mean(form, &axes)?;
                self.forms.squeezed(form, &axes)
            }),
            "Unsqueeze" => axes_of(graph, node)
                .and_then(|axes| places(axes.clone(), before + axes.len()))
                .map(|axes| self.forms.unsqueezed(form, &axes)),
            "Flatten" if op.get("axis") == Some(1_i64) => self.forms.ranked(form, 2),
            "Reshape" if self.keeps_rows(node) => self.forms.ranked(form, rank?),
            "Expand" if rank == Some(before) => return Some(form),
            "Expand" | "Flatten" | "Reshape" => None,
            _ if rank == Some(before) => self.forms.per_image(form),
            _ => None,
        };
        found.or_else(|| {
            let dims = self.dims(graph.output(node, 0))?;
            self.forms.followed(form, node, &dims)
        })
    }

    fn gathered(&mut self, node: NodeId, form: usize, axis: usize) -> Option<usize> {
        let indices = self.dims(self.graph.input(node, 1)?)?.len();
        let form = self.forms.mean(form, &[axis])?;
        match indices {
            0 => self.forms.squeezed(form, &[axis]),
            1 => Some(form),
            _ => None,
        }
    }

    /// The axes that a `Slice` cuts: its fourth operand, or its attribute up to opset 9; by default the first ones.
    fn cut(&self, node: NodeId) -> Option<Vec<i64>> {
        let graph = self.graph;
        if let Some(axes) = graph.op(node)?.get::<&[i64]>("axes") {
            return Some(axes.to_vec());
        }
        match graph.input(node, 3) {
            Some(axes) => graph.constant(axes)?.to_i64s().ok(),
            None => {
                let starts = graph.value_type(graph.input(node, 1)?)?.known_shape()?;
                Some((0..*starts.first()? as i64).collect())
            }
        }
    }

    /// Whether a `Reshape` leaves the first axis alone.
    fn keeps_rows(&self, node: NodeId) -> bool {
        let first = |value| self.dims(value)?.into_iter().next();
        let x = self.graph.input(node, 0).and_then(first);
        let same = x == first(self.graph.output(node, 0)) && x != Some(Dim::Unknown);
        let shape = self.graph.input(node, 1);
        let shape = shape.and_then(|shape| self.graph.constant(shape)?.to_i64s().ok());
        let copied = shape.is_some_and(|shape| shape.first() == Some(&0));
        let zeros = self.graph.op(node).and_then(|op| op.get("allowzero"));
        (same && x.is_some()) || (copied && zeros != Some(1_i64))
    }

    /// The form of the operand that says most: with the axis of images, then with the most positions.
    fn widest(&self, node: NodeId, rank: Option<usize>) -> Option<usize> {
        let operands = self.graph.inputs_of(node).into_iter().flatten();
        let forms = operands.filter_map(|value| self.forms.get(value));
        let forms: Vec<usize> = forms.collect();
        let rank = rank.or_else(|| forms.iter().map(|&form| self.rank(form)).max())?;
        let fits = forms.into_iter().filter(|&form| self.rank(form) == rank);
        let says = |form: usize| {
            let form = self.forms.form(form);
            (
                form.images.is_some(),
                form.wide.iter().filter(|w| **w).count(),
            )
        };
        // The first of several.
        fits.reduce(|best, form| if says(form) > says(best) { form } else { best })
    }

    fn operand(&self, node: NodeId, slot: u32) -> Option<usize> {
        self.forms.get(self.graph.input(node, slot)?)
    }

    fn rank(&self, form: usize) -> usize {
        self.forms.form(form).wide.len()
    }

    fn dims(&self, value: Value) -> Option<Vec<Dim>> {
        self.graph.value_type(value)?.shape
    }
}

/// An axis counted from the front.
fn place(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

fn places(axes: Vec<i64>, rank: usize) -> Option<Vec<usize>> {
    axes.into_iter().map(|axis| place(axis, rank)).collect()
}
