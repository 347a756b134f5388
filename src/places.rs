//! Which values of a converted model stand for which values of its original, as an entry of its metadata.
//!
//! The entry is a JSON list. `"name"` is a value that stands for the value of the same name; `["name", "original"]` for another.

#[cfg(feature = "vision")]
use std::collections::BTreeMap;

use bcosc_ir::{Model, Node};
use serde::{Deserialize, Serialize};

#[cfg(feature = "vision")]
use crate::Error;

/// The entry.
const STANDS_FOR: &str = "bcosc.stands_for";

#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Place {
    Same(String),
    Other([String; 2]),
}

/// Records what the values of a model stand for. Constants are left out.
pub(crate) fn record(model: &mut Model) {
    let graph = &model.graph;
    let computed = graph.provenance().into_iter().filter(|(_, value)| {
        let node = graph.node(value.node);
        matches!(node, Node::Op(op) if !op.is("Constant"))
    });
    let places: Vec<Place> = computed
        .map(|(original, value)| match graph.value_name(value) {
            name if *name == *original => Place::Same(name.to_owned()),
            name => Place::Other([name.to_owned(), original.to_string()]),
        })
        .collect();
    if let Ok(text) = serde_json::to_string(&places) {
        model.set_metadata(STANDS_FOR, &text);
    }
}

/// Gives the values of a converted model what its metadata says that they stand for.
///
/// # Errors
/// [`Error::Input`] if it says nothing, or the entry is damaged.
#[cfg(feature = "vision")]
pub(crate) fn restore(model: &mut Model, label: &str) -> Result<(), Error> {
    let fail = |problem: &str| Error::Input {
        model: label.to_owned(),
        problem: problem.to_owned(),
    };
    let text = model.metadata(STANDS_FOR).ok_or_else(|| {
        fail("does not say which of its values stand for values of the original: convert it again with this version")
    })?;
    let places: Vec<Place> = serde_json::from_str(text)
        .map_err(|_| fail("has a damaged metadata entry bcosc.stands_for"))?;
    let mut listed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for place in places {
        let [name, original] = match place {
            Place::Same(name) => [name.clone(), name],
            Place::Other(names) => names,
        };
        listed.entry(name).or_default().push(original);
    }
    model.graph.set_provenance(&listed);
    Ok(())
}
