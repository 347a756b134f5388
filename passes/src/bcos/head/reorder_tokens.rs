//! Moves the head before the mean over tokens.
//!
//! ```text
//! y = Gemm (ReduceMean (x, [1]), w, b)
//! y = ReduceMean (MatMul (x, w) + b, [1])
//!
//! y = Gemm (LayerNormalization (ReduceMean (x, [1]), g, c), w, b)
//! y = ReduceMean (MatMul (LayerNormalization (x, g, c), w) + b, [1])
//! ```
//!
//! The first is exact. The second is altering, since the norm of a mean is not the mean of norms; B-cos transformers
//! use it so that every token has its own logits. The norm may be one operator or decomposed, and the mean may
//! be over the positions of an image; channels are then transposed to the end.

use std::collections::{BTreeMap, BTreeSet};

use bcosc_ir::views::{AxesOp, reduce_to};
use bcosc_ir::{Dim, Graph, Model, NodeId, Op, Operand, Patch, TensorType, Value};

use super::pooled::PooledHead;
use crate::analysis::dense::Dense;
use crate::analysis::layers::Layer;
use crate::analysis::raise::Raised;
use crate::analysis::weights::{self, WeightError};
use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

/// The pass for a mean without norm.
pub static REORDER_TOKEN_HEAD: Pass = Pass {
    name: "reorder-token-head",
    summary: "move the linear head before the mean over tokens",
    effect: Effect::Exact,
    requires: &[],
    run: run_reorder_token_head,
};

fn run_reorder_token_head(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
    reorder_all(model, cx, false)
}

/// The pass for a mean and a norm.
pub static REORDER_HEAD_AND_NORM: Pass = Pass {
    name: "reorder-head-and-norm",
    summary: "move the linear head and its norm before the mean over tokens",
    effect: Effect::Altering,
    requires: &[],
    run: run_reorder_head_and_norm,
};

fn run_reorder_head_and_norm(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
    reorder_all(model, cx, true)
}

fn reorder_all(
    model: &mut Model,
    cx: &Context<'_>,
    across_norm: bool,
) -> Result<Outcome, PassError> {
    let mut outcome = Outcome::default();
    let opset = model.opset("").unwrap_or(0);
    let norms: BTreeSet<NodeId> = Raised::of(&model.graph)
        .norms()
        .flat_map(|norm| norm.nodes.iter().copied())
        .collect();
    for layer in Layer::all(&model.graph) {
        let graph = &model.graph;
        let head = match PooledHead::of(graph, &layer, &norms) {
            None => continue,
            Some(Err(reason)) => {
                outcome.skipped(graph.label(layer.node), reason);
                continue;
            }
            Some(Ok(head)) => head,
        };
        if head.crosses_norm != across_norm {
            continue;
        }
        if cx.settings.keep_head {
            outcome.skipped(graph.label(layer.node), Reason::Kept("--keep-head"));
            continue;
        }
        match reorder(graph, &layer, &head, opset) {
            Ok(patch) => {
                let what = match across_norm {
                    true => "norm and head moved before the mean",
                    false => "head moved before the mean",
                };
                outcome.changed(graph.label(layer.node), what);
                model.graph.apply(patch)?;
            }
            Err(error) => error.skip_or_fail(graph, layer.node, &mut outcome)?,
        }
    }
    Ok(outcome)
}

fn reorder(
    graph: &Graph,
    layer: &Layer,
    head: &PooledHead,
    opset: i64,
) -> Result<Patch, WeightError> {
    let unknown = |v: Value| Reason::UnknownShape(graph.value_name(v).to_owned());
    let x_type = graph.value_type(head.x).ok_or_else(|| unknown(head.x))?;
    let mut dims = x_type.shape.clone().ok_or_else(|| unknown(head.x))?;
    let rank = dims.len() as i64;
    let mut patch = Patch::at(layer.node);
    let mut tokens = Operand::Old(head.x);
    if !head.channels_last {
        let perm: Vec<i64> = [0].into_iter().chain(2..rank).chain([1]).collect();
        dims = perm
            .iter()
            .map(|&axis| dims[axis as usize].clone())
            .collect();
        let op = Op::new("", "Transpose")
            .named("tokens")
            .with_ints("perm", &perm);
        tokens = patch.op(op, &[tokens]);
    }
    let vectors = |dims: &[Dim], last: u64| {
        let mut shape = dims.to_vec();
        if let Some(axis) = shape.last_mut() {
            *axis = Dim::Known(last);
        }
        TensorType {
            dtype: x_type.dtype,
            shape: Some(shape),
        }
    };
    patch.typed(tokens, vectors(&dims, head.channels));
    let tokens = normed(
        graph,
        &mut patch,
        head,
        tokens,
        (opset, &|last| vectors(&dims, last)),
    )?;
    let dense = Dense::of(graph, layer)?;
    let matrix = dense.matrix(graph, &mut patch)?;
    let mut scores = patch.op(Op::new("", "MatMul").named("scores"), &[tokens, matrix]);
    patch.typed(scores, vectors(&dims, dense.outputs));
    if let Some(bias) = dense.bias(graph)? {
        let bias = patch.parameter("bias", bias);
        scores = patch.op(Op::new("", "Add").named("biased"), &[scores, bias]);
        patch.typed(scores, vectors(&dims, dense.outputs));
    }
    let positions: Vec<i64> = (1..rank - 1).collect();
    let logits = reduce_to(&mut patch, opset, AxesOp::ReduceMean, scores, &positions);
    let out = graph.value_type(layer.out).and_then(|t| t.rank());
    if out != Some(2) {
        return Err(Reason::NotOneVector.into());
    }
    patch.replace(layer.out, logits);
    Ok(patch)
}

/// The norm on every vector of x: the same operators along the last axis.
fn normed(
    graph: &Graph,
    patch: &mut Patch,
    head: &PooledHead,
    tokens: Operand,
    (opset, typed): (i64, &dyn Fn(u64) -> TensorType),
) -> Result<Operand, WeightError> {
    let mut moved: BTreeMap<Value, Operand> = BTreeMap::new();
    let mut last = tokens;
    for node in &head.norm {
        let op = graph.op(*node).ok_or(Reason::Malformed)?;
        let own = op.clone().named(op.op_type());
        let mut operands = Vec::new();
        for operand in graph.inputs_of(*node) {
            let Some(operand) = operand else {
                operands.push(None);
                continue;
            };
            let found = match head.vectors.contains(&operand) {
                true => moved_operand(graph, head, &moved, operand, tokens),
                false => flat(graph, patch, operand)?,
            };
            operands.push(Some(found));
        }
        last = if op.is("ReduceMean") {
            let x = operands
                .first()
                .copied()
                .flatten()
                .ok_or(Reason::Malformed)?;
            bcosc_ir::views::reduce(patch, opset, AxesOp::ReduceMean, x, &[-1])
        } else if op.attribute("axis").is_some() {
            patch.multi_op(own.with_int("axis", -1), &operands, 1)
        } else {
            patch.multi_op(own, &operands, 1)
        };
        let out = graph.output(*node, 0);
        if let Some(length) = head.length(graph, out) {
            patch.typed(last, typed(length));
        }
        moved.insert(out, last);
    }
    Ok(last)
}

/// The rewritten vector; structural operators after the last operator are skipped.
fn moved_operand(
    graph: &Graph,
    head: &PooledHead,
    moved: &BTreeMap<Value, Operand>,
    mut value: Value,
    tokens: Operand,
) -> Operand {
    loop {
        if let Some(found) = moved.get(&value) {
            return *found;
        }
        match graph.input(value.node, 0) {
            Some(before) if value.node != head.pool => value = before,
            _ => return tokens,
        }
    }
}

/// A constant of a norm as a scalar or a vector.
fn flat(graph: &Graph, patch: &mut Patch, constant: Value) -> Result<Operand, WeightError> {
    let dims = weights::constant_type(graph, constant).and_then(|t| t.known_shape());
    match dims.as_deref() {
        Some([] | [_]) => Ok(Operand::Old(constant)),
        _ => {
            let floats = weights::floats(graph, constant)?;
            let length = floats.elements.len() as u64;
            Ok(patch.parameter("vector", floats.shaped(&[length], &floats.elements)))
        }
    }
}

#[cfg(test)]
mod tests;
