//! Finding values and operators by name.

use bcosc_ir::{Model, NodeId, Value};

use crate::text;

/// The value of a name.
pub fn value(model: &Model, name: &str) -> Value {
    let found = model.graph.value_named(name);
    found.unwrap_or_else(|| panic!("no value {name} in\n{model}"))
}

/// The producer of a value.
pub fn op(model: &Model, output: &str) -> NodeId {
    value(model, output).node
}

/// The nodes as text, one per line.
pub fn body(model: &Model) -> Vec<String> {
    let text = text(model);
    let lines = text.lines().skip_while(|l| !l.ends_with('{')).skip(1);
    let lines = lines.take_while(|l| *l != "}");
    lines.map(|l| l.trim().to_owned()).collect()
}
