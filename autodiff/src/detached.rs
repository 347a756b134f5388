//! Reverse mode along the linear path of a graph.
//!
//! The graph is W(x)x plus constants, W(x) a product of weights and of factors that are held fixed
//! ([`Linearity`] says which). From a cotangent s of an output this pass builds W(x)^T s, of ordinary
//! operators:
//!
//! ```text
//! y = A x            s_x = A^T s_y          a layer, a sum, a view
//! y = g(u) * x       s_x = g(u) * s_y       u detached: an ordinary value, just read
//! y = f(x)           s_x = (f(x) / x) * s_y a gate
//! x used twice       s_x is the sum over its uses
//! ```
//!
//! One rule per operator, in the table of `rules`. Sizes that are not known stay open: rules then read
//! them from the values of the graph. What constants add does not matter to W(x) and is not looked at.

mod algebra;
mod attention;
mod gates;
mod matmul;
mod moves;
mod norms;
mod order;
mod pick;
mod pool;
mod resize;
mod rules;
mod scatter;
mod shapes;
mod step;
mod windows;

use std::collections::{BTreeMap, BTreeSet};

use bcosc_ir::{Graph, Model, NodeId, Op, Operand, Patch, Use, Value};

use bcosc_passes::analysis::linearity::{Linearity, Standing};
use bcosc_passes::{PassError, Reason};
use step::Step;

/// Adds to a model the operators that compute the cotangent of `wrt` from that of `output`, and returns
/// its value. The types of all values must be known; the new ones are not inferred.
///
/// # Errors
/// Where the output is not linear in `wrt`, or an operator on the way has no rule.
pub fn cotangent(
    model: &mut Model,
    output: Value,
    seed: Value,
    wrt: Value,
) -> Result<Value, PassError> {
    // Rules see the graph as it was: what they add is none of their business.
    let typed = model.graph.clone();
    let linearity = Linearity::of(&typed);
    let below = downstream(&typed, wrt);
    let mut sums: BTreeMap<Value, Vec<Value>> = BTreeMap::from([(output, vec![seed])]);
    let mut order = typed.ops();
    order.reverse();
    for node in order {
        if node == wrt.node {
            continue;
        }
        let count = typed.output_count(node);
        let outputs: Vec<Value> = (0..count).map(|slot| typed.output(node, slot)).collect();
        if !outputs.iter().any(|value| sums.contains_key(value)) {
            continue;
        }
        let operands = typed.inputs_of(node);
        let on_path = |(slot, value): (usize, &Option<Value>)| {
            let value = (*value)?;
            let slot = slot as u32;
            let linear = linearity.standing(value) == Standing::Linear
                && !linearity.is_detached(node, slot)
                && (value == wrt || below.contains(&value.node));
            linear.then_some(slot)
        };
        let wanted: BTreeSet<u32> = operands.iter().enumerate().filter_map(on_path).collect();
        if wanted.is_empty() {
            continue;
        }
        let found = propagate(model, &typed, node, &outputs, &wanted, &mut sums)?;
        for (slot, value) in found {
            if let Some(operand) = operands[slot as usize] {
                sums.entry(operand).or_default().push(value);
            }
        }
    }
    let terms = sums.remove(&wrt).unwrap_or_default();
    let mut patch = Patch::at(wrt.node);
    let sum = total(&mut patch, &terms).ok_or_else(|| {
        PassError::Model(Reason::NotLinear {
            output: typed.value_name(output).to_owned(),
            broken_by: linearity.verdict(output).broken_by.join(", "),
        })
    })?;
    patch.keep(sum);
    let added = model.graph.apply(patch)?;
    sum.applied(&added)
        .ok_or(PassError::Model(Reason::Malformed))
}

/// Runs the rule of one node.
fn propagate(
    model: &mut Model,
    typed: &Graph,
    node: NodeId,
    outputs: &[Value],
    wanted: &BTreeSet<u32>,
    sums: &mut BTreeMap<Value, Vec<Value>>,
) -> Result<Vec<(u32, Value)>, PassError> {
    let fail = |model: &Model, reason| PassError::unsupported(model, node, reason);
    let Some(op) = typed.op(node) else {
        return Ok(Vec::new());
    };
    let Some(rule) = rules::of(op) else {
        return Err(fail(model, Reason::NoDerivative));
    };
    let mut patch = Patch::at(node);
    let cotangents = outputs
        .iter()
        .map(|value| total(&mut patch, &sums.remove(value)?))
        .collect();
    let opset = model.opset("").unwrap_or(0);
    let mut step = Step {
        graph: typed,
        opset,
        node,
        op,
        wanted,
        cotangents,
        patch,
    };
    let found = rule(&mut step).map_err(|reason| match reason {
        Reason::UnknownShape(name) => fail(model, Reason::OpenSize(name)),
        reason => fail(model, reason),
    })?;
    let mut patch = step.patch;
    for (_, operand) in &found {
        patch.keep(*operand);
    }
    let added = model.graph.apply(patch)?;
    Ok(found
        .into_iter()
        .filter_map(|(slot, operand)| Some((slot, operand.applied(&added)?)))
        .collect())
}

/// The sum of values of one type; `None` where there is none.
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

/// The nodes that depend on a value.
fn downstream(graph: &Graph, from: Value) -> BTreeSet<NodeId> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(value) = open.pop() {
        for used in graph.uses(value) {
            let (Use::Input { node, .. } | Use::Capture { node, .. }) = used else {
                continue;
            };
            if found.insert(node) {
                open.extend((0..graph.output_count(node)).map(|slot| graph.output(node, slot)));
            }
        }
    }
    found
}

#[cfg(test)]
mod pytorch;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
