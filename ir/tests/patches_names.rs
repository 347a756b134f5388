//! Names under patches: outputs of the graph, captured values, new nodes and where they come from.

mod common;

use bcosc_ir::onnx::proto::GraphProto;
use bcosc_ir::{Model, ORIGIN, Patch, PatchError, Tensor, TextOptions, Use};
use bcosc_testing::message::*;
use bcosc_testing::{body, input, op, value};
use common::*;

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
    assert_eq!(
        model.graph.value_type(output.value).unwrap().to_string(),
        "float[n,3]"
    );
}

#[test]
fn a_new_value_is_named_after_one_that_goes() {
    let graph = |second: &str| {
        input(20, "n")
            .param("w", Tensor::f32s(&[1], vec![1.0]))
            .op("Neg", &["w"], "v", [])
            .op("Add", &["x", "v"], "a", [])
            .op("Add", &["a", second], "b", [])
            .output("b")
            .finish()
            .unwrap()
    };
    for (second, expected) in [("v", ["w", "w"]), ("w", ["w.neg", "w"])] {
        let mut model = graph(second);
        let (v, w) = (value(&model, "v"), value(&model, "w"));
        let mut patch = Patch::at(v.node);
        let folded = patch.parameter("value", Tensor::f32s(&[1], vec![-1.0]));
        patch.replace(v, folded);
        patch.name_after(folded, w, "neg");
        apply(&mut model, patch);
        let [first, second] = expected;
        let lines = [
            format!("a = Add (x, {first})"),
            format!("b = Add (a, {second})"),
        ];
        let lines = lines.map(|line| line.replace("w.neg", "\"w.neg\""));
        assert_eq!(body(&model), lines);
    }
}

#[test]
fn an_output_passes_through_identity_where_a_name_is_fixed() {
    // An input, a parameter, and a value that is an output already.
    let mut model = input(20, "n")
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
    let mut model = input(20, "n")
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
    let mut model = input(20, "n").output("x").finish().unwrap();
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
