//! Gives tract's untyped graph types.
//!
//! As tract's own translation, which looks at all nodes for each one it adds.

use std::collections::HashMap;

use tract_onnx::prelude::{InferenceModel, InferenceModelExt, TVec, TractResult, TypedModel};
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_hir::internal::{
    EvalContext, Factoid, InferenceNode, OutletId, SpecialOps, TypedFact, TypedModelPatch,
    format_err,
};

use super::splice::Splice;

type Outlets = HashMap<OutletId, OutletId>;

/// The typed graph of a graph whose types and shapes are known.
pub(crate) fn into_typed(mut source: InferenceModel) -> TractResult<TypedModel> {
    source.analyse(false)?;
    let source = source.incorporate()?;
    let _proofs = source.symbols.proof_cache_session();
    let mut target = TypedModel {
        symbols: source.symbols.clone(),
        properties: source.properties.clone(),
        ..TypedModel::default()
    };
    let mut splice = Splice::new(&target);
    let mut outlets = Outlets::new();
    let mut order = source.eval_order()?;
    let unread = source.inputs.iter().map(|input| input.node);
    let unread: Vec<usize> = unread.filter(|id| !order.contains(id)).collect();
    order.extend(unread);
    for id in order {
        let node = source.node(id);
        let typed = translate(&source, node, &mut target, &outlets, &mut splice);
        let typed = typed.map_err(|e| e.context(format!("translating {node}")))?;
        for (slot, outlet) in typed.into_iter().enumerate() {
            outlets.insert(OutletId::new(id, slot), outlet);
        }
    }
    let found = |old: &OutletId| {
        let new = outlets.get(old).copied();
        new.ok_or_else(|| format_err!("{old:?} was not translated"))
    };
    target.inputs = source
        .inputs
        .iter()
        .map(found)
        .collect::<TractResult<_>>()?;
    target.outputs = source
        .outputs
        .iter()
        .map(found)
        .collect::<TractResult<_>>()?;
    Ok(target)
}

fn translate(
    source: &InferenceModel,
    node: &InferenceNode,
    target: &mut TypedModel,
    outlets: &Outlets,
    splice: &mut Splice,
) -> TractResult<TVec<OutletId>> {
    if InferenceModel::is_source(&node.op) {
        return node.op.to_typed(source, node, target, outlets);
    }
    let mut patch = TypedModelPatch::default();
    patch.model.symbols = target.symbols.clone();
    let values = node
        .outputs
        .iter()
        .map(|output| output.fact.value.concretize());
    let values: Option<Vec<_>> = values.collect();
    let typed = match values {
        Some(values) if node.op.state(&EvalContext::out_of_plan())?.is_none() => {
            let mut constants = TVec::new();
            for (slot, value) in values.into_iter().enumerate() {
                let fact = TypedFact::try_from(value.clone())?;
                let constant = Const::new_with_opt_exotic_fact(value, fact.exotic_fact.clone())?;
                let name = format!("{}.{slot}", node.name);
                let id = patch
                    .model
                    .add_node(name, constant, [fact].into_iter().collect())?;
                constants.push(OutletId::from(id));
            }
            constants
        }
        _ => {
            let mut taps = Outlets::new();
            for input in &node.inputs {
                let outlet = outlets.get(input).copied();
                let outlet = outlet.ok_or_else(|| format_err!("{input:?} is not there yet"))?;
                if let std::collections::hash_map::Entry::Vacant(tap) = taps.entry(*input) {
                    let tap = *tap.insert(patch.tap_model(target, outlet)?);
                    let op = &target.node(outlet.node).op;
                    if op.is::<Const>() {
                        patch.model.nodes[tap.node].op = op.clone();
                    }
                }
            }
            node.op.to_typed(source, node, &mut patch.model, &taps)?
        }
    };
    let placed = splice.apply(patch, target)?;
    let found = |outlet: OutletId| {
        let placed = placed.get(&outlet).copied();
        placed.ok_or_else(|| format_err!("{outlet:?} was not placed"))
    };
    typed.into_iter().map(found).collect()
}
