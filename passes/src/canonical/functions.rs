//! `inline-functions`: calls of local functions become their bodies.
//!
//! Exporters wrap parts of a network into functions of the model's own (`ModelProto.functions`).
//! The passes after this one see operators only.
//!
//! ```text
//! y = local.Double (x)      with Double (a) => (b) { b = Add (a, a) }
//! y = Add (x, x)
//! ```
//!
//! The pass works on the ONNX messages: calls may sit in branches and loop bodies, and bodies may
//! hold graphs that see the function's values, so everything is a matter of names.

use std::collections::{BTreeMap, BTreeSet};

use bcosc_ir::Model;
use bcosc_ir::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
};

use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

/// More operators than this are not made: functions that call each other twice grow exponentially.
const MOST_OPERATORS: u64 = 1_000_000;

/// Functions that call functions further down than this are refused.
const DEEPEST: usize = 200;

/// Replaces calls of local functions by their bodies.
pub struct InlineFunctions;

impl Pass for InlineFunctions {
    fn name(&self) -> &'static str {
        "inline-functions"
    }

    fn summary(&self) -> &'static str {
        "replace calls of the model's own functions by their bodies"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn ensures(&self) -> &'static str {
        "the model has no local functions"
    }

    fn run(&self, model: &mut Model, _: &Context<'_>) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        if model.functions().is_empty() {
            return Ok(outcome);
        }
        let mut proto = model.to_proto();
        inline(&mut proto, &mut outcome).map_err(PassError::Model)?;
        *model = Model::from_proto(proto).map_err(|e| PassError::Model(Reason::NotAGraph(e.to_string())))?;
        Ok(outcome)
    }
}

/// Domain, name and overload.
type Key = (String, String, String);

fn inline(model: &mut ModelProto, outcome: &mut Outcome) -> Result<(), Reason> {
    let functions = std::mem::take(&mut model.functions);
    let mut inliner = Inliner {
        functions: functions.iter().map(|f| (key_of_function(f), f)).collect(),
        names: BTreeSet::new(),
        open: Vec::new(),
        outcome,
    };
    let Some(graph) = &mut model.graph else {
        return Ok(());
    };
    let mut sizes = BTreeMap::new();
    let size = inliner.size_of(&graph.node, 0, &mut sizes)?;
    if size > MOST_OPERATORS {
        return Err(Reason::FunctionsTooLarge(size));
    }
    collect_names(graph, &mut inliner.names);
    inliner.graph(graph)?;
    let called = functions.iter().filter(|f| sizes.contains_key(&key_of_function(f)));
    import_opsets(&mut model.opset_import, called)?;
    if !model.training_info.is_empty() {
        // Training graphs may call them too.
        model.functions = functions;
        return Ok(());
    }
    let domains: BTreeSet<&str> = functions.iter().map(FunctionProto::domain).collect();
    let in_use = domains_in_use(graph);
    model.opset_import.retain(|import| {
        let domain = import.domain.as_deref().unwrap_or_default();
        !domains.contains(domain) || in_use.contains(domain)
    });
    Ok(())
}

/// Operator sets that bodies import become the model's. ONNX lets versions differ where no used
/// operator does; that cannot be told from here, so they have to be the same.
fn import_opsets<'a>(
    imports: &mut Vec<OperatorSetIdProto>,
    functions: impl Iterator<Item = &'a FunctionProto>,
) -> Result<(), Reason> {
    for function in functions {
        let used: BTreeSet<&str> = function.node.iter().flat_map(domains_of_node).collect();
        for wanted in &function.opset_import {
            let domain = plain_domain(wanted.domain.as_deref());
            if !used.contains(domain) {
                continue;
            }
            let have = imports.iter().find(|i| plain_domain(i.domain.as_deref()) == domain);
            match have {
                None => imports.push(wanted.clone()),
                Some(have) if have.version() == wanted.version() => {}
                Some(have) => {
                    return Err(Reason::FunctionOpset {
                        function: function.name().to_owned(),
                        version: wanted.version(),
                        model: have.version(),
                    });
                }
            }
        }
    }
    Ok(())
}

struct Inliner<'a> {
    functions: BTreeMap<Key, &'a FunctionProto>,
    /// Every name of the model.
    names: BTreeSet<String>,
    /// Functions whose bodies are being put in.
    open: Vec<Key>,
    outcome: &'a mut Outcome,
}

impl Inliner<'_> {
    /// Number of operators after inlining.
    fn size_of(
        &self,
        nodes: &[NodeProto],
        depth: usize,
        sizes: &mut BTreeMap<Key, Option<u64>>,
    ) -> Result<u64, Reason> {
        if depth > DEEPEST {
            return Err(Reason::FunctionsTooDeep(DEEPEST));
        }
        let mut total = 0u64;
        for node in nodes {
            let key = key_of_call(node);
            let own = match (self.functions.get(&key), sizes.get(&key)) {
                (None, _) => 1,
                (Some(_), Some(Some(size))) => *size,
                (Some(_), Some(None)) => return Err(Reason::RecursiveFunction(key.1)),
                (Some(function), None) => {
                    sizes.insert(key.clone(), None);
                    let size = self.size_of(&function.node, depth + 1, sizes)?;
                    sizes.insert(key, Some(size));
                    size
                }
            };
            total = total.saturating_add(own);
            for graph in graphs_of(node) {
                total = total.saturating_add(self.size_of(&graph.node, depth, sizes)?);
            }
        }
        Ok(total)
    }

    fn graph(&mut self, graph: &mut GraphProto) -> Result<(), Reason> {
        let nodes = std::mem::take(&mut graph.node);
        graph.node = self.nodes(nodes)?;
        Ok(())
    }

    fn nodes(&mut self, nodes: Vec<NodeProto>) -> Result<Vec<NodeProto>, Reason> {
        let mut result = Vec::with_capacity(nodes.len());
        for mut node in nodes {
            for attribute in &mut node.attribute {
                let graphs = attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs);
                for graph in graphs {
                    self.graph(graph)?;
                }
            }
            match self.functions.get(&key_of_call(&node)).copied() {
                Some(function) => result.extend(self.call(&node, function)?),
                None => result.push(node),
            }
        }
        Ok(result)
    }

    /// The body of a function in place of one call.
    fn call(&mut self, call: &NodeProto, function: &FunctionProto) -> Result<Vec<NodeProto>, Reason> {
        let label = Some(call.name()).filter(|n| !n.is_empty()).or(call.output.first().map(String::as_str));
        let label = label.unwrap_or(function.name()).to_owned();
        if self.open.is_empty() {
            self.outcome.changed(&label, format!("{} put in place of the call", function.name()));
        }
        let key = key_of_function(function);
        if self.open.contains(&key) {
            return Err(Reason::RecursiveFunction(key.1));
        }
        let mut scope = Scope::default();
        for (i, name) in function.input.iter().enumerate() {
            let given = call.input.get(i).cloned().unwrap_or_default();
            scope.names.insert(name.clone(), given);
        }
        let mut aliases = Vec::new();
        for (name, wanted) in function.output.iter().zip(&call.output) {
            if wanted.is_empty() {
                continue;
            }
            // An output that is an input, or one that is put out twice, needs an operator of its own.
            match scope.names.get(name) {
                Some(given) => aliases.push(identity(given, wanted)),
                None => {
                    scope.names.insert(name.clone(), wanted.clone());
                }
            }
        }
        scope.attributes = attributes_of(call, function);
        let mut body = function.node.clone();
        self.rename(&mut body, &scope, &label);
        self.open.push(key);
        let mut body = self.nodes(body)?;
        self.open.pop();
        body.extend(aliases);
        Ok(body)
    }

    /// Puts a body's nodes into the names and attributes of a call.
    fn rename(&mut self, nodes: &mut [NodeProto], outer: &Scope, label: &str) {
        let mut scope = outer.clone();
        for name in nodes.iter().flat_map(|n| &n.output).filter(|n| !n.is_empty()) {
            if !scope.names.contains_key(name) {
                let fresh = self.fresh(&format!("{label}/{name}"));
                scope.names.insert(name.clone(), fresh);
            }
        }
        for node in nodes {
            for name in node.input.iter_mut().chain(&mut node.output) {
                scope.apply(name);
            }
            if !node.name().is_empty() {
                node.name = Some(self.fresh(&format!("{label}/{}", node.name())));
            }
            let attributes = std::mem::take(&mut node.attribute);
            node.attribute = attributes.into_iter().filter_map(|a| scope.resolve(a)).collect();
            for attribute in &mut node.attribute {
                let graphs = attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs);
                for graph in graphs {
                    self.rename_graph(graph, &scope, label);
                }
            }
        }
    }

    fn rename_graph(&mut self, graph: &mut GraphProto, outer: &Scope, label: &str) {
        let mut scope = outer.clone();
        let dense = graph.initializer.iter().filter_map(|t| t.name.clone());
        let sparse = graph.sparse_initializer.iter().filter_map(|t| t.values.as_ref()?.name.clone());
        let inputs = graph.input.iter().filter_map(|i| i.name.clone());
        for name in dense.chain(sparse).chain(inputs).collect::<BTreeSet<_>>() {
            let fresh = self.fresh(&format!("{label}/{name}"));
            scope.names.insert(name, fresh);
        }
        // Names that the graph defines itself hide those around it.
        for name in graph.node.iter().flat_map(|n| &n.output) {
            scope.names.remove(name);
        }
        let inner: BTreeSet<String> = graph.node.iter().flat_map(|n| n.output.clone()).collect();
        for name in inner.into_iter().filter(|n| !n.is_empty()) {
            let fresh = self.fresh(&format!("{label}/{name}"));
            scope.names.insert(name, fresh);
        }
        let sparse = graph.sparse_initializer.iter_mut().filter_map(|t| t.values.as_mut());
        let names = graph.initializer.iter_mut().chain(sparse).map(|t| &mut t.name);
        let infos = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
        for name in names.chain(infos.map(|i| &mut i.name)).flatten() {
            scope.apply(name);
        }
        self.rename(&mut graph.node, &scope, label);
    }

    fn fresh(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut count = 1;
        while !self.names.insert(name.clone()) {
            count += 1;
            name = format!("{wanted}_{count}");
        }
        name
    }
}

/// What the names in a body mean at a call.
#[derive(Clone, Default)]
struct Scope {
    names: BTreeMap<String, String>,
    attributes: BTreeMap<String, AttributeProto>,
}

impl Scope {
    fn apply(&self, name: &mut String) {
        if let Some(new) = self.names.get(name) {
            name.clone_from(new);
        }
    }

    /// An attribute of the body, with references replaced; `None` where the call leaves it out.
    fn resolve(&self, attribute: AttributeProto) -> Option<AttributeProto> {
        let Some(reference) = attribute.ref_attr_name.as_deref().filter(|r| !r.is_empty()) else {
            return Some(attribute);
        };
        let given = self.attributes.get(reference)?;
        Some(AttributeProto { name: attribute.name, ..given.clone() })
    }
}

/// The attributes of a call, completed by the function's defaults.
fn attributes_of(call: &NodeProto, function: &FunctionProto) -> BTreeMap<String, AttributeProto> {
    let all = function.attribute_proto.iter().chain(&call.attribute);
    all.map(|a| (a.name().to_owned(), a.clone())).collect()
}

fn identity(input: &str, output: &str) -> NodeProto {
    NodeProto {
        op_type: Some("Identity".to_owned()),
        input: vec![input.to_owned()],
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

fn plain_domain(domain: Option<&str>) -> &str {
    match domain {
        None | Some("ai.onnx") => "",
        Some(domain) => domain,
    }
}

fn key_of_call(node: &NodeProto) -> Key {
    let domain = plain_domain(node.domain.as_deref()).to_owned();
    (domain, node.op_type().to_owned(), node.overload().to_owned())
}

fn key_of_function(function: &FunctionProto) -> Key {
    let domain = plain_domain(function.domain.as_deref()).to_owned();
    (domain, function.name().to_owned(), function.overload().to_owned())
}

fn graphs_of(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|a| a.g.as_deref().into_iter().chain(&a.graphs))
}

fn domains_of_node(node: &NodeProto) -> BTreeSet<&str> {
    let inner = graphs_of(node).flat_map(domains_in_use);
    std::iter::once(plain_domain(node.domain.as_deref())).chain(inner).collect()
}

fn domains_in_use(graph: &GraphProto) -> BTreeSet<&str> {
    graph.node.iter().flat_map(domains_of_node).collect()
}

fn collect_names(graph: &GraphProto, names: &mut BTreeSet<String>) {
    let dense = graph.initializer.iter().filter_map(|t| t.name.clone());
    let sparse = graph.sparse_initializer.iter().filter_map(|t| t.values.as_ref()?.name.clone());
    names.extend(dense.chain(sparse));
    names.extend(graph.input.iter().filter_map(|i| i.name.clone()));
    for node in &graph.node {
        names.extend(node.output.iter().cloned());
        names.extend(node.name.clone());
        graphs_of(node).for_each(|inner| collect_names(inner, names));
    }
}
