//! Types, shapes and constants of tract's untyped graph.
//!
//! The same fixed point that tract's own analyser computes, with two differences: a node that
//! cannot be analysed leaves its outputs open and is noted, and nothing is evaluated before its
//! size is known to be small. (A file of a hundred bytes can ask for a constant of a terabyte.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tract_onnx::prelude::tract_data::TooEarly;
use tract_onnx::prelude::{DatumType, InferenceFact, InferenceModel, TDim, Tensor, TractResult};
use tract_onnx::tract_hir::internal::{
    Factoid, InferenceOp, IntoArcTensor, IntoTValue, OutletId, TVec, bail,
};
use tract_onnx::tract_hir::ops::konst::Const;
use tract_onnx::tract_hir::ops::source::Source;
use tract_onnx::tract_hir::ops::unimpl::UnimplementedOp;

use super::fault::{Fault, guarded};
use super::tensor::sizes;
use super::{attention_shape, conv_transpose};

/// Operators whose output can be far larger than their inputs.
const GROWING: &[&str] = &[
    "ConstantOfShape",
    "MultiBroadcastTo",
    "Range",
    "Tile",
    "Pad",
    "Resize",
    "OneHot",
    "EyeLike",
];

/// Comparisons that tract decides by how sizes are written.
const COMPARING: &[&str] = &["Eq", "NE"];

/// Operators over images. tract reads beyond the shape of one without a batch axis and channels.
const OVER_CHANNELS: &[&str] = &[
    "BatchNorm",
    "ConvHir",
    "ConvTranspose",
    "MaxPool",
    "SumPool",
];

/// Refines the facts of a graph until nothing changes; returns errors, by node.
///
/// What does not depend on inputs is evaluated where neither operands nor results are larger than
/// `largest` bytes.
pub(crate) fn infer(model: &mut InferenceModel, largest: u64) -> BTreeMap<usize, Fault> {
    let mut errors = BTreeMap::new();
    let mut queue: BTreeSet<usize> = (0..model.nodes().len()).collect();
    let observers = observers(model);
    while let Some(id) = queue.pop_first() {
        let node = model.node(id);
        if node.op_is::<Const>() || node.op_is::<Source>() || node.op_is::<UnimplementedOp>() {
            continue;
        }
        let name = node.name.clone();
        let refined = guarded(|| describe(&name), || refine(model, id, largest));
        let changed = match refined.and_then(|facts| apply(model, &name, facts)) {
            Ok(changed) => {
                errors.remove(&id);
                changed
            }
            Err(error) => {
                errors.insert(id, error);
                continue;
            }
        };
        for outlet in changed {
            let successors = &model.node(outlet.node).outputs[outlet.slot].successors;
            queue.extend(
                successors
                    .iter()
                    .map(|inlet| inlet.node)
                    .filter(|node| *node != id),
            );
            queue.extend(observers.get(&outlet).into_iter().flatten());
            if outlet.node != id {
                queue.insert(outlet.node);
            }
        }
    }
    errors
}

/// The nodes that look at facts of values that are not their operands.
fn observers(model: &InferenceModel) -> BTreeMap<OutletId, Vec<usize>> {
    let mut observers: BTreeMap<OutletId, Vec<usize>> = BTreeMap::new();
    for node in model.nodes() {
        for outlet in node.op.observe_outlets(model, node).unwrap_or_default() {
            observers.entry(outlet).or_default().push(node.id);
        }
    }
    observers
}

type Refined = Vec<(OutletId, InferenceFact)>;

/// What a node's rules and, where its operands are constant, its evaluation say.
fn refine(model: &mut InferenceModel, id: usize, largest: u64) -> TractResult<Refined> {
    let node = model.node(id);
    let mut outlets = node.inputs.clone();
    let arity = outlets.len();
    outlets.extend((0..node.outputs.len()).map(|slot| OutletId::new(id, slot)));
    let outputs_end = outlets.len();
    outlets.extend(node.op.observe_outlets(model, node)?);
    let facts = outlets.iter().map(|o| model.outlet_fact(*o).cloned());
    let facts = facts.collect::<TractResult<TVec<InferenceFact>>>()?;
    let (inputs, rest) = facts.split_at(arity);
    let (outputs, observed) = rest.split_at(outputs_end - arity);
    if OVER_CHANNELS.contains(&node.op.name().as_ref()) {
        let images = inputs.iter().take(1).chain(outputs);
        let mut ranks = images.filter_map(|fact| fact.shape.rank().concretize());
        if let Some(rank) = ranks.find(|&rank| rank < 2) {
            bail!("images should have a batch axis and channels, but have {rank} axes");
        }
    }

    let op = &mut model.node_mut(id).op;
    let (inputs, mut outputs, observed) = op.infer_facts(
        inputs.iter().collect(),
        outputs.iter().collect(),
        observed.iter().collect(),
    )?;
    attention_shape::refine(&op.name(), &inputs, &mut outputs);
    conv_transpose::refine(op.as_mut(), &inputs, &mut outputs);
    if outputs.iter().any(|fact| !fact.value.is_concrete())
        && let Some(values) = evaluate(op.as_ref(), &inputs, &outputs, largest)?
    {
        outputs = values;
    }
    Ok(outlets
        .into_iter()
        .zip(inputs.into_iter().chain(outputs).chain(observed))
        .collect())
}

fn evaluate(
    op: &dyn InferenceOp,
    inputs: &[InferenceFact],
    outputs: &[InferenceFact],
    largest: u64,
) -> TractResult<Option<TVec<InferenceFact>>> {
    if inputs.is_empty() {
        return Ok(None);
    }
    let mut operands = TVec::new();
    let mut operand_bytes = 0;
    for (slot, fact) in inputs.iter().enumerate() {
        let Some(value) = operand(op, slot, fact) else {
            return Ok(None);
        };
        operand_bytes += (value.len() * value.datum_type().size_of()) as u64;
        operands.push(value);
    }
    if COMPARING.contains(&op.name().as_ref()) && !decided(&operands) {
        return Ok(None);
    }
    let operands = operands.into_iter().map(IntoTValue::into_tvalue).collect();
    let result_bytes = outputs
        .iter()
        .map(byte_len)
        .try_fold(0u64, |sum, n| sum.checked_add(n?));
    let small = match result_bytes {
        Some(bytes) => bytes <= largest,
        None => !GROWING.contains(&op.name().as_ref()),
    };
    if !small || operand_bytes > largest {
        return Ok(None);
    }
    match op.eval_out_of_plan(operands) {
        Ok(values) => {
            let facts = values.map(|values| {
                let facts = values
                    .into_iter()
                    .map(|v| InferenceFact::try_from(v.into_arc_tensor()));
                facts.collect()
            });
            facts.transpose()
        }
        // The value depends on a symbolic size.
        Err(error) if error.root_cause().is::<TooEarly>() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether every size on one side of a comparison is known to equal or to differ from those on the other.
///
/// tract takes sizes that are written differently, such as `n` and 1, for different ones.
fn decided(operands: &[Arc<Tensor>]) -> bool {
    if operands.iter().all(|t| t.datum_type() != DatumType::TDim) {
        return true;
    }
    let dims = |side: usize| -> Option<Vec<TDim>> {
        let cast = operands.get(side)?.cast_to::<TDim>().ok()?;
        sizes(&cast).map(<[TDim]>::to_vec)
    };
    let (Some(left), Some(right)) = (dims(0), dims(1)) else {
        return false;
    };
    // A size is not negative, which exporters ask when they compare with -1.
    let apart = |a: &TDim, b: &TDim| {
        matches!(a, TDim::Sym(_)) && b.as_i64().is_some_and(|b| b < 0)
            || (a.clone() - b.clone()).prove_strict_positive()
    };
    let settled = |a: &TDim, b: &TDim| a == b || apart(a, b) || apart(b, a);
    left.iter().all(|a| right.iter().all(|b| settled(a, b)))
}

/// An operand's value, or a stand-in where only its type matters.
fn operand(op: &dyn InferenceOp, slot: usize, fact: &InferenceFact) -> Option<Arc<Tensor>> {
    let value = fact.value.concretize().filter(|value| value.is_plain_ram());
    if value.is_none() && slot == 1 && op.name() == "CastLike" {
        let datum_type = fact.datum_type.concretize()?;
        return Some(Tensor::zero_scalar_dt(datum_type).ok()?.into_arc_tensor());
    }
    value
}

/// Bytes that a value takes; `None` if that is not known or does not fit.
pub(crate) fn byte_len(fact: &InferenceFact) -> Option<u64> {
    let dims = fact.shape.concretize()?;
    let element = fact.datum_type.concretize()?.size_of() as u64;
    dims.iter().try_fold(element, |bytes, dim| {
        bytes.checked_mul(u64::try_from(dim.as_i64()?).ok()?)
    })
}

/// Narrows facts down; returns the values of which more is known now.
fn apply(model: &mut InferenceModel, node: &str, refined: Refined) -> Result<Vec<OutletId>, Fault> {
    let mut changed = Vec::new();
    for (outlet, fact) in refined {
        guarded(
            || describe(node),
            || {
                let known = model.outlet_fact_mut(outlet)?;
                if known.unify_with(&fact)? {
                    changed.push(outlet);
                }
                Ok(())
            },
        )?;
    }
    Ok(changed)
}

/// A node for messages.
fn describe(name: &str) -> String {
    format!("node `{}`", label(name))
}

/// A node's name without the number that makes it unique.
pub(crate) fn label(name: &str) -> &str {
    name.rsplit_once('#').map_or(name, |(name, _)| name)
}
