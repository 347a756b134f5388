//! Replaces an attention pool by an output for every position.
//!
//! ```text
//! v = MatMul (features, value weights)          values stay linear
//! p = MatMul (v, projection weights)            a B-cos layer, once `bcos` has run
//! y = p / ||p||                                 one unit vector a position
//! ```
//!
//! Altering, enabled by `--attention-unpool`: the output has one vector for every position of every
//! image, in the layout of the features, instead of one per image. Queries and keys are removed.

use bcosc_ir::views::{AxesOp, reduce};
use bcosc_ir::{Dim, Graph, Model, Op, Operand, Patch, TensorType};

use crate::analysis::dense::Dense;
use crate::analysis::layers::{Form, Layer};
use crate::analysis::raise::attention_pool::{self, AttentionPool};
use crate::analysis::weights::{self, WeightError};
use crate::bcos::layers::LINEAR;
use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

/// Avoids division by zero for a zero vector.
const EPSILON: f64 = 1e-12;

/// The pass.
pub static UNPOOL_ATTENTION: Pass = Pass {
    name: "unpool-attention",
    summary: "with --attention-unpool: output a unit vector for every position",
    effect: Effect::Altering,
    requires: &[],
    run,
};

fn run(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
    let mut outcome = Outcome::default();
    if !cx.settings.attention_unpool {
        return Ok(outcome);
    }
    let opset = model.opset("").unwrap_or(0);
    let pools = attention_pool::all(&model.graph);
    if pools.is_empty() {
        return Err(PassError::Model(Reason::NoAttentionPool));
    }
    for pool in pools {
        let node = pool.projection.node;
        let patch = unpool(&model.graph, &pool, opset);
        let patch = patch.map_err(|error| error.at(model, node))?;
        outcome.changed(model.graph.label(node), "attention unpooled");
        model.graph.apply(patch)?;
    }
    model.graph.remove_dead();
    Ok(outcome)
}

fn unpool(graph: &Graph, pool: &AttentionPool, opset: i64) -> Result<Patch, WeightError> {
    let features = pool.features;
    let unknown = || Reason::UnknownShape(graph.value_name(features).to_owned());
    let found = graph.value_type(features).ok_or_else(unknown)?;
    let dims = found
        .shape
        .clone()
        .filter(|dims| dims.len() == 3)
        .ok_or_else(unknown)?;
    let typed = |last: u64| TensorType {
        dtype: found.dtype,
        shape: Some(vec![dims[0].clone(), dims[1].clone(), Dim::Known(last)]),
    };
    let output = graph.outputs().iter().find(|output| {
        let mut value = output.value;
        loop {
            if value == pool.projection.out {
                break true;
            }
            let next = graph
                .producer(value)
                .filter(|(_, op)| op.is("Reshape") || op.is("Squeeze"));
            match next.and_then(|(node, _)| graph.input(node, 0)) {
                Some(input) => value = input,
                None => break false,
            }
        }
    });
    let output = output.ok_or(Reason::NotHead)?.value;
    let inputs = |layer: &Layer| {
        let dims = weights::constant_type(graph, layer.w).and_then(|t| t.known_shape());
        let transposed = matches!(&layer.form, Form::Gemm(gemm) if gemm.trans_b);
        dims.and_then(|dims| dims.get(usize::from(transposed)).copied())
    };
    let made = pool.value_layer.units(graph).map(|units| units.count);
    if made != inputs(&pool.projection) {
        // Queries, keys and values in one layer.
        return Err(Reason::PackedValues.into());
    }
    let mut patch = Patch::at(pool.projection.node);
    let mut linear = Op::new("", "MatMul").named("values");
    linear.set_metadata(LINEAR, "true");
    let values = product(
        graph,
        &mut patch,
        &pool.value_layer,
        (linear, features.into()),
        &typed,
    )?;
    let projection = Op::new("", "MatMul").named("projection");
    let projected = product(
        graph,
        &mut patch,
        &pool.projection,
        (projection, values),
        &typed,
    )?;
    let length = reduce(&mut patch, opset, AxesOp::ReduceL2, projected, &[-1]);
    let epsilon = patch.parameter("epsilon", weights::tensor(found.dtype, &[], &[EPSILON]));
    let length = patch.op(Op::new("", "Add").named("length"), &[length, epsilon]);
    let unit = patch.op(Op::new("", "Div").named("unit"), &[projected, length]);
    let width = pool
        .projection
        .units(graph)
        .ok_or(Reason::NotOneVector)?
        .count;
    patch.typed(unit, typed(width));
    patch.replace_retyped(output, unit);
    Ok(patch)
}

/// A layer on every position of the features.
fn product(
    graph: &Graph,
    patch: &mut Patch,
    layer: &Layer,
    (op, x): (Op, Operand),
    typed: &dyn Fn(u64) -> TensorType,
) -> Result<Operand, WeightError> {
    let dense = Dense::of(graph, layer)?;
    let weight = dense.matrix(graph, patch)?;
    let mut y = patch.op(op, &[x, weight]);
    patch.typed(y, typed(dense.outputs));
    if let Some(bias) = dense.bias(graph)? {
        let bias = patch.parameter("bias", bias);
        y = patch.op(Op::new("", "Add").named("biased"), &[y, bias]);
        patch.typed(y, typed(dense.outputs));
    }
    Ok(y)
}

#[cfg(test)]
mod tests;
