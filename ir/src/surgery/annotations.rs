//! Quantisation annotations of what changes graphs.

use std::collections::BTreeSet;

use bcosc_onnx::proto::TensorAnnotation;

use crate::{Graph, NodeId, Value};

/// Annotations of what is in the part; the constants that they name join it.
pub(super) fn kept(
    graph: &Graph,
    cut: &BTreeSet<Value>,
    nodes: &mut BTreeSet<NodeId>,
) -> Vec<TensorAnnotation> {
    let mut kept = graph.frame.quantization_annotation.clone();
    kept.retain(|annotation| {
        let Some(value) = graph.value_named(annotation.tensor_name()) else {
            return false;
        };
        if !nodes.contains(&value.node) && !cut.contains(&value) {
            return false;
        }
        let named: Option<Vec<Value>> = constants(annotation)
            .map(|name| graph.value_named(&name))
            .collect();
        let there = |v: &Value| {
            let cut = cut.contains(v);
            !cut && (nodes.contains(&v.node) || graph.node(v.node).as_parameter().is_some())
        };
        let named = named.filter(|named| named.iter().all(there));
        nodes.extend(named.iter().flatten().map(|v| v.node));
        named.is_some()
    });
    kept
}

/// Names of the constants that an annotation refers to.
pub(super) fn constants(annotation: &TensorAnnotation) -> impl Iterator<Item = String> {
    let named = annotation.quant_parameter_tensor_names.iter();
    named.filter_map(|entry| entry.value.clone())
}
