//! An explanation graph in two parts, so that several classes of one image share the forward pass.
//!
//! ```text
//! image                 -> forward  -> logits, shared values
//! target, shared values -> backward -> class, weights, contributions
//! ```
//!
//! The cut consists of floating-point and boolean values that do not depend on `target`. Shapes and indices are
//! computed in both parts, since runtimes that prepare a graph for fixed sizes must be able to fold them.

use std::collections::BTreeSet;

use bcosc_ir::{DataType, Graph, Model, SurgeryError, Value};

use crate::activity::dependents;
use crate::explanation::TARGET;

/// An explanation graph in two parts.
#[derive(Clone, Debug)]
pub struct Parts {
    /// From the model's inputs to the logits, and then the shared values that are not inputs.
    pub forward: Model,
    /// From `target`, and then the shared values, to the class, W(x) and the contributions.
    pub backward: Model,
    /// Where each shared value comes from.
    pub shared: Vec<Shared>,
}

/// Where a shared value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shared {
    /// The input of this name.
    Input(String),
    /// The output of the forward part at this place.
    Output(usize),
}

impl Parts {
    /// Cuts an explanation graph whose types are known.
    ///
    /// # Errors
    /// Where the graph cannot be cut: an input that has no type, say.
    pub fn of(model: &Model) -> Result<Self, SurgeryError> {
        let graph = &model.graph;
        let results: Vec<Value> = graph.outputs().iter().map(|output| output.value).collect();
        let (logits, results) = results.split_at(results.len().min(1));
        let target = graph.value_named(TARGET);
        let shared: Vec<Value> = borders(graph, target, results).into_iter().collect();

        let inputs = graph.inputs();
        let mut forward = logits.to_vec();
        let mut place = |value: &Value| {
            if inputs.contains(value) {
                return Shared::Input(graph.value_name(*value).to_owned());
            }
            let known = forward.iter().position(|output| output == value);
            Shared::Output(known.unwrap_or_else(|| {
                forward.push(*value);
                forward.len() - 1
            }))
        };
        let places = shared.iter().map(&mut place).collect();
        let taken: Vec<Value> = inputs.into_iter().filter(|v| Some(*v) != target).collect();
        let given: Vec<Value> = target.into_iter().chain(shared).collect();
        Ok(Parts {
            forward: model.extract(&taken, &forward)?,
            backward: model.extract(&given, results)?,
            shared: places,
        })
    }
}

/// The values to cut at.
fn borders(graph: &Graph, target: Option<Value>, results: &[Value]) -> BTreeSet<Value> {
    let target_alone: Vec<Value> = target.into_iter().collect();
    let late = dependents(graph, &target_alone, &|_, _, _| true);
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut open = results.to_vec();
    while let Some(value) = open.pop() {
        if Some(value) == target || !seen.insert(value) || graph.constant(value).is_some() {
            continue;
        }
        let is_early = !late.contains(&value);
        if is_early && (is_data(graph, value) || graph.inputs().contains(&value)) {
            found.insert(value);
            continue;
        }
        open.extend(graph.inputs_of(value.node).into_iter().flatten());
        open.extend(graph.captured_by(value.node));
    }
    found
}

/// Whether a value is numbers or a mask, which runtimes keep as they are.
fn is_data(graph: &Graph, value: Value) -> bool {
    let found = graph.value_type(value);
    found.is_some_and(|t| matches!(t.dtype, DataType::Float | DataType::Double | DataType::Bool))
}
