//! The head moves before the pool: pool-then-linear becomes linear-then-pool.
//!
//! A mean over positions and a matrix commute, so the head can judge every position by itself:
//!
//! ```text
//! y = Gemm (Flatten (GlobalAveragePool (x)), w, b)
//! y = Flatten (GlobalAveragePool (Conv (x, w as 1x1, b)))
//! ```
//!
//! The weights of a `MatMul` and the bias that an `Add` brings go into the convolution too. Only pooling and
//! changes of shape may lie between, and nothing linear may follow: the layers of squeeze-excite
//! gates see pooled images too, and stay.

use std::iter;

use bcosc_ir::views::Pool;
use bcosc_ir::{Dim, Graph, Model, NodeId, Op, Operand, Patch, Tensor, TensorType, Value};

use crate::layer::{Form, Layer};
use crate::weights::{self, Floats, WeightError};
use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

/// The pass.
pub struct ReorderHead;

impl Pass for ReorderHead {
    fn name(&self) -> &'static str {
        "reorder-head"
    }

    fn summary(&self) -> &'static str {
        "move the linear head before the global average pool"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn ensures(&self) -> &'static str {
        "no linear layer follows a global pool directly"
    }

    fn run(&self, model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        for layer in Layer::all(&model.graph) {
            let graph = &model.graph;
            match reorder(graph, &layer) {
                Ok(Some(_)) if cx.settings.keep_head => {
                    outcome.skipped(graph.label(layer.node), Reason::Kept("--keep-head"));
                }
                Ok(Some(patch)) => {
                    outcome.changed(graph.label(layer.node), "head before pooling");
                    model.graph.apply(patch)?;
                }
                Ok(None) => {}
                Err(error) => error.settle(graph, layer.node, &mut outcome)?,
            }
        }
        Ok(outcome)
    }
}

/// Changes of shape that leave [N, C] of [N, C, 1, 1].
const SHAPE_OPS: &[&str] = &["Flatten", "Reshape", "Squeeze", "Identity", "Dropout"];

/// `None` where the layer does not follow a global pool.
fn reorder(graph: &Graph, layer: &Layer) -> Result<Option<Patch>, WeightError> {
    let Some(pool) = pool_before(graph, layer.x) else {
        return Ok(None);
    };
    let by_rows = match &layer.form {
        Form::Gemm(gemm) if !gemm.trans_a => !gemm.trans_b,
        Form::RightMatMul => true,
        Form::Gemm(_) | Form::LeftMatMul | Form::Conv(_) => return Ok(None),
    };
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
    let weight = head_weight(graph, layer, by_rows, rank)?;
    let [classes, inputs, ..] = weight.dims()[..] else {
        return Err(Reason::Malformed.into());
    };
    if inputs != channels || classes == 0 || channels == 0 {
        return Err(Reason::Malformed.into());
    }
    let mut patch = Patch::at(layer.node);
    let mut operands = vec![x.into(), patch.parameter("weight", weight)];
    if let Some(bias) = head_bias(graph, layer, classes)? {
        operands.push(patch.parameter("bias", bias));
    }
    let conv = Op::new("", "Conv").named("conv");
    let scores = patch.op(
        conv.with_ints("kernel_shape", &vec![1; rank - 2]),
        &operands,
    );
    let mut scores_type = x_type;
    if let Some(shape) = &mut scores_type.shape {
        shape[1] = Dim::Known(classes);
    }
    patch.typed(scores, scores_type);
    let op = graph.op(pool).ok_or(Reason::Malformed)?;
    let others = graph.inputs_of(pool).into_iter().skip(1);
    let pool_inputs: Vec<Option<Operand>> = iter::once(Some(scores))
        .chain(others.map(|v| v.map(Operand::Old)))
        .collect();
    let flat = op.is("ReduceMean") && op.int("keepdims", 1) == 0;
    let mut logits = patch.multi_op(op.clone().named("pool"), &pool_inputs, 1);
    if !flat {
        logits = patch.op(Op::new("", "Flatten").with_int("axis", 1), &[logits]);
    }
    patch.replace(layer.out, logits);
    Ok(Some(patch))
}

/// The global pool whose output is the layer's input, but for its shape.
fn pool_before(graph: &Graph, mut value: Value) -> Option<NodeId> {
    loop {
        let (node, op) = graph.producer(value)?;
        if Pool::is_global_average(graph, node) {
            return Some(node);
        }
        if value.slot != 0 || !op.domain().is_empty() || !SHAPE_OPS.contains(&op.op_type()) {
            return None;
        }
        value = graph.input(node, 0)?;
    }
}

fn known(graph: &Graph, value: Value) -> Result<TensorType, Reason> {
    let unknown = || Reason::UnknownShape(graph.value_name(value).to_owned());
    graph.value_type(value).ok_or_else(unknown)
}

/// The weights as [classes, channels, 1...] for data of a rank.
fn head_weight(
    graph: &Graph,
    layer: &Layer,
    by_rows: bool,
    rank: usize,
) -> Result<Tensor, WeightError> {
    let stored = graph.constant(layer.w).ok_or(Reason::DynamicWeight)?;
    let &[rows, columns] = &stored.dims()[..] else {
        return Err(Reason::NotOneVector.into());
    };
    let alpha = match &layer.form {
        Form::Gemm(gemm) => f64::from(gemm.alpha),
        _ => 1.0,
    };
    let (classes, channels) = if by_rows {
        (columns, rows)
    } else {
        (rows, columns)
    };
    let mut dims = vec![classes, channels];
    dims.resize(rank, 1);
    if !by_rows && alpha == 1.0 {
        return Ok(Tensor::from_bytes(stored.dtype(), &dims, stored.bytes()?));
    }
    let elements = stored.to_f64s()?;
    let at = |class: u64, channel: u64| match by_rows {
        true => channel * columns + class,
        false => class * columns + channel,
    };
    let scaled: Vec<f64> = (0..classes)
        .flat_map(|class| (0..channels).map(move |channel| at(class, channel)))
        .map(|index| elements[index as usize] * alpha)
        .collect();
    Ok(weights::tensor(stored.dtype(), &dims, &scaled))
}

/// The bias as [classes]: the `Gemm`'s own, and what an `Add` brings.
fn head_bias(graph: &Graph, layer: &Layer, classes: u64) -> Result<Option<Tensor>, WeightError> {
    let own = match &layer.form {
        Form::Gemm(gemm) => gemm.c.map(|c| (c, f64::from(gemm.beta))),
        _ => None,
    };
    let added = layer.added_bias(graph).map(|constant| (constant, 1.0));
    let mut sum: Option<Floats> = None;
    for (constant, factor) in [own, added].into_iter().flatten() {
        if weights::constant_type(graph, constant).is_none() {
            return Err(Reason::DynamicBias.into());
        }
        let bias = weights::floats(graph, constant)?;
        let spread: Vec<f64> = match bias.elements[..] {
            [one] => vec![one * factor; classes as usize],
            _ if bias.elements.len() as u64 == classes && bias.dims.last() == Some(&classes) => {
                bias.elements.iter().map(|b| b * factor).collect()
            }
            _ => return Err(Reason::BiasShape.into()),
        };
        let before = sum.map_or_else(|| vec![0.0; spread.len()], |s| s.elements);
        let elements = before.iter().zip(&spread).map(|(a, b)| a + b).collect();
        sum = Some(Floats { elements, ..bias });
    }
    Ok(sum.map(|sum| sum.shaped(&[classes], &sum.elements)))
}

#[cfg(test)]
mod tests;
