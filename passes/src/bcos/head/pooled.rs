//! The operators between the mean over positions and the head, on one vector per image.

use std::collections::BTreeSet;

use bcosc_ir::ops::Trait;
use bcosc_ir::views::{Pool, axes_of};
use bcosc_ir::{Dim, Graph, NodeId, Op, Value};

use crate::Reason;
use crate::analysis::layers::{Form, Layer, is_structural};
use crate::analysis::weights;

/// Whether an operator may be part of a norm of each vector, or scale and shift vectors.
fn may_norm(op: &Op) -> bool {
    op.has_any(&[Trait::Elementwise, Trait::VectorNorm]) || op.is("ReduceMean")
}

/// A mean over positions, what follows it, and the head.
#[derive(Clone, Debug)]
pub(crate) struct PooledHead {
    /// The mean.
    pub pool: NodeId,
    /// Its input.
    pub x: Value,
    /// Whether channels are the last axis of x, rather than axis 1.
    pub channels_last: bool,
    /// Length of the vectors.
    pub channels: u64,
    /// Operators between the mean and the head, without structural ones, in topological order.
    pub norm: Vec<NodeId>,
    /// Whether they include a norm; constant factors and shifts commute with the mean.
    pub crosses_norm: bool,
    /// Values that are one vector per image.
    pub vectors: BTreeSet<Value>,
}

impl PooledHead {
    /// Follows the graph back from a linear layer. `None` if it is not after a mean over positions; a reason
    /// if the operators between are not a norm of each vector.
    pub(crate) fn of(
        graph: &Graph,
        layer: &Layer,
        norms: &BTreeSet<NodeId>,
    ) -> Option<Result<Self, Reason>> {
        let is_linear = matches!(layer.form, Form::Gemm(_) | Form::RightMatMul);
        if !is_linear || !layer.is_head(graph) {
            return None;
        }
        let mut open = vec![layer.x];
        let mut between = BTreeSet::new();
        let mut vectors = BTreeSet::new();
        let mut pool = None;
        while let Some(value) = open.pop() {
            if !vectors.insert(value) {
                continue;
            }
            let (node, op) = graph.producer(value)?;
            if let Some(found) = Mean::of(graph, node) {
                if pool.as_ref().is_some_and(|(known, _)| *known != node) {
                    return None;
                }
                pool = Some((node, found));
                continue;
            }
            if !(is_structural(op) || may_norm(op)) || value.slot != 0 {
                return None;
            }
            between.insert(node);
            let data = graph.inputs_of(node).into_iter().flatten();
            open.extend(
                data.take(if is_structural(op) { 1 } else { usize::MAX })
                    .filter(|v| graph.constant(*v).is_none()),
            );
        }
        let (pool, mean) = pool?;
        let computes = |id: &NodeId| {
            let op = graph.op(*id);
            between.contains(id) && op.is_some_and(|op| !is_structural(op))
        };
        let norm: Vec<NodeId> = graph.ops().into_iter().filter(computes).collect();
        let head = PooledHead {
            pool,
            x: mean.x,
            channels_last: mean.channels_last,
            channels: mean.channels,
            crosses_norm: norm.iter().any(|node| norms.contains(node)),
            norm,
            vectors,
        };
        Some(head.check(graph, layer, norms).map(|()| head))
    }

    fn check(&self, graph: &Graph, layer: &Layer, norms: &BTreeSet<NodeId>) -> Result<(), Reason> {
        let strange = |node: &&NodeId| !norms.contains(node) && !self.is_affine(graph, **node);
        if let Some(node) = self.norm.iter().find(strange) {
            return Err(Reason::NotNorm(graph.label(*node)));
        }
        for value in &self.vectors {
            let strange = graph.uses(*value).into_iter().any(|usage| match usage {
                bcosc_ir::Use::Input { node, .. } | bcosc_ir::Use::Capture { node, .. } => {
                    node != layer.node
                        && !self.leads_on(graph, node)
                        && !crate::analysis::layers::reads_shape(graph, node)
                }
                bcosc_ir::Use::Output(_) => true,
            });
            if strange {
                return Err(Reason::UsedElsewhere(graph.value_name(*value).to_owned()));
            }
            let unknown = || Reason::UnknownShape(graph.value_name(*value).to_owned());
            let length = self.length(graph, *value).ok_or_else(unknown)?;
            if length != self.channels && length != 1 {
                return Err(Reason::NotOneVector);
            }
        }
        for node in &self.norm {
            for operand in graph.inputs_of(*node).into_iter().flatten() {
                if self.vectors.contains(&operand) {
                    continue;
                }
                let dims = weights::constant_type(graph, operand).and_then(|t| t.known_shape());
                let length: Option<u64> = dims.map(|d| d.iter().product());
                if !length.is_some_and(|length| length == self.channels || length == 1) {
                    return Err(Reason::NotConstant(graph.value_name(operand).to_owned()));
                }
            }
        }
        Ok(())
    }

    /// Whether a node scales or shifts vectors by constants, which commutes with a mean.
    fn is_affine(&self, graph: &Graph, node: NodeId) -> bool {
        let Some(op) = graph.op(node) else {
            return false;
        };
        let data = |slot| {
            graph
                .input(node, slot)
                .is_some_and(|v| self.vectors.contains(&v))
        };
        match op.op_type() {
            "Cast" => true,
            "Add" | "Mul" => data(0) != data(1),
            "Sub" | "Div" => data(0) && !data(1),
            _ => false,
        }
    }

    /// Number of elements per image.
    pub(crate) fn length(&self, graph: &Graph, value: Value) -> Option<u64> {
        let dims = graph.value_type(value)?.shape?;
        dims.iter().skip(1).map(Dim::known).product()
    }

    fn leads_on(&self, graph: &Graph, node: NodeId) -> bool {
        self.vectors.contains(&graph.output(node, 0))
    }
}

struct Mean {
    x: Value,
    channels_last: bool,
    channels: u64,
}

impl Mean {
    /// Recognises a mean over all axes except batch and channels.
    fn of(graph: &Graph, node: NodeId) -> Option<Self> {
        let op = graph.op(node)?;
        let x = graph.input(node, 0)?;
        let shape = graph.value_type(x)?.shape?;
        let rank = shape.len() as i64;
        if rank < 3 {
            return None;
        }
        let (positions, channels_last) = if op.is("ReduceMean") {
            let axes = axes_of(graph, node)?;
            let mut axes: Vec<i64> = axes
                .into_iter()
                .map(|a| if a < 0 { a + rank } else { a })
                .collect();
            axes.sort_unstable();
            let channels_last = axes.iter().copied().eq(1..rank - 1);
            if !channels_last && !axes.iter().copied().eq(2..rank) {
                return None;
            }
            (axes, channels_last)
        } else if Pool::is_global_average(graph, node) {
            ((2..rank).collect(), false)
        } else {
            return None;
        };
        // A layer norm of one vector per image also computes a mean, over its only axis of size other than 1.
        let one = |axis: &i64| shape[*axis as usize].known() == Some(1);
        if positions.iter().all(one) || (!channels_last && shape[1].known() == Some(1)) {
            return None;
        }
        let channels = if channels_last { rank - 1 } else { 1 };
        Some(Mean {
            x,
            channels_last,
            channels: shape[channels as usize].known()?,
        })
    }
}
