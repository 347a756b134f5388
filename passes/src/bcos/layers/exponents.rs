//! B of every layer: that of the model, of the last layers, or of layers chosen by name.

use std::collections::{BTreeMap, BTreeSet};

use bcosc_ir::{Graph, NodeId};
use glob::Pattern;

use crate::{Reason, Settings};

/// How many names an error lists.
const FEW: usize = 8;

/// B of the layers that become B-cos layers. Of several patterns that match, the last counts; any pattern counts more than
/// being last.
pub(super) fn exponents(
    graph: &Graph,
    layers: &[NodeId],
    settings: &Settings,
) -> Result<BTreeMap<NodeId, f64>, Reason> {
    let mut found: BTreeMap<NodeId, f64> = layers.iter().map(|&node| (node, settings.b)).collect();
    if let Some(b) = settings.b_last {
        found.extend(last(graph, layers).into_iter().map(|node| (node, b)));
    }
    for (text, b) in &settings.b_layers {
        let pattern = Pattern::new(text).map_err(|_| Reason::NoPattern(text.clone()))?;
        let matches = layers
            .iter()
            .filter(|&&node| pattern.matches(&graph.label(node)));
        let matches: Vec<NodeId> = matches.copied().collect();
        if matches.is_empty() {
            let names: Vec<String> = layers.iter().map(|&node| graph.label(node)).collect();
            let (few, more) = names.split_at(names.len().min(FEW));
            let more = match more.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            return Err(Reason::NoSuchLayer {
                pattern: text.clone(),
                names: format!("{}{more}", few.join(", ")),
            });
        }
        found.extend(matches.into_iter().map(|node| (node, *b)));
    }
    Ok(found)
}

/// The layers from which a path leads to an output without another of them.
fn last(graph: &Graph, layers: &[NodeId]) -> BTreeSet<NodeId> {
    let all: BTreeSet<NodeId> = layers.iter().copied().collect();
    let mut last = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut open: Vec<NodeId> = graph.outputs().iter().map(|o| o.value.node).collect();
    while let Some(node) = open.pop() {
        if !seen.insert(node) {
            continue;
        }
        if all.contains(&node) {
            last.insert(node);
        } else {
            open.extend(graph.inputs_of(node).into_iter().flatten().map(|v| v.node));
        }
    }
    last
}

/// The layers whose B differs from that of the model, by name, as a JSON object.
pub(super) fn described(graph: &Graph, found: &BTreeMap<NodeId, f64>, b: f64) -> Option<String> {
    let others = found.iter().filter(|(_, own)| **own != b);
    let others: BTreeMap<String, f64> = others.map(|(&node, &b)| (graph.label(node), b)).collect();
    let text = serde_json::to_string(&others).ok();
    text.filter(|_| !others.is_empty())
}

#[cfg(test)]
mod tests;
