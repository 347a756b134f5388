//! Common subexpression elimination.
//!
//! ```text
//! a = Mul (x, c), b = Mul (x, c)     b = a
//! c = {1.0}, d = {1.0}               d = c
//! ```

use std::collections::{BTreeMap, BTreeSet};

use bcosc_ir::{Graph, Model, NodeId, Op, Patch, Value};

use crate::PassError;

/// Constants of up to this many bytes are compared; larger ones are weights.
const SMALL: u64 = 1 << 12;

/// Replaces nodes by equal earlier nodes. Nodes in `kept` stay, but may replace others.
pub fn share(model: &mut Model, kept: &BTreeSet<NodeId>, anchor: NodeId) -> Result<(), PassError> {
    let graph = &model.graph;
    let mut patch = Patch::at(anchor);
    let mut firsts: BTreeMap<Value, Value> = BTreeMap::new();
    let mut constants = BTreeMap::new();
    let mut nodes: BTreeMap<Terms, Vec<NodeId>> = BTreeMap::new();
    let outputs: BTreeSet<Value> = graph.outputs().iter().map(|o| o.value).collect();
    for node in graph.nodes() {
        let first = match graph.op(node) {
            Some(op) => {
                let alike = nodes.entry(terms(graph, node, op, &firsts)).or_default();
                let same = |other: &&NodeId| {
                    graph
                        .op(**other)
                        .is_some_and(|other| same_attributes(op, other))
                };
                let first = alike.iter().find(same).copied();
                if first.is_none() {
                    alike.push(node);
                }
                first
            }
            None => {
                contents(graph, node).map(|contents| *constants.entry(contents).or_insert(node))
            }
        };
        let Some(first) = first.filter(|&first| first != node && !kept.contains(&node)) else {
            continue;
        };
        let pairs = (0..graph.output_count(node))
            .map(|slot| (graph.output(node, slot), graph.output(first, slot)));
        let pairs: Vec<(Value, Value)> = pairs.collect();
        if pairs.iter().any(|(old, _)| outputs.contains(old)) {
            continue;
        }
        for (old, new) in pairs {
            patch.replace(old, new);
            firsts.insert(old, new);
        }
    }
    model.graph.apply(patch)?;
    Ok(())
}

/// An operator with its attributes and operands.
type Terms = (String, u32, Vec<Option<Value>>);

fn terms(graph: &Graph, node: NodeId, op: &Op, firsts: &BTreeMap<Value, Value>) -> Terms {
    let first = |value: Value| firsts.get(&value).copied().unwrap_or(value);
    let operands = graph.inputs_of(node).into_iter();
    let operands = operands.map(|operand| operand.map(first)).collect();
    (op.kind(), graph.output_count(node), operands)
}

fn same_attributes(a: &Op, b: &Op) -> bool {
    let plain = a.subgraphs().next().is_none() && b.subgraphs().next().is_none();
    let (a, b) = (a.attributes(), b.attributes());
    let in_b = |attribute: &bcosc_ir::Attribute| {
        let other = b.iter().find(|other| other.name() == attribute.name());
        other.is_some_and(|other| other.proto() == attribute.proto())
    };
    plain && a.len() == b.len() && a.iter().all(in_b)
}

/// Type, sizes and bytes of a small constant.
fn contents(graph: &Graph, node: NodeId) -> Option<(i32, Vec<u64>, Vec<u8>)> {
    let tensor = graph.constant(graph.output(node, 0))?;
    if tensor.byte_len() > SMALL {
        return None;
    }
    let bytes = tensor.bytes().ok()?.to_vec();
    Some((tensor.dtype().to_i32(), tensor.dims(), bytes))
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{Attribute, DataType, ModelBuilder, Tensor};

    use super::*;
    use crate::testing::{assert_same_function, model, text};

    fn four() -> Model {
        let axis = |axis| [Attribute::int("axis", axis)];
        let builder = ModelBuilder::new(18)
            .input("x", DataType::Float, "batch,4")
            .param("a", Tensor::f32s(&[], vec![2.0]))
            .param("b", Tensor::f32s(&[], vec![2.0]))
            .op("Mul", &["x", "a"], "m", [])
            .op("Mul", &["x", "b"], "n", [])
            .op("Softmax", &["m"], "p", axis(1))
            .op("Softmax", &["n"], "q", axis(1))
            .op("Softmax", &["n"], "r", axis(0))
            .op("Sum", &["p", "q", "r"], "s", []);
        model(builder.output("s"))
    }

    #[test]
    fn what_is_alike_is_computed_once() {
        let before = four();
        let mut after = before.clone();
        let anchor = after.graph.inputs()[0].node;
        let result = share(&mut after, &BTreeSet::new(), anchor);
        assert!(result.is_ok(), "{result:?}");
        assert_same_function(&before, &after, 1e-6);
        insta::assert_snapshot!(text(&after), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 18]
        >
        main (float[batch,4] x) => (s)
        <
           float a = {2.0}
        >
        {
           m = Mul (x, a)
           p = Softmax <axis = 1> (m)
           r = Softmax <axis = 0> (m)
           s = Sum (p, p, r)
        }
        "#);
    }

    #[test]
    fn outputs_keep_their_names() {
        let mut after = four();
        let n = after.graph.value_named("n").unwrap();
        after.graph.set_outputs(&[(n, "n".to_owned())]);
        let anchor = after.graph.inputs()[0].node;
        assert!(share(&mut after, &BTreeSet::new(), anchor).is_ok());
        assert_eq!(after.graph.value_name(after.graph.outputs()[0].value), "n");
    }

    #[test]
    fn what_is_kept_stays() {
        let before = four();
        let mut after = before.clone();
        let kept = before.graph.nodes().into_iter().collect();
        let anchor = after.graph.inputs()[0].node;
        let result = share(&mut after, &kept, anchor);
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(text(&before), text(&after));
    }
}
