//! What patches do to a graph.

mod common;

use bcosc_ir::onnx::proto::GraphProto;
use bcosc_ir::{
    Attribute, DataType, Dim, Graph, Model, Op, Operand, Patch, PatchError, Tensor, TensorType,
    Value,
};
use bcosc_testing::message::*;
use bcosc_testing::{body, op, value};
use common::*;

#[test]
fn replace_removes_what_nobody_uses_any_more() {
    let mut model = chain();
    let patch = replacing(&model, "b", "Abs", &["x"]);
    let lines = apply(&mut model, patch);
    assert_eq!(
        lines,
        [
            "[\"b.abs\"] \"b.abs\" = Abs (x)  # from b",
            "y = Exp (\"b.abs\")"
        ]
    );
}

#[test]
fn insert_after_reads_what_it_replaces() {
    let mut model = chain();
    let patch = replacing(&model, "a", "Abs", &["a"]);
    assert_eq!(
        apply(&mut model, patch),
        [
            "a = Relu (x)",
            "[\"a.abs\"] \"a.abs\" = Abs (a)  # from a",
            "b = Neg (\"a.abs\")",
            "y = Exp (b)"
        ]
    );
}

#[test]
fn operands_can_be_added_left_out_and_trimmed() {
    let mut model = chain();
    let (a, b) = (value(&model, "a"), value(&model, "b"));
    let mut set = |slot, new: Option<Value>| {
        let mut patch = Patch::at(b.node);
        patch.set_input(b.node, slot, new.map(Operand::from));
        apply(&mut model, patch)[1].clone()
    };
    assert_eq!(set(3, Some(a)), "b = Neg (a, \"\", \"\", a)");
    assert_eq!(set(1, Some(a)), "b = Neg (a, a, \"\", a)");
    assert_eq!(set(3, None), "b = Neg (a, a)");
    assert_eq!(set(0, None), "b = Neg (\"\", a)");
}

#[test]
fn an_operand_that_is_dropped_goes_with_its_producer() {
    let mut model = chain();
    let y = op(&model, "y");
    let mut patch = Patch::at(y);
    let w = patch.parameter("weight", Tensor::f32s(&[1], vec![2.0]));
    patch.set_input(y, 0, Some(w));
    patch.set_attribute(y, Attribute::int("axis", 1));
    assert_eq!(
        apply(&mut model, patch),
        ["y = Exp <axis = 1> (\"y.weight\")"]
    );
    let mut patch = Patch::at(y);
    patch.unset_attribute(y, "axis");
    assert_eq!(apply(&mut model, patch), ["y = Exp (\"y.weight\")"]);
}

#[test]
fn several_outputs_and_left_out_inputs() {
    let mut model = chain();
    let b = value(&model, "b");
    let mut patch = Patch::at(b.node);
    let split = Op::new("com.acme", "Split").named("halves");
    let Operand::New { node, .. } = patch.multi_op(split, &[None, Some(b.into())], 2) else {
        panic!("a new operator is a new operand");
    };
    patch.replace(b, Operand::New { node, slot: 1 });
    let lines = apply(&mut model, patch);
    assert_eq!(
        lines[2..],
        [
            "[\"b.halves\"] \"b.halves\", \"b.halves.1\" = com.acme.Split (\"\", b)  # from b",
            "y = Exp (\"b.halves.1\")"
        ]
    );
}

#[test]
fn new_nodes_that_nothing_uses_are_gone_unless_kept() {
    let mut model = chain();
    let before = body(&model);
    let mut patch = Patch::at(op(&model, "a"));
    patch.op(Op::new("", "Abs"), &[value(&model, "a").into()]);
    assert_eq!(apply(&mut model, patch), before);
    let mut patch = Patch::at(op(&model, "a"));
    let kept = patch.op(Op::new("", "Abs"), &[value(&model, "a").into()]);
    patch.keep(kept);
    assert_eq!(apply(&mut model, patch).len(), before.len() + 1);
    assert_eq!(model.graph.remove_dead(), 1);
    assert_eq!(body(&model), before);
}

#[test]
fn dead_code_goes_and_what_is_referred_to_by_name_stays() {
    let annotated = bcosc_ir::onnx::proto::TensorAnnotation {
        tensor_name: Some("y".to_owned()),
        quant_parameter_tensor_names: vec![entry("SCALE_TENSOR", "scale")],
    };
    let graph = GraphProto {
        input: vec![info("x"), info("default")],
        initializer: vec![
            tensor("default", &[1.0]),
            tensor("scale", &[1.0]),
            tensor("unused", &[1.0]),
        ],
        node: vec![
            node("Relu", &["x"], &["y"]),
            node("Relu", &["unused"], &["z"]),
            node("Relu", &["z"], &["zz"]),
        ],
        output: vec![info("y")],
        quantization_annotation: vec![annotated],
        ..GraphProto::default()
    };
    let mut model = Model::from_proto(model(graph)).unwrap();
    assert_eq!(model.graph.remove_dead(), 3);
    let left = model.to_proto().graph.unwrap();
    let names: Vec<_> = left
        .initializer
        .iter()
        .filter_map(|t| t.name.clone())
        .collect();
    assert_eq!(names, ["default", "scale"]);
    assert_eq!(left.node.len(), 1);
}

#[test]
fn a_node_that_was_removed_is_not_taken_for_a_new_one() {
    let mut model = chain();
    let b = value(&model, "b");
    let patch = replacing(&model, "b", "Abs", &["x"]);
    apply(&mut model, patch);
    // The next new nodes get the places that the removed ones had.
    for _ in 0..2 {
        let patch = replacing(&model, "y", "Neg", &["y"]);
        apply(&mut model, patch);
    }
    let y = value(&model, "y");
    assert!(!model.graph.contains(b.node));
    let stale = |patch: Patch, graph: &Graph| {
        let error = graph.clone().apply(patch).unwrap_err();
        assert!(matches!(error, PatchError::StaleNode { .. }), "{error}");
    };
    stale(Patch::at(b.node), &model.graph);
    let mut patch = Patch::at(y.node);
    patch.op(Op::new("", "Abs"), &[b.into()]);
    stale(patch, &model.graph);
    let mut patch = Patch::at(y.node);
    patch.replace(b, y);
    stale(patch, &model.graph);
    let mut patch = Patch::at(y.node);
    patch.set_attribute(b.node, Attribute::int("axis", 1));
    stale(patch, &model.graph);
    let mut patch = Patch::at(y.node);
    patch.set_input(y.node, 0, Some(Operand::New { node: 7, slot: 0 }));
    stale(patch, &model.graph);
    let mut patch = Patch::at(y.node);
    patch.replace(Value { slot: 9, ..y }, y);
    stale(patch, &model.graph);
}

#[test]
fn only_operators_take_operands() {
    let mut model = chain();
    let x = value(&model, "x");
    let mut patch = Patch::at(op(&model, "a"));
    patch.set_input(x.node, 0, Some(x.into()));
    let error = model.graph.apply(patch).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the patch at a changes x, which is not an operator"
    );
}

#[test]
fn a_replacement_has_the_type_of_what_it_replaces() {
    let fixed = |dtype, dims: &[u64]| TensorType::fixed(dtype, dims);
    let attempt = |new: TensorType, retyped: bool| {
        let mut model = chain();
        let y = value(&model, "y");
        let mut patch = Patch::at(y.node);
        let operand = patch.op(Op::new("", "Abs"), &[value(&model, "b").into()]);
        patch.typed(operand, new);
        match retyped {
            true => patch.replace_retyped(y, operand),
            false => patch.replace(y, operand),
        }
        model.graph.apply(patch).map(|_| model)
    };
    for wrong in [
        fixed(DataType::Double, &[1, 3]),
        fixed(DataType::Float, &[3]),
    ] {
        let error = attempt(wrong, false).unwrap_err();
        assert!(matches!(error, PatchError::TypeChanged { .. }), "{error}");
    }
    assert!(attempt(fixed(DataType::Float, &[1, 3]), false).is_ok());
    let error = attempt(fixed(DataType::Int64, &[2]), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the patch at y replaces \"y\" (float[n,3]) by a int64[2]"
    );

    let model = attempt(fixed(DataType::Int64, &[2]), true).unwrap();
    let y = value(&model, "y");
    assert_eq!(model.graph.value_type(y).unwrap().to_string(), "int64[2]");
    assert!(model.graph.stands_for(y).is_empty());
    let declared = &model.to_proto().graph.unwrap().output[0];
    let declared = TensorType::from_proto(declared.r#type.as_deref().unwrap());
    assert_eq!(declared, Some(fixed(DataType::Int64, &[2])));
}

#[test]
fn a_replacement_learns_the_type_of_what_it_replaces() {
    let mut model = chain();
    let b = value(&model, "b");
    let shape = Some(vec![Dim::Symbol("n".to_owned()), Dim::Known(3)]);
    model.graph.set_value_type(
        b,
        TensorType {
            dtype: DataType::Float,
            shape,
        },
    );
    let patch = replacing(&model, "b", "Abs", &["x"]);
    apply(&mut model, patch);
    let new = model.graph.value_type(value(&model, "b.abs")).unwrap();
    assert_eq!(new.to_string(), "float[n,3]");
}

#[test]
#[cfg(debug_assertions)]
fn a_cycle_is_noticed() {
    let mut model = chain();
    let (a, y) = (value(&model, "a"), value(&model, "y"));
    let mut patch = Patch::at(a.node);
    patch.set_input(a.node, 0, Some(y.into()));
    let error = model.graph.apply(patch).unwrap_err();
    assert!(matches!(error, PatchError::Cycle { .. }), "{error}");
}
