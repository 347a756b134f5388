//! Moves the head before the global average pool.
//!
//! A mean over positions commutes with a matrix product:
//!
//! ```text
//! y = Gemm (Flatten (GlobalAveragePool (x)), w, b)
//! y = Flatten (GlobalAveragePool (Conv (x, w as 1x1, b)))
//! ```
//!
//! The weight of a `MatMul` and the bias of an `Add` become those of the convolution. Only pooling and shape
//! operators may be between, and no linear layer may follow: the layers of squeeze-excite gates are also after a
//! global pool, but stay.

use std::iter;

use bcosc_ir::ops::Trait;
use bcosc_ir::views::Pool;
use bcosc_ir::{Dim, Graph, Model, NodeId, Op, Operand, Patch, TensorType, Value};

use crate::analysis::dense::Dense;
use crate::analysis::layers::{Form, Layer};
use crate::analysis::weights::WeightError;
use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

/// The pass.
pub static REORDER_HEAD: Pass = Pass {
    name: "reorder-head",
    summary: "move the linear head before the global average pool",
    effect: Effect::Exact,
    requires: &[],
    run,
};

fn run(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
    let mut outcome = Outcome::default();
    for layer in Layer::all(&model.graph) {
        let graph = &model.graph;
        match reorder(graph, &layer) {
            Ok(Some(_)) if cx.settings.keep_head => {
                outcome.skipped(graph.label(layer.node), Reason::Kept("--keep-head"));
            }
            Ok(Some(patch)) => {
                outcome.changed(graph.label(layer.node), "head moved before the pooling");
                model.graph.apply(patch)?;
            }
            Ok(None) => {}
            Err(error) => error.skip_or_fail(graph, layer.node, &mut outcome)?,
        }
    }
    Ok(outcome)
}

/// `None` if the layer is not after a global pool.
fn reorder(graph: &Graph, layer: &Layer) -> Result<Option<Patch>, WeightError> {
    let Some(pool) = pool_before(graph, layer.x) else {
        return Ok(None);
    };
    if matches!(layer.form, Form::LeftMatMul | Form::Conv(_)) {
        return Ok(None);
    }
    if !layer.is_head(graph) {
        return Err(Reason::NotHead.into());
    }
    let x = graph.input(pool, 0).ok_or(Reason::Malformed)?;
    let x_type = known(graph, x)?;
    let (rank, channels) = match x_type.shape.as_deref() {
        Some([_, Dim::Known(channels), _, ..]) => (x_type.rank().unwrap_or(0), *channels),
        _ => return Err(Reason::UnknownShape(graph.value_name(x).to_owned()).into()),
    };
    let seen = known(graph, layer.x)?.shape;
    if !matches!(seen.as_deref(), Some([_, Dim::Known(seen)]) if *seen == channels) {
        return Err(Reason::NotOneVector.into());
    }
    let dense = Dense::of(graph, layer)?;
    if dense.inputs != channels || dense.outputs == 0 || channels == 0 {
        return Err(Reason::Malformed.into());
    }
    let weight = dense.kernel(graph, rank)?;
    let mut patch = Patch::at(layer.node);
    let mut operands = vec![x.into(), patch.parameter("weight", weight)];
    if let Some(bias) = dense.bias(graph)? {
        operands.push(patch.parameter("bias", bias));
    }
    let conv = Op::new("", "Conv").named("conv");
    let scores = patch.op(
        conv.with_ints("kernel_shape", &vec![1; rank - 2]),
        &operands,
    );
    let mut scores_type = x_type;
    if let Some(shape) = &mut scores_type.shape {
        shape[1] = Dim::Known(dense.outputs);
    }
    patch.typed(scores, scores_type);
    let op = graph.op(pool).ok_or(Reason::Malformed)?;
    let others = graph.inputs_of(pool).into_iter().skip(1);
    let pool_inputs: Vec<Option<Operand>> = iter::once(Some(scores))
        .chain(others.map(|v| v.map(Operand::Old)))
        .collect();
    let flat = op.is("ReduceMean") && op.get("keepdims") == Some(false);
    let mut logits = patch.multi_op(op.clone().named("pool"), &pool_inputs, 1);
    if !flat {
        logits = patch.op(Op::new("", "Flatten").with_int("axis", 1), &[logits]);
    }
    patch.replace(layer.out, logits);
    Ok(Some(patch))
}

/// The global pool before the layer; only the shape may change between.
fn pool_before(graph: &Graph, mut value: Value) -> Option<NodeId> {
    loop {
        let (node, op) = graph.producer(value)?;
        if Pool::is_global_average(graph, node) {
            return Some(node);
        }
        if value.slot != 0 || !op.has_any(&[Trait::View, Trait::Copy]) {
            return None;
        }
        value = graph.input(node, 0)?;
    }
}

fn known(graph: &Graph, value: Value) -> Result<TensorType, Reason> {
    let unknown = || Reason::UnknownShape(graph.value_name(value).to_owned());
    graph.value_type(value).ok_or_else(unknown)
}

#[cfg(test)]
mod tests;
