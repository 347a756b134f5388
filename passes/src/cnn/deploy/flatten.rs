//! Pointwise layers between planar values work on rows of positions.
//!
//! A 1x1 convolution is a matrix product whichever way its input lies, but runtimes rearrange the input of
//! a two-dimensional convolution into blocks of channels, and its output back for operators that need
//! planes. A one-dimensional convolution takes the planes as they are:
//!
//! ```text
//! y = Relu (Conv <1x1> (x, w))
//! y = Reshape (Relu (Conv <1> (Reshape (x, [0, C, -1]), w)), [0, K, H, W])
//! ```
//!
//! That pays on large maps, where a layer reads values that are planar anyway (their squares are summed in
//! rows), or where its output is made so (an absolute value is taken).

use bcosc_ir::views::{Conv, Window};
use bcosc_ir::{Dim, Graph, Model, NodeId, Op, Patch, Tensor, Use, Value};

use super::everywhere;
use crate::weights::{self, WeightError};
use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

/// The pass.
pub struct FlattenPointwise;

/// From this many positions on, rearranging costs more than reshaping.
const LARGE_MAP: u64 = 28 * 28;

impl Pass for FlattenPointwise {
    fn name(&self) -> &'static str {
        "flatten-pointwise"
    }

    fn summary(&self) -> &'static str {
        "with --deploy: run 1x1 convolutions on rows of positions where their neighbours are planar"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn requires(&self) -> &'static [&'static str] {
        &["lower-deploy"]
    }

    fn ensures(&self) -> &'static str {
        "1x1 convolutions of large planar maps are one-dimensional"
    }

    fn run(&self, model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
        everywhere(model, cx, "one-dimensional", |graph, node| {
            let conv = planar(graph, node)?;
            Some(flatten(graph, &conv))
        })
    }
}

/// A two-dimensional pointwise convolution beside planar values.
fn planar(graph: &Graph, node: NodeId) -> Option<Conv> {
    let conv = Conv::of(graph, node)?;
    let fits = conv.window.rank() == 2 && conv.window.is_pointwise() && conv.group == 1;
    let summed = squares_of(graph, conv.x)
        .is_some_and(|squares| readers(graph, squares).any(|(_, op)| op.is("Reshape")));
    let signed = readers(graph, conv.y()).any(|(_, op)| op.is("Abs"));
    (fits && conv.out_channels() > 1 && (summed || signed)).then_some(conv)
}

fn flatten(graph: &Graph, conv: &Conv) -> Result<Patch, WeightError> {
    let unknown = || Reason::UnknownShape(graph.value_name(conv.x).to_owned());
    let shape = graph.value_type(conv.x).and_then(|t| t.shape);
    let sizes = shape.as_deref().and_then(|s| s.get(2..));
    let sizes: Option<Vec<u64>> = sizes.and_then(|s| s.iter().map(Dim::known).collect());
    let [height, width] = sizes.ok_or_else(unknown)?[..] else {
        return Err(unknown().into());
    };
    if height.saturating_mul(width) < LARGE_MAP {
        return Err(Reason::SmallMap.into());
    }
    let w = weights::floats(graph, conv.w)?;
    let (channels, units) = (conv.in_channels(), conv.out_channels());
    let mut patch = Patch::at(conv.node);
    let rows = patch.parameter("rows", Tensor::i64_vec(&[0, channels as i64, -1]));
    let flat = patch.op(
        Op::new("", "Reshape").named("flat"),
        &[conv.x.into(), rows],
    );
    let weight = patch.parameter("weight", w.shaped(&[units, channels, 1], &w.elements));
    let mut inputs = vec![flat, weight];
    inputs.extend(conv.bias.map(bcosc_ir::Operand::from));
    let op = Window::pointwise(1).write(Op::new("", "Conv").named("rows"));
    let mut y = patch.op(op, &inputs);
    let mut old = conv.y();
    // A rectifier stays beside the convolution, where it can be fused.
    if let Some((relu, _)) = graph.sole_consumer(old)
        && graph.op(relu).is_some_and(|op| op.is("Relu"))
    {
        y = patch.op(Op::new("", "Relu"), &[y]);
        old = Value {
            node: relu,
            slot: 0,
        };
    }
    let grid = [0, units as i64, height as i64, width as i64];
    let grid = patch.parameter("grid", Tensor::i64_vec(&grid));
    let y = patch.op(Op::new("", "Reshape").named("grid"), &[y, grid]);
    patch.replace(old, y);
    Ok(patch)
}

/// The product of a value with itself.
fn squares_of(graph: &Graph, x: Value) -> Option<Value> {
    let mut products = readers(graph, x).filter(|(_, op)| op.is("Mul"));
    let both = |node| graph.input(node, 0) == Some(x) && graph.input(node, 1) == Some(x);
    let (node, _) = products.find(|&(node, _)| both(node))?;
    Some(Value { node, slot: 0 })
}

fn readers(graph: &Graph, x: Value) -> impl Iterator<Item = (NodeId, &Op)> {
    graph.uses(x).into_iter().filter_map(|usage| match usage {
        Use::Input { node, .. } => Some((node, graph.op(node)?)),
        Use::Capture { .. } | Use::Output(_) => None,
    })
}
