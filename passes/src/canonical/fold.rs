//! `fold-constants`: evaluates values that do not depend on the input.
//!
//! The interpreter infers types and evaluates constants; this pass decides which to fold. A constant replaces the
//! operators that compute it unless the file would grow by more than [`Settings::largest_constant`](crate::Settings::largest_constant) beyond the
//! parameters that are removed. Shape arithmetic with a dynamic batch becomes a `Reshape` with one -1, or 0
//! for unchanged dimensions. An `If` with a constant condition is replaced by its branch, and a norm of weights by
//! arithmetic that can be evaluated.
//!
//! ```text
//! n = Shape <start = 0, end = 1> (x)   s = Concat <axis = 0> (n, {512})   y = Reshape (x, s)
//! y = Reshape (x, {-1, 512})
//! ```
//!
//! A weight in another shape or type keeps its name, so that it is found under the name that the exporter's framework has for it;
//! where the weight itself stays too, with the operator as a suffix. In another order it always gets the suffix `transpose`: it
//! must not be taken for the weight, whose shape may be the same.
//!
//! After one round, another is needed only if a branch was inlined, so the number of rounds is bounded by the number
//! of `If` nodes.

mod branches;
mod cast_like;
mod evaluate;
mod plan;
mod shapes;
mod weight_norms;

use bcosc_ir::ops::Trait;
use bcosc_ir::{Facts, Graph, Model, Node, Op, Patch, Tensor, Value};

use crate::{Context, Effect, Outcome, Pass, PassError};
use plan::Source;

/// Folds constants and shape arithmetic.
pub static FOLD_CONSTANTS: Pass = Pass {
    name: "fold-constants",
    summary: "evaluate constants and shape arithmetic, inline branches with a constant condition",
    effect: Effect::Exact,
    requires: &[
        &crate::canonical::functions::INLINE_FUNCTIONS,
        &crate::canonical::default_inputs::DROP_DEFAULT_INPUTS,
        &crate::canonical::sequences::RESOLVE_SEQUENCES,
    ],
    run,
};

fn run(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
    let mut outcome = Outcome::default();
    loop {
        outcome.skips.clear();
        let facts = cx.infer(model)?;
        if weight_norms::resolve(model, &facts, &mut outcome)? > 0 {
            continue;
        }
        round(model, cx, &facts, &mut outcome)?;
        if branches::inline(model, &mut outcome)? == 0 {
            return Ok(outcome);
        }
    }
}

fn round(
    model: &mut Model,
    cx: &Context<'_>,
    facts: &Facts,
    outcome: &mut Outcome,
) -> Result<(), PassError> {
    cast_like::resolve(model, outcome)?;
    shapes::resolve(model, facts, outcome)?;
    let folds = plan::make(model, facts, cx.settings.largest_constant, outcome);
    let wanted = folds
        .iter()
        .filter(|(_, source)| matches!(source, Source::Evaluate));
    let wanted: Vec<Value> = wanted.map(|(value, _)| *value).collect();
    let mut computed = evaluate::values(model, cx, facts, &wanted, outcome)?;
    for (value, source) in folds {
        let tensor = match source {
            Source::Known(tensor) => Some(tensor),
            Source::Evaluate => computed.remove(&value),
        };
        if let Some(tensor) = tensor {
            replace(model, value, tensor, outcome)?;
        }
    }
    Ok(())
}

/// Replaces a value by a parameter.
fn replace(
    model: &mut Model,
    value: Value,
    tensor: Tensor,
    outcome: &mut Outcome,
) -> Result<(), PassError> {
    if !model.graph.contains(value.node) {
        return Ok(());
    }
    outcome.changed(
        model.graph.label(value.node),
        format!("folded to a constant {}", tensor.tensor_type()),
    );
    let mut patch = Patch::at(value.node);
    let parameter = patch.parameter("value", tensor);
    patch.replace(value, parameter);
    if let Some((weight, op)) = same_elements(&model.graph, value) {
        match op {
            Some(op) => patch.name_after(parameter, weight, &op.to_lowercase()),
            None => patch.name_with_suffix(parameter, weight, "transpose"),
        }
    }
    model.graph.apply(patch)?;
    Ok(())
}

/// The parameter whose elements a value has in another shape or type, and the operator that makes the value; no operator if
/// the order is another.
fn same_elements(graph: &Graph, value: Value) -> Option<(Value, Option<String>)> {
    let keeps = |op: &Op| {
        let traits = [Trait::View, Trait::Copy, Trait::Cast];
        op.is("Transpose") || traits.into_iter().any(|known| op.has(known))
    };
    let last = graph.op(value.node)?.op_type().to_owned();
    let (mut source, mut moved) = (value, false);
    loop {
        match graph.node(source.node) {
            Node::Op(op) if source.slot == 0 && keeps(op) => {
                moved |= op.is("Transpose");
                source = graph.input(source.node, 0)?
            }
            Node::Parameter(parameter) if parameter.as_input.is_none() => break,
            _ => return None,
        }
    }
    Some((source, (!moved).then_some(last)))
}

#[cfg(test)]
mod tests;
