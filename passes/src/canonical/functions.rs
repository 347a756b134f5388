//! `inline-functions`: replaces calls of local functions by their bodies.
//!
//! Exporters wrap parts of a network in local functions (`ModelProto.functions`).
//! Later passes see operators only.
//!
//! ```text
//! y = local.Double (x)      with Double (a) => (b) { b = Add (a, a) }
//! y = Add (x, x)
//! ```
//!
//! The pass works on ONNX messages: calls may be in branches and loop bodies, and bodies may contain graphs
//! that capture the function's values, so everything is resolved by name.

mod scope;

use std::collections::{BTreeMap, BTreeSet};

use bcosc_ir::Model;
use bcosc_ir::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
};

use crate::{Context, Effect, Outcome, Pass, PassError, Reason};
use scope::{Names, Scope, graphs_of, graphs_of_attribute};

/// Maximum number of operators after inlining: functions that call each other twice grow exponentially.
const MOST_OPERATORS: u64 = 1_000_000;

/// Maximum depth of calls.
const DEEPEST: usize = 200;

/// The pass.
pub static INLINE_FUNCTIONS: Pass = Pass {
    name: "inline-functions",
    summary: "inline the local functions of the model",
    effect: Effect::Exact,
    requires: &[],
    run,
};

fn run(model: &mut Model, _: &Context<'_>) -> Result<Outcome, PassError> {
    let mut outcome = Outcome::default();
    if model.functions().is_empty() {
        return Ok(outcome);
    }
    let mut proto = model.to_proto();
    inline(&mut proto, &mut outcome).map_err(PassError::Model)?;
    *model = model
        .read_anew(proto)
        .map_err(|e| PassError::Model(Reason::NotAGraph(e.to_string())))?;
    Ok(outcome)
}

/// Domain, name and overload.
type Key = (String, String, String);

fn inline(model: &mut ModelProto, outcome: &mut Outcome) -> Result<(), Reason> {
    let functions = std::mem::take(&mut model.functions);
    let mut inliner = Inliner {
        functions: functions.iter().map(|f| (key_of_function(f), f)).collect(),
        names: Names::default(),
        depth: 0,
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
    inliner.names = Names::of(graph);
    inliner.graph(graph);
    let called = functions
        .iter()
        .filter(|f| sizes.contains_key(&key_of_function(f)));
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

/// Adds the operator sets that bodies import to the model. ONNX allows different versions if no used operator
/// changed; this is not checked here, so versions must be equal.
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
            let have = imports
                .iter()
                .find(|i| plain_domain(i.domain.as_deref()) == domain);
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
    names: Names,
    /// Current depth of calls.
    depth: usize,
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

    fn graph(&mut self, graph: &mut GraphProto) {
        let nodes = std::mem::take(&mut graph.node);
        graph.node = self.nodes(nodes);
    }

    fn nodes(&mut self, nodes: Vec<NodeProto>) -> Vec<NodeProto> {
        let mut result = Vec::with_capacity(nodes.len());
        for mut node in nodes {
            for graph in node.attribute.iter_mut().flat_map(graphs_of_attribute) {
                self.graph(graph);
            }
            match self.functions.get(&key_of_call(&node)).copied() {
                Some(function) => result.extend(self.call(&node, function)),
                None => result.push(node),
            }
        }
        result
    }

    /// The nodes that replace one call.
    fn call(&mut self, call: &NodeProto, function: &FunctionProto) -> Vec<NodeProto> {
        let label = Some(call.name())
            .filter(|n| !n.is_empty())
            .or(call.output.first().map(String::as_str));
        let label = label.unwrap_or(function.name()).to_owned();
        if self.depth == 0 {
            self.outcome
                .changed(&label, format!("call of {} inlined", function.name()));
        }
        let mut scope = Scope::default();
        for (i, name) in function.input.iter().enumerate() {
            let given = call.input.get(i).cloned().unwrap_or_default();
            scope.values.insert(name.clone(), given);
        }
        let mut aliases = Vec::new();
        for (name, wanted) in function.output.iter().zip(&call.output) {
            if wanted.is_empty() {
                continue;
            }
            // An output that is an input, or is listed twice, needs an operator of its own.
            match scope.values.get(name) {
                Some(given) => aliases.push(identity(given, wanted)),
                None => {
                    scope.values.insert(name.clone(), wanted.clone());
                }
            }
        }
        scope.attributes = attributes_of(call, function);
        let mut body = function.node.clone();
        scope.rename(&mut body, &mut self.names, &label);
        self.depth += 1;
        let mut body = self.nodes(body);
        self.depth -= 1;
        body.extend(aliases);
        body
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
    (
        domain,
        node.op_type().to_owned(),
        node.overload().to_owned(),
    )
}

fn key_of_function(function: &FunctionProto) -> Key {
    let domain = plain_domain(function.domain.as_deref()).to_owned();
    (
        domain,
        function.name().to_owned(),
        function.overload().to_owned(),
    )
}

fn domains_of_node(node: &NodeProto) -> BTreeSet<&str> {
    let inner = graphs_of(node).flat_map(domains_in_use);
    std::iter::once(plain_domain(node.domain.as_deref()))
        .chain(inner)
        .collect()
}

fn domains_in_use(graph: &GraphProto) -> BTreeSet<&str> {
    graph.node.iter().flat_map(domains_of_node).collect()
}

#[cfg(test)]
mod tests;
