//! Evaluates values that depend on parameters only, by running the part of the graph that computes
//! them.

use std::collections::{BTreeMap, BTreeSet};

use bcosc_ir::{Facts, Model, SurgeryError, Tensor, Tensors, Value};

use crate::{Context, Outcome, PassError, Reason};

/// Bytes of results per run, to limit memory.
const BATCH: u64 = 32 << 20;

/// Evaluates constant values. Those that cannot be evaluated are recorded as skipped.
pub(super) fn values(
    model: &Model,
    cx: &Context<'_>,
    facts: &Facts,
    wanted: &[Value],
    outcome: &mut Outcome,
) -> Result<BTreeMap<Value, Tensor>, PassError> {
    let mut found = BTreeMap::new();
    let wanted: Vec<Value> = wanted
        .iter()
        .copied()
        .filter(|v| model.graph.contains(v.node))
        .collect();
    if wanted.is_empty() {
        return Ok(found);
    }
    for batch in batches(model, &wanted) {
        let part = part(model, facts, &batch)?;
        let mut results = match cx.interpreter.run(&part, &Tensors::new()) {
            Ok(results) => results,
            Err(error) => {
                for value in batch {
                    let reason = Reason::NotEvaluated(error.to_string());
                    outcome.skipped(model.graph.label(value.node), reason);
                }
                continue;
            }
        };
        for value in batch {
            match results.remove(model.graph.value_name(value)) {
                Some(tensor) if has_type(model, value, &tensor) => {
                    found.insert(value, tensor);
                }
                _ => {
                    let reason = Reason::NotEvaluated(
                        "the result is of another type than expected".to_owned(),
                    );
                    outcome.skipped(model.graph.label(value.node), reason);
                }
            }
        }
    }
    Ok(found)
}

fn has_type(model: &Model, value: Value, tensor: &Tensor) -> bool {
    let expected = model.graph.value_type(value);
    expected.is_none_or(|t| {
        t.dtype == tensor.dtype() && t.known_shape().is_none_or(|dims| dims == tensor.dims())
    })
}

fn batches(model: &Model, wanted: &[Value]) -> Vec<Vec<Value>> {
    let mut batches: Vec<Vec<Value>> = Vec::new();
    let mut room = 0u64;
    for &value in wanted {
        let found = model.graph.value_type(value);
        let count = found
            .as_ref()
            .and_then(|t| t.known_shape())
            .map(|dims| dims.iter().product());
        let bytes = found
            .zip(count)
            .and_then(|(t, count)| t.dtype.byte_len(count))
            .unwrap_or(BATCH);
        match batches.last_mut() {
            Some(batch) if bytes <= room => batch.push(value),
            _ => {
                batches.push(vec![value]);
                room = BATCH;
            }
        }
        room = room.saturating_sub(bytes);
    }
    batches
}

/// The model that computes the given values. Known values become constants in it, so that weights of which only
/// the shape is used are not included.
fn part(model: &Model, facts: &Facts, wanted: &[Value]) -> Result<Model, SurgeryError> {
    let graph = &model.graph;
    let name = |value| graph.value_name(value);
    let asked: BTreeSet<Value> = wanted.iter().copied().collect();
    let cone = graph.cone(wanted, |value| {
        let known = facts.constants.contains_key(name(value));
        known && !asked.contains(&value) && graph.value_type(value).is_some()
    });
    let known: Vec<Value> = cone.frontier.into_iter().collect();
    let mut part = model.extract(&known, wanted)?;
    for (input, value) in part.graph.inputs().into_iter().zip(known) {
        if let Some(tensor) = facts.constants.get(name(value)) {
            part.graph.bind(input, tensor.clone())?;
        }
    }
    Ok(part)
}
