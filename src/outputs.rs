//! The outputs of a model that are looked at.

use bcosc_ir::{Model, Value};

use crate::{Error, Probability};

/// Leaves a model only the outputs that are asked for, and what they need.
pub(crate) fn keep_outputs(model: &mut Model, wanted: &[String], label: &str) -> Result<(), Error> {
    if wanted.is_empty() {
        return Ok(());
    }
    let graph = &model.graph;
    let all: Vec<(Value, String)> = graph
        .outputs()
        .iter()
        .map(|output| (output.value, output.info.name.clone().unwrap_or_default()))
        .collect();
    let mut kept = Vec::with_capacity(wanted.len());
    for (i, name) in wanted.iter().enumerate() {
        if wanted[..i].contains(name) {
            continue;
        }
        let found = all.iter().find(|(_, known)| known == name);
        kept.push(found.cloned().ok_or_else(|| Error::Input {
            model: label.to_owned(),
            problem: format!(
                "there is no output `{name}`; the outputs are {}",
                all.iter().map(|(_, name)| format!("`{name}`")).collect::<Vec<_>>().join(", ")
            ),
        })?);
    }
    model.graph.set_outputs(&kept);
    model.graph.remove_dead();
    Ok(())
}

/// Cuts a model that ends in probabilities off before them, so that it puts out logits; says which they were.
pub(crate) fn before_probabilities(model: &mut Model) -> Option<Probability> {
    let graph = &model.graph;
    let [output] = graph.outputs() else {
        return None;
    };
    let (node, op) = graph.producer(output.value)?;
    let ending = match op.op_type() {
        "Softmax" | "LogSoftmax" => Probability::Softmax,
        "Sigmoid" => Probability::Sigmoid,
        _ => return None,
    };
    let logits = graph.input(node, 0).filter(|_| op.domain().is_empty())?;
    let name = output.info.name.clone().unwrap_or_default();
    model.graph.set_outputs(&[(logits, name)]);
    model.graph.remove_dead();
    Some(ending)
}
