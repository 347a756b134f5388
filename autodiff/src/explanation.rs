//! The explanation graph: logits, the class, W(x) and contributions, in one graph.
//!
//! ```text
//! class         = target, or where that is negative ArgMax (logits)    ArgMax (|logits|) of an embedding
//! seed          = 1 at class, else 0
//! weights       = W(x)^T seed        see [`crate::detached`]
//! contributions = sum over channels of weights * x
//! ```
//!
//! x is the value with the doubled channels: `[x, -x]` or `[x, 1-x]` if the graph computes it from its input, otherwise
//! the input; after the `Transpose` that puts channels first, if there is one. Constants that add to a logit, its bias
//! among them, and other inputs are not part of W(x)x.

use bcosc_ir::ops::Trait;
use bcosc_ir::views::{AxesOp, reduce_to, unsqueeze};
use bcosc_ir::{DataType, Dim, Graph, Model, NodeId, Op, Operand, Patch, Tensor, TensorType};
use bcosc_ir::{Use, Value};

use bcosc_passes::analysis::channel_axis::{channel_axis, channels_first};
use bcosc_passes::analysis::image::{image_input, is_image};
use bcosc_passes::analysis::linearity::Linearity;
use bcosc_passes::analysis::scalars::scalar;
use bcosc_passes::canonical::{FOLD_CONSTANTS, REMOVE_DEAD, SIMPLIFY, cse};
use bcosc_passes::{Context, PassError, Reason, recipe};

use crate::detached::cotangent;
use crate::scores::scores;
use crate::sizes;

/// The names of the outputs of an explanation graph, in order.
pub const OUTPUTS: [&str; 4] = ["logits", "class", "weights", "contributions"];
/// The input with the class of each image; negative for the predicted class.
pub const TARGET: &str = "target";

/// What is explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The logit of a class: by default the largest.
    Logits,
    /// An entry of an embedding: by default the one of the largest magnitude.
    Embedding,
}

/// Converts a model whose first floating-point output is one vector per image, in any shape, to its explanation
/// graph.
///
/// # Errors
/// If the output is not dynamic linear, or an operator on the way has no backward rule.
pub fn explanation(model: &mut Model, kind: Kind, cx: &Context<'_>) -> Result<(), PassError> {
    sizes::widen(model)?;
    for pass in recipe::CANONICAL {
        (pass.run)(model, cx)?;
    }
    cx.infer(model)?;
    let image = image(&model.graph)?;
    let applied = Applied::of(&model.graph, image)?;
    let x = applied.x;
    let (logits, classes) = scores(model)?;
    let verdict = Linearity::of(&model.graph).verdict(logits);
    if !verdict.dynamic_linear {
        return Err(PassError::Model(Reason::NotLinear {
            output: verdict.output,
            broken_by: verdict.broken_by.join(", "),
        }));
    }
    let forward = model.graph.nodes().into_iter().collect();
    let (class, seed) = seed(model, kind, image, logits, classes)?;
    let weights = cotangent(model, logits, seed, x)?;
    let contributions = contributions(model, &applied, weights)?;
    declare(&mut model.graph, &applied, class, weights, contributions);
    let values = [logits, class, weights, contributions];
    let named = OUTPUTS.iter().zip(values);
    let outputs: Vec<_> = named.map(|(name, v)| (v, (*name).to_owned())).collect();
    model.graph.set_outputs(&outputs);
    model.graph.remove_dead();
    for pass in [&FOLD_CONSTANTS, &SIMPLIFY, &REMOVE_DEAD] {
        (pass.run)(model, cx)?;
    }
    cse::share(model, &forward, x.node)
}

/// States the types of the results, which follow from that of x.
fn declare(
    graph: &mut Graph,
    applied: &Applied,
    class: Value,
    weights: Value,
    contributions: Value,
) {
    let Some(TensorType {
        dtype,
        shape: Some(dims),
    }) = graph.value_type(applied.x)
    else {
        return;
    };
    let batch = dims.first().cloned();
    let mut map = dims.clone();
    if applied.channels < map.len() {
        map.remove(applied.channels);
    }
    let mut state = |value, dtype, dims: Vec<Dim>| {
        let shape = Some(dims);
        graph.set_value_type(value, TensorType { dtype, shape });
    };
    state(class, DataType::Int64, batch.into_iter().collect());
    state(contributions, dtype, map);
    state(weights, dtype, dims);
}

/// The input that is an image: the only one that is floating point and of rank 3 or more.
pub(crate) fn image(graph: &Graph) -> Result<Value, PassError> {
    let found = image_input(graph).filter(|image| is_image(graph, *image));
    found.ok_or_else(|| {
        let typed = |value: &Value| Some((*value, graph.value_type(*value)?));
        let inputs = graph.inputs();
        let bytes = inputs.iter().filter_map(typed).find(|(_, found)| {
            found.dtype == DataType::Uint8 && found.rank().is_some_and(|rank| rank >= 3)
        });
        PassError::Model(match bytes {
            Some((input, _)) => Reason::ByteImage(graph.value_name(input).to_owned()),
            None => Reason::NoImageInput {
                inputs: inputs.len(),
            },
        })
    })
}

/// What W(x) applies to, and its channel axis.
struct Applied {
    x: Value,
    channels: usize,
}

impl Applied {
    fn of(graph: &Graph, image: Value) -> Result<Self, PassError> {
        // The layers see images with channels last after a Transpose.
        let (x, channels) = match channels_first(graph, image) {
            Some(first) => (first, Some(1)),
            None => (image, channel_axis(graph, image)),
        };
        let unknown = || {
            let input = graph.value_name(image).to_owned();
            PassError::Model(Reason::ChannelAxis(input))
        };
        let channels = channels.ok_or_else(unknown)?;
        let x = doubled(graph, x, channels).unwrap_or(x);
        Ok(Applied { x, channels })
    }
}

/// The doubled channels that the graph computes from its input, if they are the only use of the input.
fn doubled(graph: &Graph, image: Value, channels: usize) -> Option<Value> {
    let inverse_of_image = |value: Value| {
        let (node, op) = graph.producer(value)?;
        let operands = graph.inputs_of(node);
        let inverse = match operands[..] {
            [Some(of)] => op.is("Neg") && of == image,
            [Some(one), Some(of)] => op.is("Sub") && of == image && scalar(graph, one) == Some(1.0),
            _ => false,
        };
        inverse.then_some(node)
    };
    let concat = |node: NodeId| {
        let op = graph.op(node).filter(|op| op.is("Concat"))?;
        let &[Some(a), Some(b)] = &graph.inputs_of(node)[..] else {
            return None;
        };
        let inverse =
            inverse_of_image(b).filter(|_| a == image && op.get("axis") == Some(channels))?;
        let goes_through = |used: &Use| match used {
            Use::Input { node: user, .. } => {
                let sizes = graph.op(*user).is_some_and(|op| op.is("Shape"));
                sizes || *user == node || *user == inverse
            }
            _ => false,
        };
        let alone = graph.uses(image).iter().all(goes_through) && graph.uses(b).len() == 1;
        alone.then(|| graph.output(node, 0))
    };
    graph.ops().into_iter().find_map(concat)
}

/// Whether a graph is one that [`explanation`] makes.
pub fn is_explanation(graph: &Graph) -> bool {
    let outputs = graph.outputs().iter();
    outputs
        .map(|output| output.info.name.as_deref().unwrap_or_default())
        .eq(OUTPUTS)
        && graph.value_named(TARGET).is_some()
}

/// The number that the last operator adds to every logit, where it does that.
pub fn logit_bias(graph: &Graph) -> Option<f64> {
    let (op, value) = last_constant(graph)?;
    let bias = uniform(graph, value)?;
    Some(if op.is("Sub") { -bias } else { bias })
}

/// The constant that holds it.
pub(crate) fn logit_bias_value(graph: &Graph) -> Option<Value> {
    let (_, value) = last_constant(graph)?;
    Some(value)
}

/// The last operator where it adds or subtracts one number, and the constant with that number.
fn last_constant(graph: &Graph) -> Option<(&Op, Value)> {
    let mut output = graph.outputs().first()?.value;
    let (node, op) = loop {
        let (node, op) = graph.producer(output)?;
        if !op.has_any(&[Trait::View, Trait::Copy]) {
            break (node, op);
        }
        output = graph.input(node, 0)?;
    };
    let &[Some(a), Some(b)] = &graph.inputs_of(node)[..] else {
        return None;
    };
    let candidates: &[Value] = match op.op_type() {
        "Add" => &[b, a],
        "Sub" => &[b],
        _ => &[],
    };
    let mut constants = candidates.iter().copied();
    let found = constants.find(|value| uniform(graph, *value).is_some())?;
    Some((op, found))
}

/// What all elements of a constant are.
fn uniform(graph: &Graph, value: Value) -> Option<f64> {
    let elements = graph.constant(value)?.to_f64s().ok()?;
    let first = *elements.first()?;
    elements.iter().all(|x| *x == first).then_some(first)
}

/// The class of each image, and one at its place in the output.
fn seed(
    model: &mut Model,
    kind: Kind,
    image: Value,
    logits: Value,
    classes: u64,
) -> Result<(Value, Value), PassError> {
    let opset = model.opset("").unwrap_or(0);
    let found = model.graph.value_type(image).and_then(|t| t.shape);
    let batch = found.and_then(|dims| dims.first().cloned());
    let shape = Some(vec![batch.unwrap_or(Dim::Unknown)]);
    let dtype = DataType::Int64;
    let target = model.graph.add_input(TARGET, TensorType { dtype, shape });
    let floating = model.graph.value_type(logits).map(|t| t.dtype);
    let floating = floating.unwrap_or(DataType::Float);

    let mut patch = Patch::at(logits.node);
    let sizes = match kind {
        Kind::Logits => Operand::Old(logits),
        Kind::Embedding => patch.op(Op::new("", "Abs"), &[logits.into()]),
    };
    let largest = Op::new("", "ArgMax")
        .named("predicted")
        .with_int("axis", 1)
        .with_int("keepdims", 0);
    let predicted = patch.op(largest, &[sizes]);
    let zero = patch.parameter("zero", Tensor::i64s(&[], vec![0]));
    let open = patch.op(Op::new("", "Less"), &[target.into(), zero]);
    let class = patch.op(
        Op::new("", "Where").named("class"),
        &[open, predicted, target.into()],
    );
    let column = unsqueeze(&mut patch, opset, class, &[1]);
    let numbers = Tensor::i64s(&[1, classes], (0..classes as i64).collect());
    let numbers = patch.parameter("classes", numbers);
    let chosen = patch.op(Op::new("", "Equal"), &[column, numbers]);
    let cast = Op::new("", "Cast").named("seed");
    let seed = patch.op(cast.with_int("to", floating.to_i32().into()), &[chosen]);
    patch.keep(class);
    patch.keep(seed);
    let added = model.graph.apply(patch)?;
    let placed = class.applied(&added).zip(seed.applied(&added));
    placed.ok_or(PassError::Model(Reason::Malformed))
}

/// The sum over channels of weights times what they apply to.
fn contributions(model: &mut Model, applied: &Applied, weights: Value) -> Result<Value, PassError> {
    let opset = model.opset("").unwrap_or(0);
    let mut patch = Patch::at(weights.node);
    let parts = patch.op(
        Op::new("", "Mul").named("parts"),
        &[weights.into(), applied.x.into()],
    );
    let sum = reduce_to(
        &mut patch,
        opset,
        AxesOp::ReduceSum,
        parts,
        &[applied.channels as i64],
    );
    patch.keep(sum);
    let added = model.graph.apply(patch)?;
    sum.applied(&added)
        .ok_or(PassError::Model(Reason::Malformed))
}
