//! Defects of a model that no pass can repair: NaN weights, and operators in training mode.
//!
//! A comparison of outputs may not show them: in some engines, Relu turns NaN into 0.

use std::collections::BTreeSet;

use bcosc_ir::ops::Trait;
use bcosc_ir::{DataType, Dim, Graph, Model, NodeId, Op, Tensor, Use, Value};
use rayon::prelude::*;

use crate::Error;

/// Bytes that one thread checks at a time; a multiple of every element's size.
const CHUNK: usize = 1 << 20;

/// Whether constant operands of an operator are weights.
fn has_weights(op: &Op) -> bool {
    op.has_any(&[Trait::Weights, Trait::Norm]) || op.is("PRelu")
}

/// Whether an operator only reshapes or casts a weight.
fn passes_on(op: &Op) -> bool {
    op.has_any(&[Trait::View, Trait::Copy, Trait::Cast]) || op.is("Transpose")
}

/// Rejects a model with an empty input, with operators in training mode, or with negative variances. `label` names the
/// model in errors.
///
/// # Errors
/// [`Error::Input`], [`Error::Training`] and [`Error::Weights`].
pub(crate) fn check(model: &Model, label: &str) -> Result<(), Error> {
    let graph = &model.graph;
    if let Some(problem) = graph
        .inputs()
        .into_iter()
        .find_map(|input| empty(graph, input))
    {
        return Err(Error::Input {
            model: label.to_owned(),
            problem,
        });
    }
    if let Some((node, op)) = training(graph) {
        return Err(Error::Training {
            model: label.to_owned(),
            node: graph.label(node),
            op,
        });
    }
    match negative_variance(graph) {
        Some((weight, node)) => Err(refused(
            model,
            label,
            weight,
            format!(
                "has negative elements, but is the variance of BatchNormalization node \"{}\"",
                graph.label(node)
            ),
        )),
        None => Ok(()),
    }
}

/// Rejects a model with NaN or infinite weights. Reads all weights.
///
/// # Errors
/// [`Error::Weights`].
pub(crate) fn check_weights(model: &Model, label: &str) -> Result<(), Error> {
    let (weight, problem) = match broken(&model.graph) {
        None => return Ok(()),
        Some((weight, Broken::NotANumber)) => (weight, "has NaN elements"),
        Some((weight, Broken::Infinite)) => (weight, "has infinite elements"),
    };
    Err(refused(model, label, weight, problem.to_owned()))
}

fn refused(model: &Model, label: &str, weight: Value, problem: String) -> Error {
    Error::Weights {
        model: label.to_owned(),
        weight: model.graph.value_name(weight).to_owned(),
        problem,
    }
}

/// The problem with an input that has a size of 0, which some exporters write for dynamic sizes.
fn empty(graph: &Graph, input: Value) -> Option<String> {
    let declared = graph.value_type(input)?;
    let dims = declared.shape.as_ref()?;
    if dims.iter().all(|dim| dim.known() != Some(0)) {
        return None;
    }
    let name = graph.value_name(input);
    let open = dims.iter().zip(0..).map(|(dim, axis)| match (dim, axis) {
        (Dim::Known(0) | Dim::Unknown, 0) => "N".to_owned(),
        (Dim::Known(0) | Dim::Unknown, axis) => format!("d{axis}"),
        (known, _) => known.to_string(),
    });
    let open: Vec<String> = open.collect();
    Some(format!(
        "input `{name}` is declared as {declared}, but a size of 0 holds no images; make it dynamic with --input-shapes {name}:{}",
        open.join(",")
    ))
}

/// The first operator in training mode that depends on the input. Norms of weights are constants.
fn training(graph: &Graph) -> Option<(NodeId, &'static str)> {
    let mut of_input: BTreeSet<Value> = graph.inputs().into_iter().collect();
    for node in graph.ops() {
        let operands = graph.inputs_of(node).into_iter().flatten();
        let captured = graph.captured_by(node);
        if !operands
            .chain(captured)
            .any(|value| of_input.contains(&value))
        {
            continue;
        }
        let results = 0..graph.output_count(node);
        of_input.extend(results.clone().map(|slot| graph.output(node, slot)));
        let Some(op) = graph.op(node) else { continue };
        if op.is("BatchNormalization") {
            let further = |slot: u32| graph.output(node, slot);
            let used = |slot| !graph.uses(further(slot)).is_empty();
            if op.get("training_mode") == Some(true) || results.skip(1).any(used) {
                return Some((node, "BatchNormalization"));
            }
        }
        if op.is("Dropout") && drops(graph, node) {
            return Some((node, "Dropout"));
        }
    }
    None
}

/// Whether a `Dropout` is in training mode.
fn drops(graph: &Graph, node: NodeId) -> bool {
    let constant = |slot| graph.constant(graph.input(node, slot)?);
    let mode = constant(2).and_then(|mode| mode.bytes().ok());
    let ratio = constant(1).and_then(|ratio| ratio.to_f64s().ok());
    let on = mode.is_some_and(|mode| mode.iter().any(|byte| *byte != 0));
    on && ratio.is_none_or(|ratio| ratio.iter().any(|ratio| *ratio != 0.0))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Broken {
    Infinite,
    NotANumber,
}

/// The first constant with NaN or weight with infinities, in the order of the file. Other constants may be infinite:
/// masks and bounds.
fn broken(graph: &Graph) -> Option<(Value, Broken)> {
    let mut constants: Vec<(Value, Tensor)> = Vec::new();
    let parameters = graph.parameters().into_iter().map(|(id, _)| id);
    for id in parameters.chain(graph.ops()) {
        let value = graph.output(id, 0);
        constants.extend(graph.constant(value).map(|tensor| (value, tensor)));
    }
    let found: Vec<Option<Broken>> = constants
        .par_iter()
        .map(|(_, tensor)| worst(tensor))
        .collect();
    let mut faults = constants.iter().zip(found);
    faults.find_map(|((value, _), found)| {
        let fault = found?;
        let counts = fault == Broken::NotANumber || is_weight(graph, *value);
        counts.then_some((*value, fault))
    })
}

/// Whether a constant is a weight of a layer, directly or reshaped.
fn is_weight(graph: &Graph, value: Value) -> bool {
    let mut open = vec![value];
    let mut seen = BTreeSet::new();
    while let Some(value) = open.pop() {
        for used in graph.uses(value) {
            let Use::Input { node, slot } = used else {
                continue;
            };
            let Some(op) = graph.op(node).filter(|op| op.domain().is_empty()) else {
                continue;
            };
            if has_weights(op) {
                return true;
            }
            if slot == 0 && passes_on(op) && seen.insert(node) {
                open.push(graph.output(node, 0));
            }
        }
    }
    false
}

/// The worst defect of a tensor. Elements are not copied. Only floating-point types have NaN and infinities.
fn worst(tensor: &Tensor) -> Option<Broken> {
    let bytes = match tensor.dtype() {
        DataType::Float | DataType::Double | DataType::Float16 | DataType::Bfloat16 => {
            tensor.bytes().ok()?
        }
        _ => return None,
    };
    let look: fn(&[u8]) -> Option<Broken> = match tensor.dtype() {
        DataType::Float => singles,
        DataType::Double => doubles,
        DataType::Float16 => |chunk: &[u8]| halves(chunk, 0x7c00),
        _ => |chunk: &[u8]| halves(chunk, 0x7f80),
    };
    bytes.par_chunks(CHUNK).filter_map(look).max()
}

/// Compares the bits of numbers without the sign as integers: those of infinity are the exponent with all bits set, and
/// those of NaN are larger. Finite numbers take one comparison each, without a branch.
macro_rules! by_bits {
    ($bytes:expr, $int:ty, $infinity:expr) => {{
        let (words, _) = $bytes.as_chunks::<{ size_of::<$int>() }>();
        let magnitude = |word: &[u8; size_of::<$int>()]| <$int>::from_le_bytes(*word) & <$int>::MAX;
        let any =
            |found: bool, word: &[u8; size_of::<$int>()]| found | (magnitude(word) >= $infinity);
        if !words.iter().fold(false, any) {
            return None;
        }
        let nan = words.iter().any(|word| magnitude(word) > $infinity);
        Some(if nan {
            Broken::NotANumber
        } else {
            Broken::Infinite
        })
    }};
}

fn singles(bytes: &[u8]) -> Option<Broken> {
    by_bits!(bytes, i32, 0x7f80_0000)
}

fn doubles(bytes: &[u8]) -> Option<Broken> {
    by_bits!(bytes, i64, 0x7ff0_0000_0000_0000)
}

fn halves(bytes: &[u8], infinity: i16) -> Option<Broken> {
    by_bits!(bytes, i16, infinity)
}

/// The first batch norm that takes the square root of a negative number, and its variances.
fn negative_variance(graph: &Graph) -> Option<(Value, NodeId)> {
    graph.ops().into_iter().find_map(|node| {
        let op = graph.op(node).filter(|op| op.is("BatchNormalization"))?;
        let variances = graph.input(node, 4)?;
        let elements = graph.constant(variances)?.to_f64s().ok()?;
        let epsilon = f64::from(op.get::<f32>("epsilon")?);
        let negative = elements
            .iter()
            .any(|var| *var < 0.0 && var + epsilon <= 0.0);
        negative.then_some((variances, node))
    })
}

#[cfg(test)]
mod tests;
