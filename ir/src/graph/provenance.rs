//! Which value of the original model a value stands for.
//!
//! A model that is read is an original: every value of its main graph stands for itself. From then on the
//! note travels with the place in the network, whatever the value there is called:
//!
//! * where a patch replaces a value, the replacement takes over what the old one stood for. A layer's
//!   output that is multiplied with a factor hands its place to the product, since that is what the next layer
//!   reads; a removed `Identity` hands its place to its operand, which then stands for two values;
//! * a replacement of another type, a redeclared input, and values that a patch
//!   [forgets](crate::Patch::forget) stand for nothing;
//! * copies, extracted parts and spliced models keep what they have.
//!
//! So a value that stands for `v` is at the place where the original has `v`. After exact passes it is equal
//! to it, at B = 1 and to rounding; after altering passes it is what has become of it. Models are written
//! without these notes; who needs them later stores them elsewhere, and gives them back with
//! [`Graph::set_provenance`].

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Graph, NodeId, Value};

impl Graph {
    /// Makes this graph the original: from here on every value stands for itself alone. Models that are
    /// read are marked already.
    pub fn mark_original(&mut self) {
        for vertex in self.net.node_weights_mut() {
            for output in &mut vertex.outputs {
                output.stands_for.clear();
                if !output.name.is_empty() {
                    output.stands_for.push(output.name.as_str().into());
                }
            }
        }
    }

    /// Names of the values of the original model that this value stands for: usually one, more where
    /// several values became one, none where the original has no such value.
    pub fn stands_for(&self, value: Value) -> &[Arc<str>] {
        &self.vertex(value.node).outputs[value.slot as usize].stands_for
    }

    /// The value that stands for a value of the original model, by that value's name. Where two models that
    /// have one are in this graph, the one that came first.
    pub fn standing_for(&self, original: &str) -> Option<Value> {
        let stands = |value: &Value| {
            self.stands_for(*value)
                .iter()
                .any(|name| **name == *original)
        };
        let mut nodes: Vec<NodeId> = self.unordered().collect();
        nodes.sort_unstable();
        nodes
            .into_iter()
            .flat_map(|id| self.outputs_of(id))
            .find(stands)
    }

    /// Every value of the original model that something stands for, with what does; for many look-ups this is
    /// cheaper than [`Graph::standing_for`], and it finds the same.
    pub fn provenance(&self) -> BTreeMap<Arc<str>, Value> {
        let mut nodes: Vec<NodeId> = self.unordered().collect();
        nodes.sort_unstable();
        let mut found = BTreeMap::new();
        for value in nodes.into_iter().flat_map(|id| self.outputs_of(id)) {
            for name in self.stands_for(value) {
                found.entry(name.clone()).or_insert(value);
            }
        }
        found
    }

    /// Makes values stand for what is listed: names of values of the original, by the value's own name. All other values
    /// stand for nothing.
    pub fn set_provenance(&mut self, listed: &BTreeMap<String, Vec<String>>) {
        for vertex in self.net.node_weights_mut() {
            for output in &mut vertex.outputs {
                let names = listed.get(&output.name).map(Vec::as_slice);
                let names = names.unwrap_or_default().iter();
                output.stands_for = names.map(|name| name.as_str().into()).collect();
            }
        }
    }

    /// States that a value no longer stands for any value of the original.
    /// Rules say so in their patch: [`Patch::forget`](crate::Patch::forget).
    pub fn forget(&mut self, value: Value) {
        self.vertex_mut(value.node).outputs[value.slot as usize]
            .stands_for
            .clear();
    }

    /// The new value takes over what the old one stood for.
    pub(crate) fn hand_over(&mut self, old: Value, new: Value) {
        let output = |graph: &mut Graph, value: Value| {
            std::mem::take(
                &mut graph.vertex_mut(value.node).outputs[value.slot as usize].stands_for,
            )
        };
        let handed = output(self, old);
        let mut all = output(self, new);
        all.extend(handed);
        self.vertex_mut(new.node).outputs[new.slot as usize].stands_for = all;
    }

    /// Every value stands for what the value of its name stands for in another graph.
    pub(crate) fn take_provenance(&mut self, from: &Graph) {
        let outputs = from.net.node_weights().flat_map(|vertex| &vertex.outputs);
        let known: BTreeMap<&str, &[Arc<str>]> = outputs
            .map(|output| (output.name.as_str(), output.stands_for.as_slice()))
            .collect();
        for output in self
            .net
            .node_weights_mut()
            .flat_map(|vertex| &mut vertex.outputs)
        {
            let names = known.get(output.name.as_str()).copied().unwrap_or_default();
            output.stands_for = names.to_vec();
        }
    }

    fn outputs_of(&self, id: NodeId) -> impl Iterator<Item = Value> + use<> {
        (0..self.output_count(id)).map(move |slot| Value { node: id, slot })
    }
}
