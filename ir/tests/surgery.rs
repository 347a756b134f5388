//! Surgery on graphs: extracted parts, constants as inputs, inputs as constants.

mod common;

use bcosc_ir::onnx::proto::{
    FunctionProto, GraphProto, NodeProto, OperatorSetIdProto, TensorAnnotation,
};
use bcosc_ir::{DataType, Model, ModelBuilder, SurgeryError, Tensor, Value};
use bcosc_testing::message::*;
use bcosc_testing::value;
use common::*;

fn values(model: &Model, names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| value(model, name)).collect()
}

fn extract(model: &Model, inputs: &[&str], outputs: &[&str]) -> Result<Model, SurgeryError> {
    model.extract(&values(model, inputs), &values(model, outputs))
}

/// `a = x * w; b, c = Split(a); d = b + w; y = Exp(d + c)`.
fn forked() -> Model {
    ModelBuilder::new(20)
        .opset("com.acme", 3)
        .metadata("author", "someone")
        .input("x", DataType::Float, "n,4")
        .input("unused", DataType::Float, "")
        .param("w", Tensor::f32s(&[1, 4], vec![0.5; 4]))
        .param("v", Tensor::f32s(&[1, 2], vec![0.25; 2]))
        .op("Mul", &["x", "w"], "a", [])
        .value("a", DataType::Float, "n,4")
        .op("Split", &["a"], "b,c", [])
        .value("b", DataType::Float, "n,2")
        .value("c", DataType::Float, "n,2")
        .op("Add", &["b", "v"], "d", [])
        .op("Add", &["d", "c"], "e", [])
        .op("Exp", &["e"], "y", [])
        .output_as("y", DataType::Float, "n,2")
        .finish()
        .unwrap()
}

#[test]
fn a_part_is_a_model_of_its_own() {
    let part = extract(&forked(), &["a"], &["y", "d"]).unwrap();
    insta::assert_snapshot!(text(&part), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 20, "com.acme" : 3],
       metadata_props: ["author": "someone"]
    >
    main (float[n,4] a) => (float[n,2] y, d)
    <
       float[1,2] v = {0.25, 0.25},
       float[n,2] b,
       float[n,2] c
    >
    {
       b, c = Split (a)
       d = Add (b, v)
       e = Add (d, c)
       y = Exp (e)
    }
    "#);
    let named = |found: Vec<Value>| -> Vec<String> {
        let names = found
            .into_iter()
            .map(|v| part.graph.value_name(v).to_owned());
        names.collect()
    };
    assert_eq!(named(part.graph.inputs()), ["a"]);
    assert_eq!(
        named(part.graph.outputs().iter().map(|o| o.value).collect()),
        ["y", "d"]
    );
    assert_eq!(part.metadata("author"), Some("someone"));
    assert_eq!(part.opset("com.acme"), Some(3));
}

#[test]
fn the_first_half_keeps_the_inputs_that_are_asked_for() {
    let part = extract(&forked(), &["x", "unused"], &["c"]).unwrap();
    insta::assert_snapshot!(text(&part), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 20, "com.acme" : 3],
       metadata_props: ["author": "someone"]
    >
    main (float[n,4] x, float unused) => (float[n,2] c)
    <
       float[1,4] w = {0.5, 0.5, 0.5, 0.5},
       float[n,4] a,
       float[n,2] b,
       float[n,2] c
    >
    {
       a = Mul (x, w)
       b, c = Split (a)
    }
    "#);
}

#[test]
fn an_output_that_is_cut_off_and_one_that_is_needed() {
    // The input `b` comes from outside, and `c` still from `Split`.
    let part = extract(&forked(), &["b", "x"], &["y"]).unwrap();
    insta::assert_snapshot!(text(&part), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 20, "com.acme" : 3],
       metadata_props: ["author": "someone"]
    >
    main (float[n,2] b, float[n,4] x) => (float[n,2] y)
    <
       float[1,4] w = {0.5, 0.5, 0.5, 0.5},
       float[1,2] v = {0.25, 0.25},
       float[n,4] a,
       float[n,2] c
    >
    {
       a = Mul (x, w)
       "b.anew", c = Split (a)
       d = Add (b, v)
       e = Add (d, c)
       y = Exp (e)
    }
    "#);
    let (b, anew) = (value(&part, "b"), value(&part, "b.anew"));
    assert_eq!(part.graph.stands_for(b).len(), 1);
    assert!(part.graph.stands_for(anew).is_empty());
}

#[test]
fn a_value_can_be_input_and_output_at_once() {
    let part = extract(&forked(), &["w", "a"], &["a", "w", "v"]).unwrap();
    insta::assert_snapshot!(text(&part), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 20, "com.acme" : 3],
       metadata_props: ["author": "someone"]
    >
    main (float[1,4] w, float[n,4] a) => (float[n,4] a, float[1,4] w, float[1,2] v)
    <
       float[1,2] v = {0.25, 0.25}
    >
    {
    }
    "#);
}

#[test]
fn weights_are_shared_with_the_whole() {
    let model = forked();
    let part = extract(&model, &["a"], &["y"]).unwrap();
    let data = |model: &Model| {
        let tensor = model.graph.constant(value(model, "v")).unwrap();
        std::ptr::from_ref(tensor.proto())
    };
    assert_eq!(data(&part), data(&model));
}

#[test]
fn subgraphs_bring_along_what_they_capture() {
    let inner = branch(vec![node("Sin", &["a"], &["mine"])], &["mine"]);
    let nested = if_node("cond", branch(vec![], &["p"]), branch(vec![], &["a"]), "n");
    let graph = GraphProto {
        input: vec![info("cond"), info("x")],
        initializer: vec![tensor("p", &[1.0]), tensor("q", &[2.0])],
        node: vec![
            node("Add", &["x", "q"], &["before"]),
            node("Relu", &["before"], &["a"]),
            if_node("cond", inner, branch(vec![nested], &["n"]), "y"),
        ],
        value_info: vec![info("a"), info("before")],
        output: vec![info("y")],
        ..GraphProto::default()
    };
    let model = Model::from_proto(model(graph)).unwrap();
    let part = extract(&model, &["before", "cond"], &["y"]).unwrap();
    insta::assert_snapshot!(text(&part), @r#"
    <
       ir_version: 10,
       opset_import: []
    >
    "" (float before, float cond) => (float y)
    <
       float[1] p = {1.0},
       float a
    >
    {
       a = Relu (before)
       y = If (cond) <then_branch = branch () => (float mine) {
          mine = Sin (a)
       }, else_branch = branch () => (float n) {
          n = If (cond) <then_branch = branch () => (float p) {
          }, else_branch = branch () => (float a) {
          }>
       }>
    }
    "#);
    let part = extract(&model, &["a", "cond"], &["y"]).unwrap();
    insta::assert_snapshot!(text(&part), @r#"
    <
       ir_version: 10,
       opset_import: []
    >
    "" (float a, float cond) => (float y)
    <
       float[1] p = {1.0}
    >
    {
       y = If (cond) <then_branch = branch () => (float mine) {
          mine = Sin (a)
       }, else_branch = branch () => (float n) {
          n = If (cond) <then_branch = branch () => (float p) {
          }, else_branch = branch () => (float a) {
          }>
       }>
    }
    "#);
    let error = extract(&model, &["cond"], &["y"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"y\" depends on the input \"x\", which is not among the new inputs"
    );
}

#[test]
fn functions_annotations_and_defaults_come_along() {
    let mut proto = forked().to_proto();
    proto.functions = vec![FunctionProto {
        name: Some("Twice".to_owned()),
        domain: Some("com.acme".to_owned()),
        input: strings(&["x"]),
        output: strings(&["y"]),
        node: vec![node("Add", &["x", "x"], &["y"])],
        opset_import: vec![OperatorSetIdProto {
            domain: None,
            version: Some(20),
        }],
        ..FunctionProto::default()
    }];
    let graph = proto.graph.as_mut().unwrap();
    graph.input.push(info("v"));
    graph.initializer.push(tensor("a_scale", &[0.1]));
    graph.initializer.push(tensor("y_scale", &[0.2]));
    let annotation = |tensor: &str| TensorAnnotation {
        tensor_name: Some(tensor.to_owned()),
        quant_parameter_tensor_names: vec![entry("SCALE_TENSOR", &format!("{tensor}_scale"))],
    };
    graph.quantization_annotation = vec![annotation("a"), annotation("y")];
    let model = Model::from_proto(proto).unwrap();
    let mut part = extract(&model, &["a"], &["d"]).unwrap();
    let proto = part.to_proto();
    assert_eq!(proto.functions.len(), 1);
    let graph = proto.graph.unwrap();
    assert_eq!(graph.quantization_annotation, [annotation("a")]);
    let names = |tensors: &[bcosc_ir::onnx::proto::TensorProto]| -> Vec<String> {
        tensors.iter().map(|t| t.name().to_owned()).collect()
    };
    assert_eq!(names(&graph.initializer), ["v", "a_scale"]);
    let inputs: Vec<&str> = graph.input.iter().map(|input| input.name()).collect();
    assert_eq!(inputs, ["a", "v"]);
    part.graph.remove_dead();
    let scale = value(&part, "a_scale");
    let error = part.graph.promote(scale).unwrap_err();
    assert!(matches!(error, SurgeryError::Pinned { .. }), "{error}");
}

#[test]
fn what_cannot_be_extracted_is_named() {
    let model = forked();
    let message = |inputs: &[&str], outputs: &[&str]| {
        extract(&model, inputs, outputs).unwrap_err().to_string()
    };
    assert_eq!(
        message(&["b"], &["d", "y"]),
        "\"y\" depends on the input \"x\", which is not among the new inputs"
    );
    assert_eq!(message(&["a", "a"], &["y"]), "input \"a\" is given twice");
    assert_eq!(message(&["a"], &["y", "y"]), "output \"y\" is given twice");
    assert_eq!(
        message(&["e"], &["y"]),
        "the type of \"e\" is not known, so it cannot become an input"
    );
    let gone = Value {
        slot: 7,
        ..value(&model, "a")
    };
    let error = model.extract(&[], &[gone]).unwrap_err();
    assert_eq!(error.to_string(), "output 0 is not a value of the graph");
}

#[test]
fn a_part_can_be_patched_like_any_model() {
    let mut part = extract(&forked(), &["a"], &["y"]).unwrap();
    let patch = replacing(&part, "d", "Sub", &["d", "b"]);
    let lines = apply(&mut part, patch);
    assert!(
        lines.contains(&"[\"d.sub\"] \"d.sub\" = Sub (d, b)  # from d".to_owned()),
        "{lines:?}"
    );
}

#[test]
fn a_constant_becomes_an_input_and_back() {
    let mut model = forked();
    let whole = text(&model);
    let (v, w) = (value(&model, "v"), value(&model, "w"));
    let default = model.graph.promote(v).unwrap();
    model.graph.promote(w).unwrap();
    insta::assert_snapshot!(text(&model), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 20, "com.acme" : 3],
       metadata_props: ["author": "someone"]
    >
    main (float[n,4] x, float unused, float[1,2] v, float[1,4] w) => (float[n,2] y)
    <
       float[n,4] a,
       float[n,2] b,
       float[n,2] c
    >
    {
       a = Mul (x, w)
       b, c = Split (a)
       d = Add (b, v)
       e = Add (d, c)
       y = Exp (e)
    }
    "#);
    assert_eq!(default, Tensor::f32s(&[1, 2], vec![0.25; 2]));
    model
        .graph
        .bind(w, Tensor::f32s(&[1, 4], vec![0.5; 4]))
        .unwrap();
    model.graph.bind(v, default).unwrap();
    assert_eq!(text(&model), whole);
}

#[test]
fn a_constant_node_becomes_an_input() {
    let constant = bcosc_ir::Attribute::tensor("value", Tensor::f32s(&[2], vec![1.0, 2.0]));
    let mut model = ModelBuilder::new(20)
        .op("Constant", &[], "k", [constant])
        .op("Neg", &["k"], "y", [])
        .output("y")
        .finish()
        .unwrap();
    let k = value(&model, "k");
    model.graph.promote(k).unwrap();
    insta::assert_snapshot!(text(&model), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 20]
    >
    main (float[2] k) => (y) {
       y = Neg (k)
    }
    "#);
    assert_eq!(model.graph.inputs(), [k]);
}

#[test]
fn a_default_value_can_be_taken_from_an_input() {
    let mut proto = forked().to_proto();
    let graph = proto.graph.as_mut().unwrap();
    graph.input.insert(0, info("v"));
    let mut model = Model::from_proto(proto).unwrap();
    let v = value(&model, "v");
    model.graph.promote(v).unwrap();
    let inputs = model.graph.inputs().into_iter();
    let inputs: Vec<&str> = inputs.map(|v| model.graph.value_name(v)).collect();
    assert_eq!(inputs, ["v", "x", "unused"]);
}

#[test]
fn what_cannot_be_promoted_or_bound_is_named() {
    let mut model = forked();
    let (a, x) = (value(&model, "a"), value(&model, "x"));
    let one = |dims: &[u64]| Tensor::f32s(dims, vec![1.0; dims.iter().product::<u64>() as usize]);
    let messages = [
        model.graph.promote(a).unwrap_err().to_string(),
        model.graph.promote(x).unwrap_err().to_string(),
        model.graph.bind(a, one(&[4])).unwrap_err().to_string(),
        model.graph.bind(x, one(&[4])).unwrap_err().to_string(),
        model.graph.bind(x, one(&[1, 5])).unwrap_err().to_string(),
        model
            .graph
            .bind(x, Tensor::i64s(&[1, 4], vec![0; 4]))
            .unwrap_err()
            .to_string(),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r#"
    "a" is not a dense constant
    "x" is not a dense constant
    "a" is not an input of the graph
    the input "x" takes a float[n,4], but is bound to a float[4]
    the input "x" takes a float[n,4], but is bound to a float[1,5]
    the input "x" takes a float[n,4], but is bound to a int64[1,4]
    "#);
    model.graph.bind(x, one(&[7, 4])).unwrap();
    text(&model);
}

#[test]
fn a_cone_stops_where_it_is_told() {
    let model = forked();
    let stop = value(&model, "b");
    let cone = model.graph.cone(&values(&model, &["d"]), |v| v == stop);
    let labels: Vec<String> = cone.nodes.iter().map(|&id| model.graph.label(id)).collect();
    assert_eq!(labels, ["v", "d"]);
    assert_eq!(cone.frontier.into_iter().collect::<Vec<_>>(), [stop]);
    assert_eq!(
        model
            .graph
            .cone(&values(&model, &["y"]), |_| false)
            .nodes
            .len(),
        8
    );
}

#[test]
fn node_names_and_documents_stay() {
    let mut proto = forked().to_proto();
    let graph = proto.graph.as_mut().unwrap();
    let node: &mut NodeProto = &mut graph.node[0];
    node.name = Some("first".to_owned());
    node.doc_string = Some("what it does".to_owned());
    graph.doc_string = Some("a graph".to_owned());
    let expected = node.clone();
    let model = Model::from_proto(proto).unwrap();
    let part = extract(&model, &["x"], &["a"])
        .unwrap()
        .to_proto()
        .graph
        .unwrap();
    assert_eq!(part.node, [expected]);
    assert_eq!(part.doc_string.as_deref(), Some("a graph"));
}
