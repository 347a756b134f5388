//! A training step in the form of the ONNX standard: `TrainingInfoProto`.
//!
//! The model is the inference graph, with the parameters and statistics as initializers. Its `training_info` has the step as
//! `algorithm`: the standard joins the two graphs, so the algorithm reads the images and these initializers from the
//! inference graph by name, and everything else in it has names of its own. State of the optimizer is an initializer of the
//! algorithm. `update_binding` pairs each initializer with the output that has its next value.

use std::collections::{BTreeMap, BTreeSet};

use bcosc_autodiff::training::{State, StateKind};
use bcosc_ir::Model;
use bcosc_onnx::proto::{
    GraphProto, ModelProto, StringStringEntryProto, TensorProto, TrainingInfoProto, ValueInfoProto,
};

/// What names of the algorithm begin with, so that they differ from those of the inference graph.
const PREFIX: &str = "training/";

/// The model with its step.
pub(super) fn model(forward: &Model, step: &Model, state: &[State]) -> ModelProto {
    let mut model = forward.to_proto();
    let step = step.to_proto();
    let mut algorithm = step.graph.map(|graph| *graph).unwrap_or_default();
    let of_model: BTreeSet<&str> = state
        .iter()
        .filter(|state| matches!(state.kind, StateKind::Parameter | StateKind::Statistic))
        .map(|state| state.input.as_str())
        .collect();
    let graph = model.graph.as_deref();
    let shared = |name: &str| {
        let inputs = graph
            .map(|graph| graph.input.as_slice())
            .unwrap_or_default();
        of_model.contains(name) || inputs.iter().any(|input| input.name() == name)
    };
    let is_state: BTreeSet<&str> = state.iter().map(|state| state.input.as_str()).collect();
    algorithm
        .input
        .retain(|input| !shared(input.name()) && !is_state.contains(input.name()));
    let inputs: BTreeSet<String> = algorithm
        .input
        .iter()
        .map(|i| i.name().to_owned())
        .collect();
    for state in state
        .iter()
        .filter(|state| !of_model.contains(state.input.as_str()))
    {
        algorithm.initializer.push(TensorProto {
            name: Some(state.input.clone()),
            ..state.initial.clone().into_proto()
        });
    }
    let names = own_names(&algorithm)
        .into_iter()
        .filter(|name| !inputs.contains(name))
        .map(|name| {
            let own = format!("{PREFIX}{name}");
            (name, own)
        });
    let names: BTreeMap<String, String> = names.collect();
    rename(&mut algorithm, &names);
    algorithm.name = Some("training".to_owned());
    let renamed = |name: &str| names.get(name).cloned().unwrap_or_else(|| name.to_owned());
    let bindings = state.iter().map(|state| StringStringEntryProto {
        key: Some(renamed(&state.input)),
        value: Some(renamed(&state.output)),
    });
    let update_binding = bindings.collect();
    for opset in step.opset_import {
        if !model
            .opset_import
            .iter()
            .any(|known| known.domain == opset.domain)
        {
            model.opset_import.push(opset);
        }
    }
    model.training_info = vec![TrainingInfoProto {
        algorithm: Some(Box::new(algorithm)),
        update_binding,
        ..TrainingInfoProto::default()
    }];
    model
}

/// The names that a graph defines, but for its inputs.
fn own_names(graph: &GraphProto) -> BTreeSet<String> {
    let nodes = graph
        .node
        .iter()
        .flat_map(|node| node.output.iter().cloned());
    let constants = graph
        .initializer
        .iter()
        .filter_map(|tensor| tensor.name.clone());
    let sparse = graph.sparse_initializer.iter();
    let sparse = sparse.filter_map(|tensor| tensor.values.as_ref()?.name.clone());
    nodes
        .chain(constants)
        .chain(sparse)
        .filter(|name| !name.is_empty())
        .collect()
}

/// Gives values other names, in subgraphs too; names that subgraphs define themselves stay.
fn rename(graph: &mut GraphProto, names: &BTreeMap<String, String>) {
    let change = |name: &mut String| {
        if let Some(new) = names.get(name) {
            new.clone_into(name);
        }
    };
    let change_info = |info: &mut ValueInfoProto| {
        info.name.iter_mut().for_each(change);
    };
    for node in &mut graph.node {
        node.input
            .iter_mut()
            .chain(&mut node.output)
            .for_each(change);
        node.name = node.name.take().map(|name| format!("{PREFIX}{name}"));
        for attribute in &mut node.attribute {
            let inner = attribute.g.as_deref_mut().into_iter();
            for inner in inner.chain(&mut attribute.graphs) {
                let defined = own_names(inner);
                let mut names = names.clone();
                names.retain(|name, _| !defined.contains(name));
                rename(inner, &names);
            }
        }
    }
    graph.initializer.iter_mut().for_each(|tensor| {
        tensor.name.iter_mut().for_each(change);
    });
    for tensor in &mut graph.sparse_initializer {
        let name = tensor
            .values
            .as_mut()
            .and_then(|values| values.name.as_mut());
        name.into_iter().for_each(change);
    }
    graph.output.iter_mut().for_each(change_info);
    graph.value_info.iter_mut().for_each(change_info);
}
