//! Selecting outputs of a model.

use bcosc_ir::{Model, Value};

use crate::Error;

/// Keeps only the requested outputs of a model, and the nodes they need.
pub(crate) fn keep_outputs(model: &mut Model, wanted: &[String], label: &str) -> Result<(), Error> {
    if wanted.is_empty() {
        return Ok(());
    }
    let graph = &model.graph;
    let problem = |problem| Error::Input {
        model: label.to_owned(),
        problem,
    };
    let mut kept: Vec<Value> = Vec::with_capacity(wanted.len());
    for (i, name) in wanted.iter().enumerate() {
        if wanted[..i].contains(name) {
            continue;
        }
        let mut outputs = graph.outputs().iter();
        let found = outputs.find(|output| output.info.name() == name);
        let found = found.ok_or_else(|| {
            let outputs = graph.outputs().iter();
            let names: Vec<String> = outputs.map(|o| format!("`{}`", o.info.name())).collect();
            let names = names.join(", ");
            problem(format!(
                "there is no output `{name}`; the outputs are {names}"
            ))
        })?;
        kept.push(found.value);
    }
    let part = model.extract(&graph.inputs(), &kept);
    *model = part.map_err(|error| problem(error.to_string()))?;
    Ok(())
}
