//! The driver of reverse mode: from the cotangents of outputs to those of the requested values.
//!
//! Nodes are visited in reverse order. The cotangent of a value is the sum of the contributions of its uses; the
//! rule of its node then computes the cotangents of the active operands. The caller selects rules and
//! operands.

use std::collections::{BTreeMap, BTreeSet};

use bcosc_ir::{Graph, Model, NodeId, Op, Operand, Patch, Value};

use crate::activity::{Activity, Follows};
use crate::context::RuleContext;
use crate::rules::{self, Table};
use bcosc_passes::{PassError, Reason};

/// A use of reverse mode.
pub(crate) struct Mode<'a> {
    /// Tables of rules; the first that has an operator counts.
    pub rules: &'a [Table],
    /// Tables for operators in the domain `bcosc`.
    pub markers: &'a [Table],
    /// The operands that cotangents flow into.
    pub follows: &'a Follows<'a>,
}

/// Adds to a model the operators that compute the cotangents of `wrt` from those of outputs, given as pairs
/// of an output and its cotangent. `None` if no output depends on a value along what is followed.
///
/// `typed` is the original graph with the types of all values; rules do not see the operators they add.
pub(crate) fn cotangents(
    model: &mut Model,
    typed: &Graph,
    outputs: &[(Value, Value)],
    wrt: &[Value],
    mode: &Mode<'_>,
) -> Result<Vec<Option<Value>>, PassError> {
    let to: Vec<Value> = outputs.iter().map(|(output, _)| *output).collect();
    let activity = Activity::of(typed, wrt, &to, mode.follows);
    let mut terms: BTreeMap<Value, Vec<Value>> = BTreeMap::new();
    for (output, seed) in outputs {
        terms.entry(*output).or_default().push(*seed);
    }
    let mut done: BTreeMap<Value, Value> = BTreeMap::new();
    for node in typed.ops().into_iter().rev() {
        let results = outputs_of(typed, node);
        if !results.iter().any(|value| terms.contains_key(value)) {
            continue;
        }
        let operands = typed.inputs_of(node);
        let wanted = |(slot, value): (usize, &Option<Value>)| {
            let (slot, value) = (slot as u32, (*value)?);
            (activity.is_active(value) && (mode.follows)(node, slot, value)).then_some(slot)
        };
        let wanted: BTreeSet<u32> = operands.iter().enumerate().filter_map(wanted).collect();
        let captures = typed.captured_by(node).into_iter();
        if captures.into_iter().any(|value| activity.is_active(value)) {
            return Err(PassError::unsupported(model, node, Reason::NoBackwardRule));
        }
        if wanted.is_empty() {
            continue;
        }
        // A requested value may be on the path to another.
        for value in results.iter().filter(|value| wrt.contains(value)) {
            if let Some(parts) = terms.get_mut(value) {
                let sum = accumulate(model, *value, parts)?;
                *parts = vec![sum];
                done.insert(*value, sum);
            }
        }
        let found = propagate(model, typed, node, &results, &wanted, &mut terms, mode)?;
        for (slot, value) in found {
            if let Some(operand) = operands[slot as usize] {
                terms.entry(operand).or_default().push(value);
            }
        }
    }
    for value in wrt {
        if let Some(parts) = terms.remove(value) {
            let sum = accumulate(model, *value, &parts)?;
            done.insert(*value, sum);
        }
    }
    Ok(wrt.iter().map(|value| done.get(value).copied()).collect())
}

fn outputs_of(graph: &Graph, node: NodeId) -> Vec<Value> {
    let slots = 0..graph.output_count(node);
    slots.map(|slot| graph.output(node, slot)).collect()
}

/// Runs the rule of one node.
fn propagate(
    model: &mut Model,
    typed: &Graph,
    node: NodeId,
    results: &[Value],
    wanted: &BTreeSet<u32>,
    terms: &mut BTreeMap<Value, Vec<Value>>,
    mode: &Mode<'_>,
) -> Result<Vec<(u32, Value)>, PassError> {
    let fail = |model: &Model, reason| PassError::unsupported(model, node, reason);
    let Some(op) = typed.op(node) else {
        return Ok(Vec::new());
    };
    let Some(rule) = rules::of(mode.rules, mode.markers, op) else {
        return Err(fail(model, Reason::NoBackwardRule));
    };
    let mut patch = Patch::at(node);
    let cotangents = results
        .iter()
        .map(|value| total(&mut patch, &terms.remove(value)?))
        .collect();
    let opset = model.opset("").unwrap_or(0);
    let mut cx = RuleContext {
        graph: typed,
        opset,
        node,
        op,
        wanted,
        cotangents,
        patch,
    };
    let found = rule(&mut cx).map_err(|reason| match reason {
        Reason::UnknownShape(name) => fail(model, Reason::OpenSize(name)),
        reason => fail(model, reason),
    })?;
    let mut patch = cx.patch;
    // A path that a rule leaves out would make a wrong gradient.
    let is_found = |slot: &u32| found.iter().any(|(of, _)| of == slot);
    if let Some(&slot) = wanted.iter().find(|slot| !is_found(slot)) {
        let operand = typed.input(node, slot);
        let name = operand.map_or("", |value| typed.value_name(value));
        return Err(fail(model, Reason::NoBackwardRuleOf(name.to_owned())));
    }
    for (_, operand) in &found {
        patch.keep(*operand);
    }
    let added = model.graph.apply(patch)?;
    Ok(found
        .into_iter()
        .filter_map(|(slot, operand)| Some((slot, operand.applied(&added)?)))
        .collect())
}

/// The sum of the cotangent contributions of a value.
fn accumulate(model: &mut Model, value: Value, terms: &[Value]) -> Result<Value, PassError> {
    let malformed = || PassError::Model(Reason::Malformed);
    let mut patch = Patch::at(value.node);
    let sum = total(&mut patch, terms).ok_or_else(malformed)?;
    patch.keep(sum);
    let added = model.graph.apply(patch)?;
    sum.applied(&added).ok_or_else(malformed)
}

/// The sum of values of one type; `None` if there is none.
fn total(patch: &mut Patch, terms: &[Value]) -> Option<Operand> {
    let mut sum = None;
    for term in terms {
        let term = Operand::Old(*term);
        sum = Some(match sum {
            None => term,
            Some(sum) => patch.op(Op::new("", "Add").named("cotangent"), &[sum, term]),
        });
    }
    sum
}
