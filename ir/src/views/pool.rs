//! Pooling over windows and over everything.

use crate::views::Window;
use crate::{Dim, Graph, NodeId, Value};

/// What a pool computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// The largest element.
    Max,
    /// The mean; padding counts as zeros if `count_padding`.
    Average {
        /// Whether padded cells count.
        count_padding: bool,
    },
}

/// A pool over a window.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// The node.
    pub node: NodeId,
    /// Input `[N, C, spatial...]`.
    pub x: Value,
    /// What it computes.
    pub kind: PoolKind,
    /// The window.
    pub window: Window,
    /// Whether a last window may hang over the border.
    pub ceil_mode: bool,
}

impl Pool {
    /// Views a `MaxPool` or `AveragePool`.
    pub fn of(graph: &Graph, node: NodeId) -> Option<Self> {
        let op = graph.op(node)?;
        let kind = if op.is("MaxPool") {
            PoolKind::Max
        } else if op.is("AveragePool") {
            PoolKind::Average {
                count_padding: op.get("count_include_pad")?,
            }
        } else {
            return None;
        };
        let window = Window::of(op, op.get::<&[i64]>("kernel_shape")?.to_vec())?;
        Some(Pool {
            node,
            x: graph.input(node, 0)?,
            kind,
            window,
            ceil_mode: op.get("ceil_mode")?,
        })
    }

    /// The output.
    pub fn y(&self) -> Value {
        Value {
            node: self.node,
            slot: 0,
        }
    }

    /// Whether the node takes the mean over all spatial positions: `GlobalAveragePool`, a
    /// `ReduceMean` over all axes from 2 on, or an `AveragePool` whose window is the whole input.
    pub fn is_global_average(graph: &Graph, node: NodeId) -> bool {
        let Some(op) = graph.op(node) else {
            return false;
        };
        if op.is("GlobalAveragePool") {
            return true;
        }
        let Some(x) = graph.input(node, 0) else {
            return false;
        };
        let shape = graph.value_type(x).and_then(|t| t.shape);
        if op.is("ReduceMean") {
            let rank = shape.map(|s| s.len() as i64);
            let axes = super::axes::axes_of(graph, node);
            return match (rank, axes) {
                (Some(rank), Some(mut axes)) => {
                    axes.iter_mut()
                        .for_each(|a| *a += if *a < 0 { rank } else { 0 });
                    axes.sort_unstable();
                    rank > 2 && axes.into_iter().eq(2..rank)
                }
                _ => false,
            };
        }
        let Some(pool) =
            Pool::of(graph, node).filter(|p| matches!(p.kind, PoolKind::Average { .. }))
        else {
            return false;
        };
        let unpadded =
            pool.window.padding == crate::views::Padding::Explicit(vec![0; 2 * pool.window.rank()]);
        let spatial: Option<Vec<i64>> = shape
            .and_then(|s| {
                s.get(2..)
                    .map(|s| s.iter().map(Dim::known).collect::<Option<Vec<u64>>>())
            })
            .flatten()
            .map(|s| s.into_iter().map(|d| d as i64).collect());
        unpadded
            && pool.window.dilations.iter().all(|&d| d == 1)
            && spatial == Some(pool.window.kernel)
    }
}
