//! Branches that are decided before anything runs.
//!
//! tract keeps an `If` as it is and wants both branches to compute the same type. Exporters write
//! conditions on sizes, which are known once the inputs' shapes are, and branches that differ in
//! rank.

use std::collections::{BTreeMap, BTreeSet};

use tract_onnx::ops::logic::If;
use tract_onnx::prelude::{InferenceFact, InferenceModel, TractResult};
use tract_onnx::tract_hir::internal::{Factoid, InletId, OutletId, TVec, bail};
use tract_onnx::tract_hir::ops::konst::Const;
use tract_onnx::tract_hir::ops::source::Source;
use tract_onnx::tract_hir::ops::unimpl::UnimplementedOp;

/// Replaces every `If` whose condition is known by the branch that is taken. Says whether there was one.
pub(crate) fn take_known_branches(model: &mut InferenceModel) -> TractResult<bool> {
    let mut found = false;
    for id in 0..model.nodes().len() {
        if let Some((body, captured)) = decided(model, id)? {
            inline(model, id, &body, &captured)?;
            found = true;
        }
    }
    Ok(found)
}

/// The branch that a node takes, and the names of its operands after the condition.
fn decided(
    model: &InferenceModel,
    id: usize,
) -> TractResult<Option<(InferenceModel, Vec<String>)>> {
    let node = model.node(id);
    let (Some(op), Some(condition)) = (node.op_as::<If>(), node.inputs.first()) else {
        return Ok(None);
    };
    let Some(condition) = model.outlet_fact(*condition)?.value.concretize() else {
        return Ok(None);
    };
    let taken = if condition.cast_to_scalar::<bool>()? {
        &op.then_body
    } else {
        &op.else_body
    };
    // tract gives an `If` the values that either branch captures, in the order of their names.
    let names = [&op.then_body, &op.else_body].into_iter().flat_map(sources);
    let captured: BTreeSet<String> = names.map(|(_, name)| name.to_owned()).collect();
    Ok(Some((taken.clone(), captured.into_iter().collect())))
}

fn sources(body: &InferenceModel) -> impl Iterator<Item = (OutletId, &str)> {
    body.inputs
        .iter()
        .map(|outlet| (*outlet, body.node(outlet.node).name.as_str()))
}

fn inline(
    model: &mut InferenceModel,
    id: usize,
    body: &InferenceModel,
    captured: &[String],
) -> TractResult<()> {
    let mut mapping: BTreeMap<OutletId, OutletId> = BTreeMap::new();
    for (outlet, name) in sources(body) {
        let operand = captured.iter().position(|c| c == name);
        let Some(outer) = operand.and_then(|k| model.node(id).inputs.get(k + 1)) else {
            bail!("a branch reads `{name}`, which does not exist");
        };
        mapping.insert(outlet, *outer);
    }
    for inner in body.eval_order()? {
        let node = body.node(inner);
        if node.op_is::<Source>() {
            continue;
        }
        // Only a constant brings its fact along; the others are inferred in their new place.
        let fact = |fact: &InferenceFact| {
            if node.op_is::<Const>() {
                fact.clone()
            } else {
                InferenceFact::default()
            }
        };
        let facts: TVec<InferenceFact> = node.outputs.iter().map(|o| fact(&o.fact)).collect();
        let name = format!("{}#{}", node.name, model.nodes().len());
        let copy = model.add_node(name, node.op.clone(), facts)?;
        for (slot, operand) in node.inputs.iter().enumerate() {
            model.add_edge(mapping[operand], InletId::new(copy, slot))?;
        }
        for slot in 0..node.outputs.len() {
            mapping.insert(OutletId::new(inner, slot), OutletId::new(copy, slot));
        }
    }
    for (slot, result) in body.outputs.iter().enumerate() {
        let (old, new) = (OutletId::new(id, slot), mapping[result]);
        for inlet in model.node(id).outputs[slot].successors.clone() {
            model.add_edge(new, inlet)?;
        }
        model
            .outputs
            .iter_mut()
            .filter(|outlet| **outlet == old)
            .for_each(|outlet| *outlet = new);
    }
    // Nothing reads the node any more; its other branch need not make sense.
    let outputs = body.outputs.len();
    model.node_mut(id).op = UnimplementedOp::new(outputs, "If", "decided").into();
    Ok(())
}
