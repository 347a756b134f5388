use bcosc_ir::{Attribute, DataType, ModelBuilder};
use bcosc_testing::message;

use super::*;
use crate::testing::{apply, assert_same_function, model, text, try_pass};

const LOCAL: &str = "local";

fn node(domain: &str, op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let node = NodeProto {
        domain: Some(domain.to_owned()),
        ..message::node(op, inputs, outputs)
    };
    message::named(&format!("{op}_of_{}", inputs.join("_")), node)
}

fn attribute(name: &str, value: f32) -> AttributeProto {
    Attribute::float(name, value).proto().clone()
}

fn reference(name: &str, to: &str) -> AttributeProto {
    let ref_attr_name = Some(to.to_owned());
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(1),
        ref_attr_name,
        ..AttributeProto::default()
    }
}

fn function(name: &str, inputs: &[&str], outputs: &[&str], nodes: Vec<NodeProto>) -> FunctionProto {
    let import = |domain: &str, version| OperatorSetIdProto {
        domain: Some(domain.to_owned()),
        version: Some(version),
    };
    FunctionProto {
        name: Some(name.to_owned()),
        domain: Some(LOCAL.to_owned()),
        input: message::strings(inputs),
        output: message::strings(outputs),
        node: nodes,
        opset_import: vec![import("", 20), import(LOCAL, 1)],
        ..FunctionProto::default()
    }
}

fn calling(nodes: Vec<NodeProto>, functions: Vec<FunctionProto>) -> Model {
    let start = ModelBuilder::new(20)
        .opset(LOCAL, 1)
        .input("x", DataType::Float, "batch,3");
    let builder = nodes.into_iter().fold(start, ModelBuilder::node);
    let mut model = model(builder.output_as("y", DataType::Float, "batch,3"));
    model.set_functions(functions);
    model
}

/// `Leak` calls the operator with its own slope; `Twice` calls `Leak` twice through a local value.
fn leaks() -> Vec<FunctionProto> {
    let leaky = NodeProto {
        attribute: vec![reference("alpha", "slope")],
        ..node("", "LeakyRelu", &["a"], &["b"])
    };
    let leak = FunctionProto {
        attribute_proto: vec![attribute("slope", 0.25)],
        ..function("Leak", &["a"], &["b"], vec![leaky])
    };
    let first = node(LOCAL, "Leak", &["a"], &["t"]);
    let second = NodeProto {
        attribute: vec![attribute("slope", 0.5)],
        ..node(LOCAL, "Leak", &["t"], &["b"])
    };
    vec![leak, function("Twice", &["a"], &["b"], vec![first, second])]
}

#[test]
fn calls_in_calls_become_operators() {
    let mut after = calling(vec![node(LOCAL, "Twice", &["x"], &["y"])], leaks());
    apply(&INLINE_FUNCTIONS, &mut after);
    let slope = |alpha| [bcosc_ir::Attribute::float("alpha", alpha)];
    let expected = ModelBuilder::new(20)
        .input("x", DataType::Float, "batch,3")
        .op("LeakyRelu", &["x"], "t", slope(0.25))
        .op("LeakyRelu", &["t"], "y", slope(0.5))
        .output_as("y", DataType::Float, "batch,3");
    assert_same_function(&model(expected), &after, 0.0);
    insta::assert_snapshot!(text(&after), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 20]
    >
    main (float[batch,3] x) => (float[batch,3] y) {
       ["Twice_of_x/Leak_of_a/LeakyRelu_of_a"] "Twice_of_x/t" = LeakyRelu <alpha = 0.25> (x)
       ["Twice_of_x/Leak_of_t/LeakyRelu_of_a"] y = LeakyRelu <alpha = 0.5> ("Twice_of_x/t")
    }
    "#);
}

#[test]
fn graphs_in_a_body_see_the_names_of_the_call() {
    let branch = |op: &str| GraphProto {
        name: Some(op.to_owned()),
        ..message::untyped(message::branch(vec![node("", op, &["a"], &["r"])], &["r"]))
    };
    let choose = NodeProto {
        name: Some("If_of_c".to_owned()),
        ..message::if_node("c", branch("Abs"), branch("Neg"), "b")
    };
    let condition = NodeProto {
        attribute: vec![Attribute::int("to", 9).proto().clone()],
        ..node("", "Cast", &["n"], &["c"])
    };
    let body = vec![node("", "Size", &["a"], &["n"]), condition, choose];
    let mut after = calling(
        vec![
            node(LOCAL, "Choose", &["x"], &["t"]),
            node(LOCAL, "Choose", &["t"], &["y"]),
        ],
        vec![function("Choose", &["a"], &["b"], body)],
    );
    apply(&INLINE_FUNCTIONS, &mut after);
    insta::assert_snapshot!(text(&after), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 20]
    >
    main (float[batch,3] x) => (float[batch,3] y) {
       ["Choose_of_x/Size_of_a"] "Choose_of_x/n" = Size (x)
       ["Choose_of_x/Cast_of_n"] "Choose_of_x/c" = Cast <to = 9> ("Choose_of_x/n")
       ["Choose_of_x/If_of_c"] t = If ("Choose_of_x/c") <then_branch = Abs () => ("Choose_of_x/r") {
          ["Choose_of_x/Abs_of_a"] "Choose_of_x/r" = Abs (x)
       }, else_branch = Neg () => ("Choose_of_x/r_2") {
          ["Choose_of_x/Neg_of_a"] "Choose_of_x/r_2" = Neg (x)
       }>
       ["Choose_of_t/Size_of_a"] "Choose_of_t/n" = Size (t)
       ["Choose_of_t/Cast_of_n"] "Choose_of_t/c" = Cast <to = 9> ("Choose_of_t/n")
       ["Choose_of_t/If_of_c"] y = If ("Choose_of_t/c") <then_branch = Abs () => ("Choose_of_t/r") {
          ["Choose_of_t/Abs_of_a"] "Choose_of_t/r" = Abs (t)
       }, else_branch = Neg () => ("Choose_of_t/r_2") {
          ["Choose_of_t/Neg_of_a"] "Choose_of_t/r_2" = Neg (t)
       }>
    }
    "#);
}

#[test]
fn outputs_that_are_inputs_get_an_operator() {
    let both = function(
        "Both",
        &["a"],
        &["a", "b"],
        vec![node("", "Relu", &["a"], &["b"])],
    );
    let call = node(LOCAL, "Both", &["x"], &["same", "r"]);
    let mut after = calling(
        vec![call, node("", "Add", &["same", "r"], &["y"])],
        vec![both],
    );
    apply(&INLINE_FUNCTIONS, &mut after);
    let expected = ModelBuilder::new(20)
        .input("x", DataType::Float, "batch,3")
        .op("Relu", &["x"], "r", [])
        .op("Add", &["x", "r"], "y", [])
        .output_as("y", DataType::Float, "batch,3");
    assert_same_function(&model(expected), &after, 0.0);
    assert_eq!(after.opset(LOCAL), None);
}

fn refused(functions: Vec<FunctionProto>) -> Reason {
    let mut model = calling(vec![node(LOCAL, "F", &["x"], &["y"])], functions);
    match try_pass(&INLINE_FUNCTIONS, &mut model) {
        Err(PassError::Model(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_function_that_calls_itself_is_refused() {
    let call = |name: &str, other: &str| {
        function(
            name,
            &["a"],
            &["b"],
            vec![node(LOCAL, other, &["a"], &["b"])],
        )
    };
    assert_eq!(
        refused(vec![call("F", "G"), call("G", "F")]),
        Reason::RecursiveFunction("F".to_owned())
    );
}

#[test]
fn functions_that_grow_without_end_are_refused() {
    let double = |i: usize| {
        let callee = format!("F{}", i + 1);
        let calls = vec![
            node(LOCAL, &callee, &["a"], &["t"]),
            node(LOCAL, &callee, &["t"], &["b"]),
        ];
        let name = if i == 0 {
            "F".to_owned()
        } else {
            format!("F{i}")
        };
        function(&name, &["a"], &["b"], calls)
    };
    let last = function(
        "F40",
        &["a"],
        &["b"],
        vec![node("", "Relu", &["a"], &["b"])],
    );
    let functions = (0..40).map(double).chain([last]).collect();
    assert_eq!(refused(functions), Reason::FunctionsTooLarge(1 << 40));
}

#[test]
fn a_function_for_another_opset_is_refused() {
    let mut old = function("F", &["a"], &["b"], vec![node("", "Relu", &["a"], &["b"])]);
    old.opset_import[0].version = Some(12);
    let reason = Reason::FunctionOpset {
        function: "F".to_owned(),
        version: 12,
        model: 20,
    };
    assert_eq!(refused(vec![old]), reason);
}
