//! Values that depend on parameters alone, computed by running the part of the graph that makes
//! them.

use std::collections::{BTreeMap, BTreeSet};

use bcosc_ir::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use bcosc_ir::{Facts, Model, Node, NodeId, Tensor, Tensors, Value};

use crate::{Context, Outcome, PassError, Reason};

/// Results are computed this many bytes at a time, so that what is in the air stays small.
const BATCH: u64 = 32 << 20;

/// Computes constant values. What cannot be computed is missing and recorded as skipped.
pub(super) fn values(
    model: &Model,
    cx: &Context<'_>,
    facts: &Facts,
    wanted: &[Value],
    outcome: &mut Outcome,
) -> Result<BTreeMap<Value, Tensor>, PassError> {
    let mut found = BTreeMap::new();
    let wanted: Vec<Value> = wanted
        .iter()
        .copied()
        .filter(|v| model.graph.contains(v.node))
        .collect();
    if wanted.is_empty() {
        return Ok(found);
    }
    let source = Source::of(model);
    for batch in batches(model, &wanted) {
        let part = source.part(model, facts, &batch);
        let part = Model::from_proto(part)
            .map_err(|e| PassError::Model(Reason::NotAGraph(e.to_string())))?;
        let mut results = match cx.interpreter.run(&part, &Tensors::new()) {
            Ok(results) => results,
            Err(error) => {
                for value in batch {
                    let reason = Reason::NotEvaluated(error.to_string());
                    outcome.skipped(model.graph.label(value.node), reason);
                }
                continue;
            }
        };
        for value in batch {
            match results.remove(model.graph.value_name(value)) {
                Some(tensor) if has_type(model, value, &tensor) => {
                    found.insert(value, tensor);
                }
                _ => {
                    let reason = Reason::NotEvaluated(
                        "the result is of another type than expected".to_owned(),
                    );
                    outcome.skipped(model.graph.label(value.node), reason);
                }
            }
        }
    }
    Ok(found)
}

fn has_type(model: &Model, value: Value, tensor: &Tensor) -> bool {
    let expected = model.graph.value_type(value);
    expected.is_none_or(|t| {
        t.dtype == tensor.dtype() && t.known_shape().is_none_or(|dims| dims == tensor.dims())
    })
}

fn batches(model: &Model, wanted: &[Value]) -> Vec<Vec<Value>> {
    let mut batches: Vec<Vec<Value>> = Vec::new();
    let mut room = 0u64;
    for &value in wanted {
        let found = model.graph.value_type(value);
        let count = found
            .as_ref()
            .and_then(|t| t.known_shape())
            .map(|dims| dims.iter().product());
        let bytes = found
            .zip(count)
            .and_then(|(t, count)| t.dtype.byte_len(count))
            .unwrap_or(BATCH);
        match batches.last_mut() {
            Some(batch) if bytes <= room => batch.push(value),
            _ => {
                batches.push(vec![value]);
                room = BATCH;
            }
        }
        room = room.saturating_sub(bytes);
    }
    batches
}

/// The parts of a model's message by name.
struct Source {
    header: ModelProto,
    nodes: BTreeMap<String, NodeProto>,
    parameters: BTreeMap<String, TensorProto>,
}

impl Source {
    fn of(model: &Model) -> Self {
        let mut header = model.to_proto();
        let graph = header.graph.take().map(|g| *g).unwrap_or_default();
        let nodes = graph.node.into_iter().filter_map(|node| {
            let name = node.output.iter().find(|name| !name.is_empty())?;
            Some((name.clone(), node))
        });
        let parameters = graph
            .initializer
            .into_iter()
            .map(|t| (t.name().to_owned(), t));
        Source {
            nodes: nodes.collect(),
            parameters: parameters.collect(),
            header,
        }
    }

    /// The model that computes some values and nothing else. What is known already comes in as it
    /// is, so that a weight of which only the shape counts stays out.
    fn part(&self, model: &Model, facts: &Facts, wanted: &[Value]) -> ModelProto {
        let graph = &model.graph;
        let mut cone: BTreeSet<NodeId> = wanted.iter().map(|v| v.node).collect();
        let mut queue: Vec<NodeId> = cone.iter().copied().collect();
        let mut known = BTreeMap::new();
        while let Some(node) = queue.pop() {
            for operand in graph.inputs_of(node).into_iter().flatten() {
                let name = graph.value_name(operand);
                if let Some(tensor) = facts.constants.get(name) {
                    known.insert(name, tensor);
                } else if cone.insert(operand.node) {
                    queue.push(operand.node);
                }
            }
        }
        let mut part = GraphProto {
            name: Some("constants".to_owned()),
            ..GraphProto::default()
        };
        for id in graph.nodes().into_iter().filter(|id| cone.contains(id)) {
            let outputs = (0..graph.output_count(id)).map(|slot| graph.output(id, slot));
            let mut names = outputs
                .map(|value| graph.value_name(value))
                .filter(|name| !name.is_empty());
            let Some(name) = names.next() else { continue };
            for also in names.chain([name]) {
                // The operator makes it anew for its other outputs.
                known.remove(also);
            }
            match graph.node(id) {
                Node::Op(_) => part.node.extend(self.nodes.get(name).cloned()),
                _ => part.initializer.extend(self.parameters.get(name).cloned()),
            }
        }
        part.initializer
            .extend(known.into_iter().map(|(name, tensor)| {
                let name = Some(name.to_owned());
                TensorProto {
                    name,
                    ..tensor.proto().clone()
                }
            }));
        part.output = wanted
            .iter()
            .map(|&value| {
                let name = graph.value_name(value);
                let untyped = || ValueInfoProto {
                    name: Some(name.to_owned()),
                    ..ValueInfoProto::default()
                };
                graph
                    .value_type(value)
                    .map_or_else(untyped, |t| t.to_value_info(name))
            })
            .collect();
        ModelProto {
            graph: Some(Box::new(part)),
            ..self.header.clone()
        }
    }
}
