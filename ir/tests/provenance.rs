//! Which value of the original a value stands for.

mod common;

use std::sync::Arc;

use bcosc_ir::{DataType, Dim, Model, Op, Operand, Patch, TensorType};
use bcosc_testing::message::node;
use bcosc_testing::{input, op, value};
use common::*;

fn stands_for(model: &Model, name: &str) -> Vec<String> {
    let found = model.graph.stands_for(value(model, name));
    found.iter().map(|name| name.to_string()).collect()
}

/// The name of what stands for a value of the original.
fn standing(model: &Model, original: &str) -> Option<String> {
    let found = model.graph.standing_for(original)?;
    Some(model.graph.value_name(found).to_owned())
}

#[test]
fn what_is_read_stands_for_itself() {
    let model = chain();
    for name in ["x", "a", "b", "y"] {
        assert_eq!(stands_for(&model, name), [name]);
        assert_eq!(standing(&model, name).as_deref(), Some(name));
    }
    assert_eq!(standing(&model, "z"), None);
}

#[test]
fn what_is_put_behind_a_value_takes_its_place() {
    let mut model = chain();
    for _ in 0..2 {
        let patch = replacing(&model, "a", "Abs", &["a"]);
        apply(&mut model, patch);
        assert!(stands_for(&model, "a").is_empty());
        assert_eq!(standing(&model, "a").as_deref(), Some("a.abs"));
    }
    // The second is between the two, where the original has nothing.
    assert!(stands_for(&model, "a.abs_2").is_empty());
}

#[test]
fn a_value_can_stand_for_several() {
    let mut model = chain();
    let mut patch = Patch::at(op(&model, "b"));
    patch.replace(value(&model, "b"), value(&model, "a"));
    apply(&mut model, patch);
    assert_eq!(stands_for(&model, "a"), ["a", "b"]);
    let found = model.graph.provenance();
    let names: Vec<&str> = found.keys().map(|name| &**name).collect();
    assert_eq!(names, ["a", "b", "x", "y"]);
    for (name, value) in found {
        assert_eq!(model.graph.standing_for(&name), Some(value));
    }
}

#[test]
fn an_output_of_the_graph_keeps_name_and_place() {
    let mut model = chain();
    let patch = replacing(&model, "y", "Abs", &["y"]);
    apply(&mut model, patch);
    assert_eq!(stands_for(&model, "y"), ["y"]);
    assert!(stands_for(&model, "y.before").is_empty());
}

#[test]
fn another_quantity_stands_for_nothing() {
    let mut model = chain();
    let b = value(&model, "b");
    let mut patch = Patch::at(b.node);
    patch.forget(value(&model, "a"));
    patch.replace(b, value(&model, "a"));
    apply(&mut model, patch);
    assert_eq!(stands_for(&model, "a"), ["b"]);
    assert_eq!(standing(&model, "a"), None);

    let mut patch = Patch::at(op(&model, "a"));
    let new: Operand = patch.op(Op::new("", "Shape"), &[value(&model, "x").into()]);
    patch.replace_retyped(value(&model, "a"), new);
    apply(&mut model, patch);
    assert!(stands_for(&model, "a.shape").is_empty());

    let x = value(&model, "x");
    let shape = Some(vec![Dim::Known(6)]);
    model.graph.retype_input(
        x,
        TensorType {
            dtype: DataType::Float,
            shape,
        },
    );
    assert!(stands_for(&model, "x").is_empty());
}

#[test]
fn a_changed_message_keeps_what_keeps_its_name() {
    let mut model = chain();
    let patch = replacing(&model, "a", "Abs", &["a"]);
    apply(&mut model, patch);
    let mut proto = model.to_proto();
    let graph = proto.graph.as_mut().unwrap();
    graph.node.push(node("Sin", &["a"], &["new"]));
    let again = model.read_anew(proto.clone()).unwrap();
    assert_eq!(stands_for(&again, "a.abs"), ["a"]);
    assert!(stands_for(&again, "a").is_empty());
    assert!(stands_for(&again, "new").is_empty());
    let other = Model::from_proto(proto).unwrap();
    assert_eq!(stands_for(&other, "new"), ["new"]);
}

#[test]
fn a_graph_can_be_made_the_original() {
    let mut model = chain();
    let patch = replacing(&model, "a", "Abs", &["a"]);
    apply(&mut model, patch);
    model.graph.mark_original();
    assert_eq!(stands_for(&model, "a.abs"), ["a.abs"]);
    assert_eq!(stands_for(&model, "a"), ["a"]);
}

#[test]
fn surgery_keeps_what_values_stand_for() {
    let mut model = chain();
    let patch = replacing(&model, "a", "Abs", &["a"]);
    apply(&mut model, patch);
    let [x, cut, y] = ["x", "a.abs", "y"].map(|name| value(&model, name));
    let part = model.extract(&[x], &[cut]).unwrap();
    assert_eq!(stands_for(&part, "a.abs"), ["a"]);
    assert!(stands_for(&part, "a").is_empty());
    let float = TensorType {
        dtype: DataType::Float,
        shape: None,
    };
    model.graph.set_value_type(cut, float);
    let rest = model.extract(&[cut], &[y]).unwrap();
    assert_eq!(stands_for(&rest, "a.abs"), ["a"]);

    // Names change, and what they stand for does not.
    let builder = input(20, "n,3");
    let builder = builder.op("Sin", &["x"], "b", []).output("b");
    let mut host = builder.finish().unwrap();
    let bindings = [(value(&rest, "a.abs"), value(&host, "x"))];
    let found = host.splice(&rest, &bindings).unwrap();
    assert_eq!(*host.graph.stands_for(found[0]), [Arc::from("y")]);
    assert_eq!(stands_for(&host, "b_2"), ["b"]);
    assert_eq!(
        host.graph.standing_for("b"),
        Some(value(&host, "b")),
        "the first of two"
    );
}
