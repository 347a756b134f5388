//! Patches on a small graph, and random graphs.

#![allow(dead_code)] // each test file uses its own part

use bcosc_ir::{DataType, Model, ModelBuilder, NodeId, Op, Operand, Patch, Value};
use bcosc_testing::{body, input, value};
use proptest::sample::Index;

/// `a = Relu(x); b = Neg(a); y = Exp(b)`.
pub fn chain() -> Model {
    let builder = input(20, "n,3")
        .op("Relu", &["x"], "a", [])
        .op("Neg", &["a"], "b", [])
        .op("Exp", &["b"], "y", []);
    builder
        .output_as("y", DataType::Float, "n,3")
        .finish()
        .unwrap()
}

/// The text of a model that can be written and read again.
pub fn text(model: &Model) -> String {
    let again = Model::from_proto(model.to_proto()).expect("the result is a model");
    assert_eq!(again.to_proto(), model.to_proto());
    bcosc_testing::text(model)
}

pub fn apply(model: &mut Model, patch: Patch) -> Vec<String> {
    model.graph.apply(patch).unwrap();
    text(model);
    body(model)
}

/// A patch at the producer of `old` that replaces it by `op` of `operands`.
pub fn replacing(model: &Model, old: &str, op: &str, operands: &[&str]) -> Patch {
    let old = value(model, old);
    let mut patch = Patch::at(old.node);
    let operands: Vec<Operand> = operands.iter().map(|o| value(model, o).into()).collect();
    let new = patch.op(Op::new("", op), &operands);
    patch.replace(old, new);
    patch
}

/// Operators `Mix` of earlier values, `x` and `w` among them, and the names of what they put out. An
/// operator is its operands, as places in the list of values so far, and its number of outputs.
pub fn mixed(mut builder: ModelBuilder, ops: &[(Vec<Index>, u8)]) -> (ModelBuilder, Vec<String>) {
    let mut names = vec!["x".to_owned(), "w".to_owned()];
    for (i, (operands, count)) in ops.iter().enumerate() {
        let operands: Vec<&str> = operands
            .iter()
            .map(|o| names[o.index(names.len())].as_str())
            .collect();
        let outputs: Vec<String> = (0..*count).map(|slot| format!("v{i}_{slot}")).collect();
        builder = builder.op("Mix", &operands, &outputs.join(","), []);
        names.extend(outputs);
    }
    (builder, names.split_off(2))
}

/// All values, in an order in which each depends on earlier ones only.
pub fn all_values(model: &Model) -> Vec<Value> {
    let graph = &model.graph;
    let of = |id: NodeId| (0..graph.output_count(id)).map(move |slot| graph.output(id, slot));
    graph.nodes().into_iter().flat_map(of).collect()
}
