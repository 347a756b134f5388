//! Linear layers, in any operator.

use std::collections::BTreeSet;

use bcosc_ir::ops::Trait;
use bcosc_ir::views::{Conv, Gemm, MatMul};
use bcosc_ir::{Graph, NodeId, Op, Use, Value};

use crate::Reason;
use crate::analysis::weights;

/// A linear layer: each output is the product of a weight vector and (a part of) the input, plus a bias.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The convolution or matrix product.
    pub node: NodeId,
    /// The input of the product.
    pub x: Value,
    /// The constant weights.
    pub w: Value,
    /// The output of the layer, after the bias if a separate node adds it.
    pub out: Value,
    /// The form of the product.
    pub form: Form,
}

/// Whether an operator only changes the shape or the order of elements. Such operators may be between a layer and
/// its actual input.
pub(crate) fn is_structural(op: &Op) -> bool {
    op.has_any(&[Trait::View, Trait::Copy]) || op.is("Transpose")
}

/// The form of the product.
#[derive(Clone, Debug)]
pub enum Form {
    /// Convolution.
    Conv(Conv),
    /// `alpha * A' * B' + beta * C` with constant B.
    Gemm(Gemm),
    /// `x @ w`: vectors along the last axis.
    RightMatMul,
    /// `w @ x`: vectors along the second last axis.
    LeftMatMul,
}

/// Operators of linear layers.
pub const OPERATORS: &[&str] = &["Conv", "Gemm", "MatMul"];

impl Layer {
    /// The linear layer at a node. `None` if the node is not a product with data; an error if the other
    /// operand is not a constant weight.
    pub fn of(graph: &Graph, node: NodeId) -> Option<Result<Self, Reason>> {
        let op = graph.op(node)?;
        match op.op_type() {
            "Conv" if op.is("Conv") => Some(Self::of_conv(graph, node)),
            "Gemm" if op.is("Gemm") => Some(Self::of_gemm(graph, node)),
            "MatMul" if op.is("MatMul") => Self::of_matmul(graph, node),
            _ => None,
        }
    }

    /// All linear layers of a graph in topological order.
    pub fn all(graph: &Graph) -> Vec<Self> {
        graph
            .ops()
            .into_iter()
            .filter_map(|id| Self::of(graph, id)?.ok())
            .collect()
    }

    /// Whether a bias is added, by the operator or by the node behind it.
    pub fn has_bias(&self, graph: &Graph) -> bool {
        self.out.node != self.node || graph.input(self.node, 2).is_some()
    }

    /// Whether this is the last layer before the outputs of the graph.
    pub fn is_head(&self, graph: &Graph) -> bool {
        let mut open = vec![self.out];
        let mut seen = BTreeSet::new();
        while let Some(value) = open.pop() {
            for node in data_consumers(graph, value) {
                if matches!(Self::of(graph, node), Some(Ok(_))) {
                    return false;
                }
                if seen.insert(node) {
                    open.extend((0..graph.output_count(node)).map(|slot| graph.output(node, slot)));
                }
            }
        }
        true
    }

    /// The bias constant if a separate node adds it.
    pub fn added_bias(&self, graph: &Graph) -> Option<Value> {
        let (add, constant) = added_bias(graph, self.product(), self.units(graph)?)?;
        (self.out.node == add).then_some(constant)
    }

    fn of_conv(graph: &Graph, node: NodeId) -> Result<Self, Reason> {
        constant_weight(graph, node, 1)?;
        let conv = Conv::of(graph, node).ok_or(Reason::Malformed)?;
        let (x, w) = (conv.x, conv.w);
        Ok(Self::biased(graph, node, x, w, Form::Conv(conv)))
    }

    fn of_gemm(graph: &Graph, node: NodeId) -> Result<Self, Reason> {
        let rank = constant_weight(graph, node, 1)?;
        let gemm = Gemm::of(graph, node).filter(|_| rank == 2);
        let gemm = gemm.ok_or(Reason::Malformed)?;
        let (x, w) = (gemm.a, gemm.b);
        Ok(Self::biased(graph, node, x, w, Form::Gemm(gemm)))
    }

    fn of_matmul(graph: &Graph, node: NodeId) -> Option<Result<Self, Reason>> {
        let Some(MatMul { a, b, .. }) = MatMul::of(graph, node) else {
            return Some(Err(Reason::Malformed));
        };
        let constant = |value| weights::constant_type(graph, value).is_some();
        let (x, w, slot, form) = match (constant(a), constant(b)) {
            (false, true) => (a, b, 1, Form::RightMatMul),
            (true, false) => (b, a, 0, Form::LeftMatMul),
            (false, false) => return Some(Err(Reason::DynamicWeight)),
            (true, true) => return None,
        };
        let flat = |rank: usize| rank < 2;
        let vector = match form {
            Form::LeftMatMul => graph.value_type(x).and_then(|t| t.rank()).is_some_and(flat),
            _ => false,
        };
        Some(match constant_weight(graph, node, slot) {
            Ok(rank) if vector || flat(rank) => Err(Reason::VectorProduct),
            Ok(_) => Ok(Self::biased(graph, node, x, w, form)),
            Err(reason) => Err(reason),
        })
    }

    fn biased(graph: &Graph, node: NodeId, x: Value, w: Value, form: Form) -> Self {
        let mut layer = Layer {
            node,
            x,
            w,
            out: Value { node, slot: 0 },
            form,
        };
        let added = layer
            .units(graph)
            .and_then(|units| added_bias(graph, layer.product(), units));
        if let Some((add, _)) = added {
            layer.out = Value { node: add, slot: 0 };
        }
        layer
    }

    /// The output of the layer before a bias that a separate node adds.
    pub fn product(&self) -> Value {
        Value {
            node: self.node,
            slot: 0,
        }
    }

    /// The unit axis of the output, one unit per weight vector.
    pub fn units(&self, graph: &Graph) -> Option<Units> {
        let dims = weights::constant_type(graph, self.w)?.known_shape()?;
        let from_last = |back: usize| dims.len().checked_sub(back + 1).map(|i| dims[i]);
        let (behind, count) = match &self.form {
            Form::Conv(conv) => (conv.window.rank(), Some(conv.out_channels())),
            Form::Gemm(gemm) if gemm.trans_b => (0, from_last(1)),
            Form::Gemm(_) | Form::RightMatMul => (0, from_last(0)),
            Form::LeftMatMul => (1, from_last(1)),
        };
        let count = count?;
        Some(Units { behind, count })
    }
}

/// The unit (channel) axis of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Units {
    /// Number of axes after it.
    pub behind: usize,
    /// Number of units.
    pub count: u64,
}

/// The `Add` of a constant if it is the only consumer of a value, and the constant: one element per unit, or one for all.
pub fn added_bias(graph: &Graph, product: Value, units: Units) -> Option<(NodeId, Value)> {
    let (add, slot) = graph.sole_consumer(product)?;
    graph.op(add).filter(|op| op.is("Add"))?;
    let constant = match (slot, &graph.inputs_of(add)[..]) {
        (0, &[_, Some(other)]) | (1, &[Some(other), _]) => other,
        _ => return None,
    };
    let dims = weights::constant_type(graph, constant)?.known_shape()?;
    let rank = graph.value_type(product).and_then(|t| t.rank());
    let fits = dims.len() <= rank.unwrap_or(units.behind + 1);
    let mut dims = dims.iter().rev().enumerate();
    let per_unit = dims.all(|(axis, &d)| d == 1 || (axis == units.behind && d == units.count));
    (fits && per_unit).then_some((add, constant))
}

/// The consumers of a value, without those that only read its shape, in a fixed order.
pub fn data_consumers(graph: &Graph, value: Value) -> Vec<NodeId> {
    let uses = graph.uses(value).into_iter();
    let nodes = uses.filter_map(|usage| match usage {
        Use::Input { node, .. } | Use::Capture { node, .. } => Some(node),
        Use::Output(_) => None,
    });
    nodes.filter(|&node| !reads_shape(graph, node)).collect()
}

/// Whether a node only reads the shape of its input.
pub fn reads_shape(graph: &Graph, node: NodeId) -> bool {
    graph.op(node).is_some_and(|op| op.has(Trait::ShapeOnly))
}

/// The rank of an operand that must be a constant weight.
fn constant_weight(graph: &Graph, node: NodeId, slot: u32) -> Result<usize, Reason> {
    let operand = graph.input(node, slot).ok_or(Reason::Malformed)?;
    let found = weights::constant_type(graph, operand).ok_or(Reason::DynamicWeight)?;
    if !found.dtype.is_float() {
        return Err(Reason::NotFloating);
    }
    found.rank().ok_or(Reason::Malformed)
}
