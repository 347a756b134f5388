//! Other names for what would run into names of another graph.

use std::collections::{BTreeMap, BTreeSet};

use bcosc_onnx::proto::TensorAnnotation;

use crate::graph::Vertex;
use crate::{Graph, Node, NodeId};

/// New names by old ones, for values and nodes of a graph and of those nested in it.
pub(super) struct Names(BTreeMap<String, String>);

impl Names {
    /// Names for some nodes of `from` that are free in `into`, where they count as used from now on. A name
    /// that is free stays.
    pub fn reserve(nodes: &BTreeSet<NodeId>, from: &Graph, into: &mut Graph) -> Self {
        let mut old = BTreeSet::new();
        nodes
            .iter()
            .for_each(|&id| collect(from.vertex(id), &mut old));
        let (taken, free): (Vec<String>, Vec<String>) =
            old.into_iter().partition(|name| into.names.contains(name));
        into.names.extend(free);
        let fresh = taken.into_iter().map(|name| {
            let fresh = into.fresh_name(&name);
            (name, fresh)
        });
        Names(fresh.collect())
    }

    /// Renames a node, its values, and all that is nested in it.
    pub fn apply(&self, vertex: &mut Vertex) {
        for output in &mut vertex.outputs {
            self.rename(&mut output.name);
        }
        if let Node::Op(op) = &mut vertex.node {
            op.header.name.iter_mut().for_each(|name| self.rename(name));
            for attribute in &mut op.attributes {
                attribute
                    .graphs
                    .iter_mut()
                    .for_each(|graph| self.nested(graph));
            }
        }
    }

    fn nested(&self, graph: &mut Graph) {
        for vertex in graph.net.node_weights_mut() {
            // A captured value is known by a label, which is not a name.
            if !matches!(vertex.node, Node::Capture(_)) {
                self.apply(vertex);
            }
        }
        let is_label = |graph: &Graph, i: usize| {
            matches!(graph.node(graph.outputs[i].value.node), Node::Capture(_))
        };
        for i in 0..graph.outputs.len() {
            if !is_label(graph, i) {
                graph.outputs[i]
                    .info
                    .name
                    .iter_mut()
                    .for_each(|name| self.rename(name));
            }
        }
        graph.names = graph
            .names
            .iter()
            .map(|name| self.of(name).to_owned())
            .collect();
        graph.pinned = graph
            .pinned
            .iter()
            .map(|name| self.of(name).to_owned())
            .collect();
        let annotations = graph.frame.quantization_annotation.iter_mut();
        annotations.for_each(|annotation| self.annotation(annotation));
    }

    /// Renames the tensors that an annotation names.
    pub fn annotation(&self, annotation: &mut TensorAnnotation) {
        annotation
            .tensor_name
            .iter_mut()
            .for_each(|name| self.rename(name));
        for entry in &mut annotation.quant_parameter_tensor_names {
            entry.value.iter_mut().for_each(|name| self.rename(name));
        }
    }

    /// What a name became.
    pub fn of<'a>(&'a self, name: &'a str) -> &'a str {
        self.0.get(name).map_or(name, String::as_str)
    }

    fn rename(&self, name: &mut String) {
        if let Some(new) = self.0.get(name) {
            new.clone_into(name);
        }
    }
}

fn collect(vertex: &Vertex, names: &mut BTreeSet<String>) {
    names.extend(vertex.outputs.iter().map(|output| output.name.clone()));
    if let Some(op) = vertex.node.as_op() {
        names.insert(op.name().to_owned());
        for inner in op.subgraphs().flat_map(|graph| graph.net.node_weights()) {
            if !matches!(inner.node, Node::Capture(_)) {
                collect(inner, names);
            }
        }
    }
    names.remove("");
}
