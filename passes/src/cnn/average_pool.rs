//! Max pools become average pools: a mean is linear, a maximum is not.
//!
//! ```text
//! y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (x)
//! y = AveragePool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1], count_include_pad = 1> (x)
//! ```
//!
//! Departing: window, stride and padding stay, the function does not. Padding counts as zeros; what
//! a last window (`ceil_mode`) covers beyond the padding does not count.

use bcosc_ir::views::{Pool, PoolKind};
use bcosc_ir::{Graph, Model, NodeId, Op, Patch, Value};

use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

/// The pass.
pub struct AveragePools;

impl Pass for AveragePools {
    fn name(&self) -> &'static str {
        "max-to-average-pools"
    }

    fn summary(&self) -> &'static str {
        "turn max pools into average pools"
    }

    fn effect(&self) -> Effect {
        Effect::Departing
    }

    fn ensures(&self) -> &'static str {
        "pooling is linear"
    }

    fn run(&self, model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let opset = model.opset("").unwrap_or(0);
        for node in model.graph.ops() {
            let graph = &model.graph;
            if !graph
                .op(node)
                .is_some_and(|op| op.is("MaxPool") || op.is("GlobalMaxPool"))
            {
                continue;
            }
            if cx.settings.keep_max_pool {
                outcome.skipped(graph.label(node), Reason::Kept("--keep-max-pool"));
                continue;
            }
            match average(graph, node, opset) {
                Ok(patch) => {
                    outcome.changed(graph.label(node), "average pool with the same window");
                    model.graph.apply(patch)?;
                }
                Err(reason) => outcome.skipped(graph.label(node), reason),
            }
        }
        Ok(outcome)
    }
}

fn average(graph: &Graph, node: NodeId, opset: i64) -> Result<Patch, Reason> {
    let y = Value { node, slot: 0 };
    let mut patch = Patch::at(node);
    if graph.op(node).is_some_and(|op| op.is("GlobalMaxPool")) {
        let x = graph.input(node, 0).ok_or(Reason::Malformed)?;
        let pooled = patch.op(Op::new("", "GlobalAveragePool"), &[x.into()]);
        patch.replace(y, pooled);
        return Ok(patch);
    }
    let pool = Pool::of(graph, node)
        .filter(|p| p.kind == PoolKind::Max)
        .ok_or(Reason::Malformed)?;
    let indices_used =
        (1..graph.output_count(node)).any(|slot| !graph.uses(Value { node, slot }).is_empty());
    if indices_used {
        return Err(Reason::IndicesUsed);
    }
    if pool.window.dilations.iter().any(|&d| d != 1) && opset < 19 {
        return Err(Reason::NeedsOpset {
            opset: 19,
            what: "average pooling with dilations",
        });
    }
    let mut op = pool.window.write(Op::new("", "AveragePool"));
    if pool.window.is_padded() {
        op = op.with_int("count_include_pad", 1);
    }
    // With a stride of 1 the last window ends at the border anyway.
    if pool.ceil_mode && pool.window.strides.iter().any(|&s| s != 1) {
        op = op.with_int("ceil_mode", 1);
    }
    let pooled = patch.op(op, &[pool.x.into()]);
    patch.replace(y, pooled);
    Ok(patch)
}
