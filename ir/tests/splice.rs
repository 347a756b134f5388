//! Splicing a model into another one.

mod common;

use bcosc_ir::onnx::proto::{
    FunctionProto, GraphProto, ModelProto, OperatorSetIdProto, TensorAnnotation,
};
use bcosc_ir::{DataType, Model, ModelBuilder, SurgeryError, Tensor};
use bcosc_testing::message::*;
use bcosc_testing::{body, value};
use common::*;

/// Splices a guest, and adds its outputs under its names.
fn splice(host: &mut Model, guest: &Model, bindings: &[(&str, &str)]) -> Result<(), SurgeryError> {
    let bindings: Vec<_> = bindings
        .iter()
        .map(|&(input, to)| (value(guest, input), value(host, to)))
        .collect();
    let found = host.splice(guest, &bindings)?;
    let mut outputs: Vec<_> = host
        .graph
        .outputs()
        .iter()
        .map(|o| (o.value, o.info.name().to_owned()))
        .collect();
    for (i, value) in found.into_iter().enumerate() {
        outputs.push((value, format!("out{i}")));
    }
    host.graph.set_outputs(&outputs);
    Ok(())
}

fn named(op: &str, input: &str, output: &str) -> ModelBuilder {
    ModelBuilder::new(20)
        .input(input, DataType::Float, "n,3")
        .param("w", Tensor::f32s(&[3], vec![1.0, 2.0, 3.0]))
        .op(op, &[input, "w"], output, [])
        .output_as(output, DataType::Float, "n,3")
}

#[test]
fn names_that_are_taken_are_changed() {
    let mut host = named("Add", "x", "y").finish().unwrap();
    let guest = named("Mul", "x", "y").finish().unwrap();
    splice(&mut host, &guest, &[("x", "y")]).unwrap();
    insta::assert_snapshot!(text(&host), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 20]
    >
    main (float[n,3] x) => (y, float[n,3] out0)
    <
       float[3] w = {1.0, 2.0, 3.0},
       float[3] w_2 = {1.0, 2.0, 3.0}
    >
    {
       y = Add (x, w)
       y_2 = Mul (y, w_2)
       [out0] out0 = Identity (y_2)
    }
    "#);
    // Once more, with the names of the first time taken too.
    splice(&mut host, &guest, &[("x", "x")]).unwrap();
    insta::assert_snapshot!(body(&host).join("\n"), @r#"
    y = Add (x, w)
    y_2 = Mul (y, w_2)
    [out0] "out0.before" = Identity (y_2)
    y_3 = Mul (x, w_3)
    [out0] out0 = Identity (y_3)
    "#);
}

#[test]
fn names_inside_of_subgraphs_are_changed_too() {
    let inner = || branch(vec![node("Sin", &["a"], &["mine"])], &["mine"]);
    let nested = if_node("cond", inner(), branch(vec![], &["a"]), "n");
    let graph = GraphProto {
        input: vec![info("cond"), info("x")],
        node: vec![
            node("Relu", &["x"], &["a"]),
            if_node("cond", inner(), branch(vec![nested], &["n"]), "y"),
        ],
        output: vec![info("y")],
        ..GraphProto::default()
    };
    let guest = Model::from_proto(model(graph)).unwrap();
    let mut host = guest.clone();
    splice(&mut host, &guest, &[("x", "a"), ("cond", "cond")]).unwrap();
    insta::assert_snapshot!(text(&host), @r#"
    <
       ir_version: 10,
       opset_import: []
    >
    "" (float cond, float x) => (y, float out0) {
       a = Relu (x)
       y = If (cond) <then_branch = branch () => (float mine) {
          mine = Sin (a)
       }, else_branch = branch () => (float n) {
          n = If (cond) <then_branch = branch () => (float mine) {
             mine = Sin (a)
          }, else_branch = branch () => (float a) {
          }>
       }>
       a_2 = Relu (a)
       y_2 = If (cond) <then_branch = branch () => (float mine_2) {
          mine_2 = Sin (a_2)
       }, else_branch = branch () => (float n_2) {
          n_2 = If (cond) <then_branch = branch () => (float mine_2) {
             mine_2 = Sin (a_2)
          }, else_branch = branch () => (float a_2) {
          }>
       }>
       [out0] out0 = Identity (y_2)
    }
    "#);
}

#[test]
fn outputs_that_are_inputs_or_constants() {
    let mut host = named("Add", "x", "y").finish().unwrap();
    let guest = ModelBuilder::new(20)
        .input("q", DataType::Float, "n,3")
        .param("k", Tensor::f32s(&[1], vec![4.0]))
        .output("q")
        .output("k")
        .finish()
        .unwrap();
    let found = host
        .splice(&guest, &[(value(&guest, "q"), value(&host, "y"))])
        .unwrap();
    assert_eq!(found, [value(&host, "y"), value(&host, "k")]);
}

#[test]
fn halves_make_the_whole() {
    let whole = chain();
    let (x, a, y) = (value(&whole, "x"), value(&whole, "a"), value(&whole, "y"));
    let mut typed = whole.clone();
    typed
        .graph
        .set_value_type(a, typed.graph.value_type(x).unwrap());
    let mut first = typed.extract(&[x], &[a]).unwrap();
    let second = typed.extract(&[a], &[y]).unwrap();
    let outputs = first
        .splice(&second, &[(value(&second, "a"), value(&first, "a"))])
        .unwrap();
    first.graph.set_outputs(&[(outputs[0], "y".to_owned())]);
    assert_eq!(text(&first), text(&whole));
    assert_eq!(first.to_proto(), whole.to_proto());
}

#[test]
fn a_default_is_a_constant_unless_it_is_bound() {
    let mut proto = named("Mul", "q", "p").proto();
    proto.graph.as_mut().unwrap().input.push(info("w"));
    let guest = Model::from_proto(proto).unwrap();
    let mut host = named("Add", "x", "y").finish().unwrap();
    let before = host.graph.inputs();
    splice(&mut host, &guest, &[("q", "y")]).unwrap();
    insta::assert_snapshot!(body(&host).join("\n"), @r"
    y = Add (x, w)
    p = Mul (y, w_2)
    [out0] out0 = Identity (p)
    ");
    assert_eq!(host.to_proto().graph.unwrap().input.len(), before.len());
    splice(&mut host, &guest, &[("q", "y"), ("w", "w")]).unwrap();
    let last = body(&host).pop().unwrap();
    assert!(last.contains("p_2"), "{last}");
    assert!(
        body(&host).contains(&"p_2 = Mul (y, w)".to_owned()),
        "{host}"
    );
}

#[test]
fn imports_functions_and_annotations_come_along() {
    let twice = |op: &str| FunctionProto {
        name: Some("Twice".to_owned()),
        domain: Some("com.acme".to_owned()),
        input: strings(&["x"]),
        output: strings(&["y"]),
        node: vec![node(op, &["x", "x"], &["y"])],
        opset_import: vec![OperatorSetIdProto {
            domain: None,
            version: Some(20),
        }],
        ..FunctionProto::default()
    };
    let guest = |op: &str| {
        let mut proto = ModelBuilder::new(20)
            .opset("com.acme", 2)
            .opset("com.unused", 7)
            .input("x", DataType::Float, "n,3")
            .op("com.acme::Twice", &["x"], "y", [])
            .output("y")
            .proto();
        proto.functions = vec![twice(op)];
        proto.ir_version = Some(11);
        let graph = proto.graph.as_mut().unwrap();
        graph.initializer = vec![tensor("scale", &[0.5])];
        graph.quantization_annotation = vec![TensorAnnotation {
            tensor_name: Some("y".to_owned()),
            quant_parameter_tensor_names: vec![entry("SCALE_TENSOR", "scale")],
        }];
        proto
    };
    let add = |proto: ModelProto| Model::from_proto(proto).unwrap();
    let mut host = named("Add", "x", "y").finish().unwrap();
    splice(&mut host, &add(guest("Add")), &[("x", "y")]).unwrap();
    assert_eq!(host.opset("com.acme"), Some(2));
    assert_eq!(host.opset("com.unused"), None);
    assert_eq!(host.ir_version(), 11);
    assert_eq!(host.functions(), [twice("Add")]);
    let graph = host.to_proto().graph.unwrap();
    let annotation = &graph.quantization_annotation[0];
    assert_eq!(annotation.tensor_name(), "y_2");
    assert_eq!(graph.initializer.len(), 2, "the scale came along");

    // Once more: one copy of the function.
    splice(&mut host, &add(guest("Add")), &[("x", "y")]).unwrap();
    assert_eq!(host.functions().len(), 1);
    let untouched = host.to_proto();
    let error = splice(&mut host, &add(guest("Mul")), &[("x", "y")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"com.acme::Twice\" is not the same function in both models"
    );
    // An operator here, a function there.
    let mut proto = guest("Add");
    proto.functions.clear();
    let error = splice(&mut host, &add(proto), &[("x", "y")]).unwrap_err();
    assert!(
        matches!(error, SurgeryError::FunctionsDiffer { .. }),
        "{error}"
    );
    assert_eq!(host.to_proto(), untouched);
}

#[test]
fn what_cannot_be_spliced_is_named() {
    let mut host = named("Add", "x", "y")
        .opset("com.acme", 1)
        .finish()
        .unwrap();
    let untouched = host.to_proto();
    let guest = |opset: i64, domain: &str| {
        ModelBuilder::new(opset)
            .opset("com.acme", 2)
            .input("p", DataType::Float, "n,3")
            .input("q", DataType::Int64, "n")
            .op(&format!("{domain}Mix"), &["p", "q"], "z", [])
            .output("z")
            .finish()
            .unwrap()
    };
    let pairs = [
        (guest(20, ""), vec![("p", "x")]),
        (guest(20, ""), vec![("p", "x"), ("q", "x")]),
        (guest(20, ""), vec![("p", "w")]),
        (guest(20, ""), vec![("p", "x"), ("p", "y")]),
        (guest(20, ""), vec![("z", "x")]),
    ];
    let mut messages: Vec<String> = pairs
        .iter()
        .map(|(guest, pairs)| splice(&mut host, guest, pairs).unwrap_err().to_string())
        .collect();
    let integer = ModelBuilder::new(20)
        .input("i", DataType::Int64, "n")
        .input("x", DataType::Float, "n,3")
        .op("Neg", &["x"], "y", [])
        .output("y");
    let mut other = integer.finish().unwrap();
    for guest in [guest(19, ""), guest(20, "com.acme::")] {
        let error = splice(&mut other, &guest, &[("p", "x"), ("q", "i")]);
        messages.extend(error.err().map(|e| e.to_string()));
        let mut host = named("Add", "x", "y").opset("com.acme", 1);
        host = host.input("i", DataType::Int64, "n");
        let error = splice(
            &mut host.finish().unwrap(),
            &guest,
            &[("p", "x"), ("q", "i")],
        );
        messages.push(error.unwrap_err().to_string());
    }
    insta::assert_snapshot!(messages.join("\n"), @r#"
    the input "q" of the spliced model is not bound
    the input "q" takes a int64[n], but is bound to a float[n,3]
    the input "p" takes a float[n,3], but is bound to a float[3]
    input "p" is given twice
    "z" is not an input of the graph
    the models use versions 20 and 19 of the operator set ""
    the models use versions 20 and 19 of the operator set ""
    the models use versions 1 and 2 of the operator set "com.acme"
    "#);
    assert_eq!(host.to_proto(), untouched);
}
