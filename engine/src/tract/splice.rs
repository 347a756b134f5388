//! Puts a patch into a typed graph.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tract_onnx::prelude::{TractResult, TypedModel};
use tract_onnx::tract_hir::internal::{
    InletId, OutletId, SpecialOps, TypedModelPatch, bail, format_err,
};

/// Applies patches to one graph. Knows the names of all its nodes, so that new ones are found unique without looking
/// at every node.
#[derive(Debug)]
pub(crate) struct Splice {
    names: HashSet<String>,
    /// Makes names unique.
    serial: usize,
}

impl Splice {
    pub fn new(model: &TypedModel) -> Self {
        let mut splice = Splice {
            names: HashSet::new(),
            serial: 0,
        };
        splice.rename(model);
        splice
    }

    /// Learns the names of a graph that something else has changed.
    pub fn rename(&mut self, model: &TypedModel) {
        let names = model.nodes.iter().map(|node| node.name.clone());
        self.names = names.collect();
    }

    /// Adds a patch's nodes, hands its outlets to the consumers of those they replace, and removes what has no consumer
    /// left. Returns where the patch's outlets are in the graph.
    pub fn apply(
        &mut self,
        patch: TypedModelPatch,
        target: &mut TypedModel,
    ) -> TractResult<HashMap<OutletId, OutletId>> {
        let TypedModelPatch {
            model: patch,
            taps,
            shunts,
            obliterate,
            inputs: replaced_inputs,
            ..
        } = patch;
        let mut outlets = taps;
        let mut added = Vec::new();
        for node in patch.nodes {
            let is_tap = outlets.contains_key(&OutletId::new(node.id, 0));
            if is_tap {
                continue;
            }
            let is_source = TypedModel::is_source(&node.op);
            let facts = node.outputs.into_iter().map(|output| output.fact);
            let id = target.add_node(node.name, node.op, facts.collect())?;
            for slot in 0..target.nodes[id].outputs.len() {
                outlets.insert(OutletId::new(node.id, slot), OutletId::new(id, slot));
            }
            if is_source {
                let replaced = replaced_inputs.get(&node.id);
                let replaced = replaced.ok_or_else(|| format_err!("a source without a place"))?;
                for input in target.inputs.iter_mut().filter(|i| i.node == *replaced) {
                    input.node = id;
                }
            }
            added.push((id, node.inputs));
        }
        let found = |outlet: &OutletId| match outlets.get(outlet) {
            Some(outlet) => Ok(*outlet),
            None => bail!("a patch refers to {outlet:?}, which it does not have"),
        };
        // In order, so that the graph is the same each time.
        let shunts: BTreeMap<OutletId, OutletId> = shunts.into_iter().collect();
        for (old, new) in &shunts {
            let new = found(new)?;
            for consumer in target.nodes[old.node].outputs[old.slot].successors.clone() {
                target.add_edge(new, consumer)?;
            }
            for output in target.outputs.iter_mut().filter(|o| *o == old) {
                *output = new;
            }
            if let Some(label) = target.outlet_labels.remove(old) {
                target.set_outlet_label(new, label)?;
            }
        }
        for (id, inputs) in &added {
            for (slot, input) in inputs.iter().enumerate() {
                target.add_edge(found(input)?, InletId::new(*id, slot))?;
            }
        }
        for id in obliterate {
            target.nodes[id].op = target.create_dummy();
        }
        let added: Vec<usize> = added.into_iter().map(|(id, _)| id).collect();
        self.remove_unread(target, shunts.keys().map(|outlet| outlet.node).collect());
        for id in added {
            let name = std::mem::take(&mut target.nodes[id].name);
            target.nodes[id].name = self.unique(name);
        }
        Ok(outlets)
    }

    /// Empties those of the nodes that nothing reads, and what only they read.
    fn remove_unread(&mut self, model: &mut TypedModel, mut candidates: BTreeSet<usize>) {
        while let Some(id) = candidates.pop_first() {
            let kept = |outlets: &[OutletId]| outlets.iter().any(|outlet| outlet.node == id);
            let node = &model.nodes[id];
            if kept(&model.outputs)
                || kept(&model.inputs)
                || node
                    .outputs
                    .iter()
                    .any(|output| !output.successors.is_empty())
            {
                continue;
            }
            let dummy = model.create_dummy();
            let node = &mut model.nodes[id];
            self.names.remove(&std::mem::take(&mut node.name));
            node.op = dummy;
            node.outputs.clear();
            for input in std::mem::take(&mut node.inputs) {
                let successors = &mut model.nodes[input.node].outputs[input.slot].successors;
                successors.retain(|inlet| inlet.node != id);
                candidates.insert(input.node);
            }
        }
    }

    /// A name that no node has yet, from one that may be taken.
    fn unique(&mut self, name: String) -> String {
        let mut unique = name.clone();
        while !self.names.insert(unique.clone()) {
            self.serial += 1;
            let stem = name.split_once('#').map_or(name.as_str(), |(stem, _)| stem);
            unique = format!("{stem}#{}", self.serial);
        }
        unique
    }
}
