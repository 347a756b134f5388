//! Names and attributes of a function's body in one call.

use std::collections::{BTreeMap, BTreeSet};

use bcosc_ir::onnx::proto::{AttributeProto, GraphProto, NodeProto};

/// Every name of a model.
#[derive(Default)]
pub(super) struct Names(BTreeSet<String>);

impl Names {
    /// The names of a graph and of the graphs in it.
    pub fn of(graph: &GraphProto) -> Self {
        let mut names = Names::default();
        names.collect(graph);
        names
    }

    fn collect(&mut self, graph: &GraphProto) {
        self.0.extend(sources(graph));
        for node in &graph.node {
            self.0.extend(node.output.iter().cloned());
            self.0.extend(node.name.clone());
            graphs_of(node).for_each(|inner| self.collect(inner));
        }
    }

    /// An unused name similar to the wanted one.
    fn fresh(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut count = 1;
        while !self.0.insert(name.clone()) {
            count += 1;
            name = format!("{wanted}_{count}");
        }
        name
    }
}

/// The meaning of names in a body for one call.
#[derive(Clone, Default)]
pub(super) struct Scope {
    /// Values.
    pub values: BTreeMap<String, String>,
    /// Attributes that the call gives or the function has as defaults.
    pub attributes: BTreeMap<String, AttributeProto>,
}

impl Scope {
    /// Renames a body's nodes for the call and resolves attribute references.
    pub fn rename(&self, nodes: &mut [NodeProto], names: &mut Names, label: &str) {
        let mut scope = self.clone();
        let made = nodes.iter().flat_map(|n| &n.output);
        for name in made.filter(|name| !name.is_empty()) {
            if !scope.values.contains_key(name) {
                scope.define(name, names, label);
            }
        }
        for node in nodes {
            for name in node.input.iter_mut().chain(&mut node.output) {
                scope.apply(name);
            }
            if !node.name().is_empty() {
                node.name = Some(names.fresh(&format!("{label}/{}", node.name())));
            }
            let attributes = std::mem::take(&mut node.attribute).into_iter();
            node.attribute = attributes.filter_map(|a| scope.resolve(a)).collect();
            for graph in node.attribute.iter_mut().flat_map(graphs_of_attribute) {
                scope.rename_graph(graph, names, label);
            }
        }
    }

    /// Renames a nested graph of a body for the call. Names that it defines hide outer
    /// ones.
    fn rename_graph(&self, graph: &mut GraphProto, names: &mut Names, label: &str) {
        let mut scope = self.clone();
        let made = graph.node.iter().flat_map(|n| n.output.iter().cloned());
        let own: BTreeSet<String> = sources(graph).chain(made).collect();
        for name in own.iter().filter(|name| !name.is_empty()) {
            scope.define(name, names, label);
        }
        let sparse = graph.sparse_initializer.iter_mut();
        let sparse = sparse.filter_map(|t| t.values.as_deref_mut());
        let tensors = graph.initializer.iter_mut().chain(sparse);
        let infos = graph.input.iter_mut().chain(&mut graph.output);
        let infos = infos.chain(&mut graph.value_info).map(|i| &mut i.name);
        for name in tensors.map(|t| &mut t.name).chain(infos).flatten() {
            scope.apply(name);
        }
        scope.rename(&mut graph.node, names, label);
    }

    fn define(&mut self, name: &str, names: &mut Names, label: &str) {
        let fresh = names.fresh(&format!("{label}/{name}"));
        self.values.insert(name.to_owned(), fresh);
    }

    fn apply(&self, name: &mut String) {
        if let Some(new) = self.values.get(name) {
            name.clone_from(new);
        }
    }

    /// An attribute of the body, with references resolved; `None` if the call omits it.
    fn resolve(&self, attribute: AttributeProto) -> Option<AttributeProto> {
        let reference = attribute.ref_attr_name.as_deref();
        let Some(reference) = reference.filter(|r| !r.is_empty()) else {
            return Some(attribute);
        };
        let given = self.attributes.get(reference)?.clone();
        Some(AttributeProto {
            name: attribute.name,
            ..given
        })
    }
}

/// The graphs that a node's attributes hold.
pub(super) fn graphs_of(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    let attributes = node.attribute.iter();
    attributes.flat_map(|a| a.g.as_deref().into_iter().chain(&a.graphs))
}

/// The graphs that an attribute holds.
pub(super) fn graphs_of_attribute(
    attribute: &mut AttributeProto,
) -> impl Iterator<Item = &mut GraphProto> {
    let single = attribute.g.as_deref_mut();
    single.into_iter().chain(&mut attribute.graphs)
}

/// Names of a graph's inputs and initializers.
fn sources(graph: &GraphProto) -> impl Iterator<Item = String> {
    let sparse = graph.sparse_initializer.iter();
    let sparse = sparse.filter_map(|t| t.values.as_ref()?.name.clone());
    let dense = graph.initializer.iter().filter_map(|t| t.name.clone());
    let inputs = graph.input.iter().filter_map(|i| i.name.clone());
    dense.chain(sparse).chain(inputs)
}
