//! Parts that no patch touches are written unchanged.

use bcosc_ir::Model;
use bcosc_ir::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    SparseTensorProto, TensorAnnotation, TensorProto, TrainingInfoProto, ValueInfoProto,
};
use bcosc_testing::message::*;

#[track_caller]
fn stays(graph: GraphProto) {
    model_stays(model(graph));
}

#[track_caller]
fn model_stays(proto: ModelProto) {
    let built = Model::from_proto(proto.clone()).expect("a valid model");
    assert_eq!(built.to_proto(), proto);
    let again = Model::from_proto(built.to_proto()).expect("what was exported is valid");
    assert_eq!(again.to_proto(), proto);
}

#[test]
fn optional_inputs_and_left_out_outputs() {
    stays(GraphProto {
        input: vec![info("x")],
        node: vec![
            node("Clip", &["x", "", "x"], &["a"]),
            node("Resize", &["x", "", "", ""], &["b"]),
            node("LSTM", &["a", "b", "x"], &["", "h", ""]),
        ],
        output: vec![info("h")],
        ..GraphProto::default()
    });
}

#[test]
fn nodes_without_inputs_or_outputs() {
    stays(GraphProto {
        input: vec![info("x")],
        node: vec![
            node("Constant", &[], &["c"]),
            node("Sink", &["x"], &[]),
            node("Idle", &[], &[]),
        ],
        output: vec![info("c")],
        ..GraphProto::default()
    });
}

#[test]
fn initializers_of_every_standing() {
    let sparse = SparseTensorProto {
        values: Some(Box::new(tensor("sparse", &[1.0, 2.0]))),
        indices: Some(Box::new(TensorProto {
            dims: vec![2],
            data_type: Some(7),
            int64_data: vec![0, 3],
            ..TensorProto::default()
        })),
        dims: vec![5],
    };
    stays(GraphProto {
        input: vec![info("default"), info("x"), info("second")],
        initializer: vec![
            tensor("unused", &[3.0]),
            tensor("second", &[1.0]),
            tensor("w", &[1.0, 2.0]),
            tensor("default", &[1.0]),
        ],
        sparse_initializer: vec![sparse],
        node: vec![node("Sum", &["x", "default", "w", "sparse"], &["y"])],
        output: vec![info("y")],
        ..GraphProto::default()
    });
}

#[test]
fn value_info_that_is_stray_or_repeated() {
    let documented = ValueInfoProto {
        doc_string: Some("the second".to_owned()),
        metadata_props: vec![entry("a", "b")],
        ..info("y")
    };
    stays(GraphProto {
        input: vec![info("x")],
        node: vec![node("Relu", &["x"], &["y"]), node("Relu", &["y"], &["z"])],
        value_info: vec![
            info("nobody"),
            info("z"),
            info("y"),
            documented,
            info("x"),
            ValueInfoProto::default(),
        ],
        output: vec![info("z")],
        ..GraphProto::default()
    });
}

#[test]
fn graphs_within_graphs() {
    let innermost = branch(vec![node("Add", &["x", "middle"], &["deep"])], &["deep"]);
    let passed_on = branch(vec![], &["x"]);
    let middle = GraphProto {
        initializer: vec![tensor("own", &[1.0])],
        ..branch(
            vec![
                node("Mul", &["outer", "own"], &["middle"]),
                if_node("cond", innermost, passed_on, "result"),
            ],
            &["result"],
        )
    };
    let other = branch(vec![node("Neg", &["w"], &["result"])], &["result"]);
    stays(GraphProto {
        input: vec![info("cond"), info("x")],
        initializer: vec![tensor("w", &[1.0])],
        node: vec![
            node("Relu", &["x"], &["outer"]),
            if_node("cond", middle, other, "y"),
        ],
        output: vec![info("y")],
        ..GraphProto::default()
    });
}

#[test]
fn loop_bodies_and_lists_of_graphs() {
    let body = GraphProto {
        input: vec![info("i"), info("go"), info("state")],
        ..branch(
            vec![
                node("Identity", &["go"], &["go_on"]),
                node("Add", &["state", "x"], &["next"]),
            ],
            &["go_on", "next"],
        )
    };
    let many = AttributeProto {
        name: Some("bodies".to_owned()),
        r#type: Some(GRAPHS),
        graphs: vec![branch(vec![], &["x"]), branch(vec![], &["state"])],
        ..AttributeProto::default()
    };
    let empty = AttributeProto {
        name: Some("none".to_owned()),
        r#type: Some(GRAPHS),
        ..AttributeProto::default()
    };
    // Files of IR version 1 and 2 do not say what an attribute is.
    let untyped = AttributeProto {
        r#type: None,
        ..graph_attribute("untyped", branch(vec![], &["x"]))
    };
    let looped = NodeProto {
        attribute: vec![graph_attribute("body", body)],
        ..node("Loop", &["", "", "x"], &["y"])
    };
    let custom = NodeProto {
        attribute: vec![many, empty, untyped],
        domain: Some("com.acme".to_owned()),
        ..node("Choose", &["y"], &["z"])
    };
    stays(GraphProto {
        input: vec![info("x"), info("state")],
        node: vec![looped, custom],
        output: vec![info("z")],
        ..GraphProto::default()
    });
}

#[test]
fn outputs_that_no_node_puts_out() {
    let taken = branch(vec![], &["w"]);
    stays(GraphProto {
        input: vec![info("cond"), info("x")],
        initializer: vec![tensor("w", &[1.0])],
        node: vec![if_node("cond", taken.clone(), taken, "y")],
        output: vec![info("x"), info("w"), info("y"), info("y")],
        ..GraphProto::default()
    });
}

#[test]
fn a_branch_may_use_a_name_again() {
    // Not allowed by the specification, but written by real exporters.
    let shadows = branch(vec![node("Relu", &["x"], &["y"])], &["y"]);
    stays(GraphProto {
        input: vec![info("cond"), info("x")],
        node: vec![if_node("cond", shadows.clone(), shadows, "y")],
        output: vec![info("y")],
        ..GraphProto::default()
    });
}

#[test]
fn names_documentation_and_metadata() {
    let documented = |node: NodeProto| NodeProto {
        name: Some("twice".to_owned()),
        doc_string: Some("two\nlines".to_owned()),
        domain: Some("ai.onnx".to_owned()),
        overload: Some("third".to_owned()),
        metadata_props: vec![entry("key", "value"), entry("key", "again")],
        ..node
    };
    let annotated = TensorAnnotation {
        tensor_name: Some("y".to_owned()),
        quant_parameter_tensor_names: vec![entry("SCALE_TENSOR", "scale")],
    };
    let graph = GraphProto {
        name: Some("named".to_owned()),
        doc_string: Some("documented".to_owned()),
        metadata_props: vec![entry("graph", "too")],
        quantization_annotation: vec![annotated],
        input: vec![ValueInfoProto {
            doc_string: Some("an image".to_owned()),
            ..info("x")
        }],
        initializer: vec![TensorProto {
            doc_string: Some("a scale".to_owned()),
            ..tensor("scale", &[0.5])
        }],
        node: vec![
            documented(node("Relu", &["x"], &["y"])),
            documented(node("Relu", &["y"], &["z"])),
        ],
        output: vec![info("z")],
        ..GraphProto::default()
    };
    let opset = |domain: &str, version| OperatorSetIdProto {
        domain: Some(domain.to_owned()),
        version: Some(version),
    };
    let function = FunctionProto {
        name: Some("Local".to_owned()),
        domain: Some("local".to_owned()),
        node: vec![node("Relu", &["a"], &["b"]), node("Undefined", &["c"], &[])],
        ..FunctionProto::default()
    };
    let training = TrainingInfoProto {
        algorithm: Some(Box::new(branch(
            vec![node("Neg", &["scale"], &["g"])],
            &["g"],
        ))),
        update_binding: vec![entry("scale", "g")],
        ..TrainingInfoProto::default()
    };
    model_stays(ModelProto {
        opset_import: vec![opset("", 20), opset("ai.onnx", 20), opset("local", 1)],
        producer_name: Some("exporter".to_owned()),
        producer_version: Some("1".to_owned()),
        domain: Some("org.example".to_owned()),
        model_version: Some(3),
        doc_string: Some("a model".to_owned()),
        metadata_props: vec![entry("author", "someone")],
        functions: vec![function],
        training_info: vec![training],
        ..model(graph)
    });
}

#[test]
fn payloads_keep_their_encoding_and_are_shared() {
    let typed = TensorProto {
        name: Some("typed".to_owned()),
        dims: vec![2],
        data_type: Some(10),
        int32_data: vec![15360, -1],
        ..TensorProto::default()
    };
    let raw = tensor("raw", &[1.0; 64]);
    let at = raw.raw_data.as_ref().map(|bytes| bytes.as_ptr());
    let graph = GraphProto {
        initializer: vec![typed, raw],
        ..GraphProto::default()
    };
    let exported = Model::from_proto(model(graph.clone())).unwrap().to_proto();
    let exported = exported.graph.unwrap();
    assert_eq!(*exported, graph);
    let raw = exported.initializer[1].raw_data.as_ref();
    assert_eq!(raw.map(|bytes| bytes.as_ptr()), at, "the payload is copied");
}

#[test]
fn nodes_out_of_order_leave_sorted() {
    let relu = |input: &str, output: &str| node("Relu", &[input], &[output]);
    let graph = |nodes| {
        model(GraphProto {
            input: vec![info("x")],
            node: nodes,
            output: vec![info("c")],
            ..GraphProto::default()
        })
    };
    let given = graph(vec![
        relu("b", "c"),
        relu("x", "a"),
        relu("a", "b"),
        relu("x", "d"),
    ]);
    let sorted = graph(vec![
        relu("x", "a"),
        relu("a", "b"),
        relu("b", "c"),
        relu("x", "d"),
    ]);
    assert_eq!(Model::from_proto(given).unwrap().to_proto(), sorted);
}
