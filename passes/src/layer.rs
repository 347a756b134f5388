//! Linear layers, whichever operators write them.

use bcosc_ir::views::{Conv, Gemm, MatMul};
use bcosc_ir::{Graph, NodeId, Value};

use crate::Reason;

/// A layer whose every output is one weight vector times (a part of) the input, plus a bias.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The node that multiplies.
    pub node: NodeId,
    /// The data that is multiplied.
    pub x: Value,
    /// The constant weights.
    pub w: Value,
    /// The layer's output, after the bias where one is added by a node of its own.
    pub out: Value,
    /// How weights and data meet.
    pub form: Form,
}

/// How weights and data meet.
#[derive(Clone, Debug)]
pub enum Form {
    /// Patches times filters.
    Conv(Conv),
    /// `alpha * A' * B' + beta * C` with constant B.
    Gemm(Gemm),
    /// `x @ w`: vectors along the last axis.
    RightMatMul,
    /// `w @ x`: vectors along the last axis but one.
    LeftMatMul,
}

impl Layer {
    /// Sees a linear layer in a node. `None` where the node is no product at all; an error where it
    /// is one without constant weights.
    pub fn of(graph: &Graph, node: NodeId) -> Option<Result<Self, Reason>> {
        let op = graph.op(node)?;
        if op.is("Conv") {
            return Some(match Conv::of(graph, node) {
                Some(conv) if graph.constant(conv.w).is_some() => {
                    let (x, w) = (conv.x, conv.w);
                    Ok(Self::biased(graph, node, x, w, Form::Conv(conv)))
                }
                _ => Err(Reason::DynamicWeight),
            });
        }
        if let Some(gemm) = Gemm::of(graph, node) {
            let (x, w) = (gemm.a, gemm.b);
            return Some(match graph.constant(w) {
                Some(_) => Ok(Self::biased(graph, node, x, w, Form::Gemm(gemm))),
                None => Err(Reason::DynamicWeight),
            });
        }
        let product = MatMul::of(graph, node)?;
        let (left, right) = (graph.constant(product.a), graph.constant(product.b));
        Some(match (left, right) {
            (None, Some(_)) => Ok(Self::biased(
                graph,
                node,
                product.a,
                product.b,
                Form::RightMatMul,
            )),
            (Some(_), None) => Ok(Self::biased(
                graph,
                node,
                product.b,
                product.a,
                Form::LeftMatMul,
            )),
            _ => Err(Reason::DynamicWeight),
        })
    }

    /// Every linear layer of a graph, producers first.
    pub fn all(graph: &Graph) -> Vec<Self> {
        graph
            .ops()
            .into_iter()
            .filter_map(|id| Self::of(graph, id)?.ok())
            .collect()
    }

    fn biased(graph: &Graph, node: NodeId, x: Value, w: Value, form: Form) -> Self {
        let product = Value { node, slot: 0 };
        let out =
            added_bias(graph, product).map_or(product, |(add, _)| Value { node: add, slot: 0 });
        Layer {
            node,
            x,
            w,
            out,
            form,
        }
    }
}

/// The `Add` of a constant per-channel vector that alone reads a value, with the constant's slot.
///
/// Per channel means: at most one dimension of the constant is not 1.
pub fn added_bias(graph: &Graph, product: Value) -> Option<(NodeId, u32)> {
    let (add, slot) = graph.sole_consumer(product)?;
    graph.op(add).filter(|op| op.is("Add"))?;
    let constant_slot = 1 - slot;
    let constant = graph.constant(graph.input(add, constant_slot)?)?;
    let dims = constant.dims();
    let rank = graph.value_type(product).and_then(|t| t.rank());
    let fits = rank.is_none_or(|rank| dims.len() <= rank);
    let per_channel = dims.iter().filter(|&&d| d != 1).count() <= 1;
    (fits && per_channel).then_some((add, constant_slot))
}
