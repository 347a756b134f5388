//! What patches do to a graph.

mod common;

use bcosc_ir::onnx::proto::GraphProto;
use bcosc_ir::{
    Attribute, DataType, Dim, Graph, Model, ModelBuilder, ORIGIN, Op, Operand, Patch, PatchError,
    Tensor, TensorType, TextOptions, Use, Value,
};
use common::*;

/// `a = Relu(x); b = Neg(a); y = Exp(b)`.
fn chain() -> Model {
    let builder = ModelBuilder::new(20)
        .input("x", DataType::Float, "n,3")
        .op("Relu", &["x"], "a", [])
        .op("Neg", &["a"], "b", [])
        .op("Exp", &["b"], "y", []);
    builder
        .output_as("y", DataType::Float, "n,3")
        .finish()
        .unwrap()
}

fn apply(model: &mut Model, patch: Patch) -> Vec<String> {
    model.graph.apply(patch).unwrap();
    let again = Model::from_proto(model.to_proto()).expect("a patched model is valid");
    assert_eq!(again.to_proto(), model.to_proto());
    body(model)
}

/// A patch at the producer of `old` that replaces it by `op` of `operands`.
fn replacing(model: &Model, old: &str, op: &str, operands: &[&str]) -> Patch {
    let old = value(model, old);
    let mut patch = Patch::at(old.node);
    let operands: Vec<Operand> = operands.iter().map(|o| value(model, o).into()).collect();
    let new = patch.op(Op::new("", op), &operands);
    patch.replace(old, new);
    patch
}

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
    let new = value(&model, "a.abs");
    assert_eq!(model.graph.stands_for(new), Some("a"));
    assert_eq!(model.graph.stands_for(value(&model, "a")), None);
}

#[test]
fn outputs_of_the_graph_keep_their_names() {
    let mut model = chain();
    let patch = replacing(&model, "y", "Abs", &["y"]);
    assert_eq!(
        apply(&mut model, patch)[2..],
        [
            "\"y.before\" = Exp (b)",
            "[\"y.abs\"] y = Abs (\"y.before\")  # from y"
        ]
    );
    let output = &model.graph.outputs()[0];
    assert_eq!(model.graph.value_name(output.value), "y");
    assert_eq!(model.graph.stands_for(output.value), Some("y"));
    assert_eq!(
        model.graph.value_type(output.value).unwrap().to_string(),
        "float[n,3]"
    );
}

#[test]
fn an_output_passes_through_identity_where_a_name_is_fixed() {
    // An input, a parameter, and a value that is an output already.
    let mut model = ModelBuilder::new(20)
        .input("x", DataType::Float, "n")
        .param("w", Tensor::f32s(&[1], vec![1.0]))
        .op("Add", &["x", "w"], "a", [])
        .op("Add", &["x", "w"], "b", [])
        .op("Add", &["x", "w"], "c", [])
        .op("Add", &["x", "w"], "d", [])
        .output("a")
        .output("b")
        .output("c")
        .output("d")
        .finish()
        .unwrap();
    for (old, new) in [("a", "x"), ("b", "w"), ("c", "d")] {
        let (old, new) = (value(&model, old), value(&model, new));
        let mut patch = Patch::at(old.node);
        patch.replace(old, new);
        apply(&mut model, patch);
    }
    assert_eq!(
        body(&model),
        [
            "[\"w.identity\"] b = Identity (w)  # from b",
            "[\"x.identity\"] a = Identity (x)  # from a",
            "d = Add (x, w)",
            "[\"d.identity\"] c = Identity (d)  # from c"
        ]
    );
}

#[test]
fn an_original_value_can_become_an_output() {
    let mut model = chain();
    let mut patch = Patch::at(op(&model, "y"));
    patch.replace(value(&model, "y"), value(&model, "b"));
    assert_eq!(apply(&mut model, patch), ["a = Relu (x)", "y = Neg (a)"]);
}

#[test]
fn two_outputs_of_one_name_move_together() {
    let mut model = ModelBuilder::new(20)
        .input("x", DataType::Float, "n")
        .op("Relu", &["x"], "y", [])
        .output("y")
        .output("y")
        .finish()
        .unwrap();
    let patch = replacing(&model, "y", "Abs", &["x"]);
    assert_eq!(
        apply(&mut model, patch),
        ["[\"y.abs\"] y = Abs (x)  # from y"]
    );
    assert_eq!(
        model.graph.outputs()[0].value,
        model.graph.outputs()[1].value
    );
}

#[test]
fn an_output_that_is_an_input_cannot_be_replaced() {
    let mut model = ModelBuilder::new(20)
        .input("x", DataType::Float, "n")
        .output("x")
        .finish()
        .unwrap();
    let patch = replacing(&model, "x", "Abs", &["x"]);
    let error = model.graph.apply(patch).unwrap_err();
    assert!(
        matches!(&error, PatchError::FixedName { value, .. } if value == "x"),
        "{error}"
    );
}

/// An `If` whose branches read `a`; the first also has a value `mine` of its own.
fn capturing() -> Model {
    let inner = branch(vec![node("Sin", &["a"], &["mine"])], &["mine"]);
    let nested = if_node("cond", branch(vec![], &["a"]), branch(vec![], &["a"]), "n");
    let graph = GraphProto {
        input: vec![info("cond"), info("x")],
        node: vec![
            node("Relu", &["x"], &["a"]),
            if_node("cond", inner, branch(vec![nested], &["n"]), "y"),
        ],
        output: vec![info("y")],
        ..GraphProto::default()
    };
    Model::from_proto(model(graph)).unwrap()
}

#[test]
fn subgraphs_read_the_new_name_of_a_captured_value() {
    let mut model = capturing();
    assert_eq!(
        model.graph.uses(value(&model, "a")),
        [Use::Capture {
            node: op(&model, "y"),
            label: 0
        }]
    );
    let patch = replacing(&model, "a", "Abs", &["x"]);
    let text = apply(&mut model, patch).join("\n");
    assert!(text.contains("mine = Sin (\"a.abs\")"), "{text}");
    assert_eq!(text.matches("() => (float \"a.abs\")").count(), 2, "{text}");
    assert!(!text.contains("Relu"), "{text}");
}

#[test]
fn a_captured_value_does_not_run_into_a_name_of_the_subgraph() {
    // The replacement is called as a value of the branch is: the branch would read its own.
    let shadowing = |text: &str| {
        let inner = branch(vec![node("Sin", &["a"], &["mine"])], &["mine"]);
        let other = branch(vec![], &["a"]);
        let graph = GraphProto {
            input: vec![info("cond"), info("x")],
            node: vec![
                node("Relu", &["x"], &["a"]),
                node("Abs", &["x"], &["mine"]),
                if_node("cond", inner, other, "y"),
            ],
            output: vec![info("y"), info(text)],
            ..GraphProto::default()
        };
        Model::from_proto(model(graph)).unwrap()
    };
    let mut model = shadowing("mine");
    let mut patch = Patch::at(op(&model, "a"));
    patch.replace(value(&model, "a"), value(&model, "mine"));
    let text = apply(&mut model, patch).join("\n");
    assert!(
        text.contains("\"mine.identity\" = Identity (mine)"),
        "{text}"
    );
    assert!(text.contains("mine = Sin (\"mine.identity\")"), "{text}");

    // And it cannot take over an output's name that the branch uses.
    let mut model = shadowing("mine");
    let mut patch = Patch::at(op(&model, "mine"));
    patch.replace(value(&model, "mine"), value(&model, "a"));
    let text = apply(&mut model, patch).join("\n");
    assert!(text.contains("mine = Identity (a)"), "{text}");
    assert!(text.contains("mine = Sin (a)"), "{text}");
}

#[test]
fn a_copy_of_an_operator_with_subgraphs_captures_the_same() {
    let mut model = capturing();
    let y = value(&model, "y");
    let copied = model.graph.op(y.node).unwrap().clone();
    let mut patch = Patch::at(y.node);
    let copy = patch.op(copied.clone(), &[value(&model, "cond").into()]);
    patch.replace(y, copy);
    let text = apply(&mut model, patch).join("\n");
    assert!(text.contains("mine = Sin (a)"), "{text}");
    assert!(text.starts_with("a = Relu (x)"), "{text}");

    let mut patch = Patch::at(op(&model, "a"));
    patch.op(copied, &[value(&model, "cond").into()]);
    let error = model.graph.apply(patch).unwrap_err();
    assert!(
        matches!(&error, PatchError::UnknownCapture { value, .. } if value == "a"),
        "{error}"
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
    let (b, y) = (value(&model, "b"), value(&model, "y"));
    let patch = replacing(&model, "b", "Abs", &["x"]);
    apply(&mut model, patch);
    // The new node lives where the old one did.
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
        "the patch at a changes x, which is no operator"
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
    assert_eq!(model.graph.stands_for(y), None);
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

#[test]
fn names_are_unique_and_origins_go_back_to_the_model() {
    let mut model = chain();
    for _ in 0..3 {
        let patch = replacing(&model, "b", "Abs", &["b"]);
        apply(&mut model, patch);
    }
    let names: Vec<String> = model
        .graph
        .ops()
        .into_iter()
        .map(|id| model.graph.value_name(model.graph.output(id, 0)).to_owned())
        .collect();
    assert_eq!(names, ["a", "b", "b.abs_3", "b.abs_2", "b.abs", "y"]);

    // What is made from a new node still comes from the original one.
    let patch = replacing(&model, "b.abs", "Sqrt", &["b.abs"]);
    apply(&mut model, patch);
    let sqrt = op(&model, "b.abs.sqrt");
    assert_eq!(model.graph.op(sqrt).unwrap().metadata(ORIGIN), Some("b"));
    let latest = model.graph.stands_for(value(&model, "b.abs_3"));
    assert_eq!(
        latest,
        Some("b"),
        "the last replacement stands for the original"
    );
}

#[test]
fn origins_of_an_earlier_run_are_not_ours() {
    let mut first = chain();
    let patch = replacing(&first, "b", "Abs", &["b"]);
    apply(&mut first, patch);
    let mut second = Model::from_proto(first.to_proto()).unwrap();
    let patch = replacing(&second, "b.abs", "Sqrt", &["b.abs"]);
    apply(&mut second, patch);
    let sqrt = value(&second, "b.abs.sqrt");
    assert_eq!(second.graph.stands_for(sqrt), Some("b.abs"));
    let origin = second.graph.op(sqrt.node).unwrap().metadata(ORIGIN);
    assert_eq!(origin, Some("b.abs"));
}

#[test]
fn names_of_subgraphs_are_not_given_again() {
    let inner = branch(vec![node("Sin", &["a"], &["a.abs"])], &["a.abs"]);
    let graph = GraphProto {
        input: vec![info("x")],
        node: vec![
            node("Relu", &["x"], &["a"]),
            if_node("x", inner.clone(), inner, "y"),
        ],
        output: vec![info("y")],
        ..GraphProto::default()
    };
    let mut model = Model::from_proto(model(graph)).unwrap();
    let patch = replacing(&model, "a", "Abs", &["x"]);
    let text = apply(&mut model, patch).join("\n");
    assert!(text.contains("\"a.abs\" = Sin (\"a.abs_2\")"), "{text}");
}

#[test]
fn the_same_patches_give_the_same_text() {
    let run = || {
        let mut model = capturing();
        let patch = replacing(&model, "a", "Abs", &["x"]);
        apply(&mut model, patch);
        let patch = replacing(&model, "y", "Neg", &["y"]);
        apply(&mut model, patch);
        model.to_text(TextOptions { full: true })
    };
    assert_eq!(run(), run());
}

#[test]
fn declared_outputs_can_change() {
    let mut model = chain();
    let (a, b) = (value(&model, "a"), value(&model, "b"));
    let outputs = [
        (a, "a".to_owned()),
        (b, "y".to_owned()),
        (a, "again".to_owned()),
    ];
    model.graph.set_outputs(&outputs);
    model.graph.remove_dead();
    assert_eq!(
        body(&model),
        [
            "a = Relu (x)",
            "[again] again = Identity (a)",
            "b = Neg (a)",
            "[y] y = Identity (b)"
        ]
    );
    assert!(Model::from_proto(model.to_proto()).is_ok());
}
