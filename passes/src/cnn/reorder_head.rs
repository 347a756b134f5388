//! The head moves before the pool: pool-then-linear becomes linear-then-pool.
//!
//! A mean over positions and a matrix commute, so the head can judge every position by itself:
//!
//! ```text
//! y = Gemm (Flatten (GlobalAveragePool (x)), w, b)
//! y = Flatten (GlobalAveragePool (Conv (x, w as 1x1, b)))
//! ```
//!
//! Only pooling and changes of shape may lie between; `Layer` heads that see anything else stay.

use bcosc_ir::views::Pool;
use bcosc_ir::{Dim, Graph, Model, NodeId, Op, Operand, Patch, Tensor, Value};

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

    fn run(&self, model: &mut Model, _: &Context<'_>) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        for layer in Layer::all(&model.graph) {
            let graph = &model.graph;
            match reorder(graph, &layer) {
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
    let pooled = Value {
        node: pool,
        slot: 0,
    };
    let x = graph.input(pool, 0).ok_or(Reason::Malformed)?;
    let shape = graph.value_type(x).and_then(|t| t.shape);
    let (Some(channels), Some(rank)) = (
        shape.as_ref().and_then(|s| s.get(1)).and_then(Dim::known),
        shape.as_ref().map(Vec::len),
    ) else {
        return Err(Reason::UnknownShape(graph.value_name(x).to_owned()).into());
    };
    let Some((weight, classes)) = head_weight(graph, layer)? else {
        return Ok(None);
    };
    if weight.elements.len() as u64 != classes * channels {
        // The layer sees positions side by side, not one vector a pooled image.
        return Ok(None);
    }
    let mut patch = Patch::at(layer.node);
    let mut dims = vec![classes, channels];
    dims.resize(rank, 1);
    let weight = patch.parameter("weight", weight.shaped(&dims, &weight.elements));
    let mut operands = vec![Operand::Old(x), weight];
    if let Some(bias) = head_bias(graph, layer, classes)? {
        operands.push(patch.parameter("bias", bias));
    }
    let kernel = vec![1; rank - 2];
    let scores = patch.op(
        Op::new("", "Conv")
            .named("conv")
            .with_ints("kernel_shape", &kernel),
        &operands,
    );
    let pool_op = graph
        .op(pool)
        .ok_or(Reason::Malformed)?
        .clone()
        .named("pool");
    let mut pool_inputs = vec![Some(scores)];
    pool_inputs.extend(
        graph
            .inputs_of(pool)
            .into_iter()
            .skip(1)
            .map(|v| v.map(Operand::Old)),
    );
    let mut logits = patch.multi_op(pool_op, &pool_inputs, 1);
    let pooled_rank = graph.value_type(pooled).and_then(|t| t.rank());
    if pooled_rank.is_none_or(|r| r > 2) {
        logits = patch.op(Op::new("", "Flatten").with_int("axis", 1), &[logits]);
    }
    patch.replace(
        Value {
            node: layer.node,
            slot: 0,
        },
        logits,
    );
    Ok(Some(patch))
}

/// The global pool whose output, alone and but for its shape, is the layer's input.
fn pool_before(graph: &Graph, mut value: Value) -> Option<NodeId> {
    loop {
        let (node, op) = graph.producer(value)?;
        if Pool::is_global_average(graph, node) {
            return Some(node);
        }
        let moves = op.domain().is_empty() && SHAPE_OPS.contains(&op.op_type());
        if !moves || graph.uses(value).len() != 1 {
            return None;
        }
        value = graph.input(node, 0)?;
    }
}

/// The weights as [classes, channels], and the number of classes; `None` for layers of another form.
fn head_weight(graph: &Graph, layer: &Layer) -> Result<Option<(Floats, u64)>, WeightError> {
    let stored = weights::floats(graph, layer.w)?;
    let &[rows, columns] = &stored.dims[..] else {
        return Ok(None);
    };
    let (transposed, alpha) = match &layer.form {
        Form::Gemm(gemm) if !gemm.trans_a => (!gemm.trans_b, f64::from(gemm.alpha)),
        Form::RightMatMul => (true, 1.0),
        Form::Gemm(_) | Form::LeftMatMul | Form::Conv(_) => return Ok(None),
    };
    let at = |row: u64, column: u64| stored.elements[(row * columns + column) as usize] * alpha;
    let (classes, channels) = if transposed {
        (columns, rows)
    } else {
        (rows, columns)
    };
    let elements = (0..classes)
        .flat_map(|k| (0..channels).map(move |c| (k, c)))
        .map(|(k, c)| if transposed { at(c, k) } else { at(k, c) })
        .collect();
    Ok(Some((Floats { elements, ..stored }, classes)))
}

/// The `Gemm`'s own bias as [classes]; a bias that an `Add` brings stays where it is.
fn head_bias(graph: &Graph, layer: &Layer, classes: u64) -> Result<Option<Tensor>, WeightError> {
    let Form::Gemm(gemm) = &layer.form else {
        return Ok(None);
    };
    let Some(c) = gemm.c else { return Ok(None) };
    let bias = weights::floats(graph, c)?;
    let beta = f64::from(gemm.beta);
    let elements: Vec<f64> = match bias.elements.len() as u64 {
        1 => vec![bias.elements[0] * beta; classes as usize],
        n if n == classes && bias.dims.last() == Some(&classes) => {
            bias.elements.iter().map(|b| b * beta).collect()
        }
        _ => return Err(Reason::BiasShape.into()),
    };
    Ok(Some(bias.shaped(&[classes], &elements)))
}
