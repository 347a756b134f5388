//! Models that are not graphs are refused, by name.

use bcosc_ir::Model;
use bcosc_ir::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
};
use bcosc_testing::message::*;

#[track_caller]
fn refused(graph: GraphProto, message: &str) {
    let error = Model::from_proto(model(graph)).expect_err("the model is bad");
    assert_eq!(error.to_string(), message);
}

fn with(nodes: Vec<NodeProto>) -> GraphProto {
    GraphProto {
        input: vec![info("x")],
        node: nodes,
        output: vec![info("y")],
        ..GraphProto::default()
    }
}

#[test]
fn no_graph() {
    let error = Model::from_proto(ModelProto::default()).unwrap_err();
    assert_eq!(error.to_string(), "the model has no graph");
}

#[test]
fn values_defined_twice() {
    let relu = || node("Relu", &["x"], &["y"]);
    refused(
        with(vec![relu(), named("second", relu())]),
        "value \"y\" is defined twice, the second time by Relu node \"second\"",
    );
    refused(
        with(vec![node("Split", &["x"], &["y", "y"])]),
        "value \"y\" is defined twice, the second time by Split node \"y\"",
    );
    refused(
        with(vec![node("Relu", &["x"], &["x"])]),
        "value \"x\" is defined twice, the second time by Relu node \"x\"",
    );
    refused(
        GraphProto {
            input: vec![info("x"), info("x")],
            ..with(vec![relu()])
        },
        "value \"x\" is defined twice, the second time by a graph input",
    );
    refused(
        GraphProto {
            initializer: vec![tensor("w", &[1.0]), tensor("w", &[2.0])],
            ..with(vec![relu()])
        },
        "value \"w\" is defined twice, the second time by an initializer",
    );
    refused(
        GraphProto {
            input: vec![info("w"), info("w")],
            initializer: vec![tensor("w", &[1.0])],
            ..GraphProto::default()
        },
        "value \"w\" is defined twice, the second time by a graph input",
    );
}

#[test]
fn attributes_given_twice() {
    let axis = |i: i64| AttributeProto {
        name: Some("axis".to_owned()),
        i: Some(i),
        ..AttributeProto::default()
    };
    let softmax = |attribute| NodeProto {
        attribute,
        ..node("Softmax", &["x"], &["y"])
    };
    refused(
        with(vec![softmax(vec![axis(0), axis(1)])]),
        "Softmax node \"y\" has more than one attribute \"axis\"",
    );
    assert!(Model::from_proto(model(with(vec![softmax(vec![axis(0)])]))).is_ok());
}

#[test]
fn values_defined_nowhere() {
    refused(
        with(vec![named("adder", node("Add", &["x", "gone"], &["y"]))]),
        "Add node \"adder\" reads \"gone\", which no node, input or initializer of the model defines",
    );
    refused(
        with(vec![]),
        "the graph's output list reads \"y\", which no node, input or initializer of the model defines",
    );
    let inner = branch(vec![node("Relu", &["gone"], &["r"])], &["r"]);
    refused(
        with(vec![if_node("x", inner.clone(), inner, "y")]),
        "If node \"y\" reads \"gone\", which no node, input or initializer of the model defines",
    );
}

#[test]
fn a_branch_does_not_export_its_values() {
    let inner = branch(vec![node("Relu", &["x"], &["hidden"])], &["hidden"]);
    let nodes = vec![
        if_node("x", inner.clone(), inner, "z"),
        node("Add", &["z", "hidden"], &["y"]),
    ];
    refused(
        with(nodes),
        "Add node \"y\" reads \"hidden\", which no node, input or initializer of the model defines",
    );
}

#[test]
fn cycles() {
    refused(
        with(vec![
            node("Add", &["x", "b"], &["a"]),
            node("Relu", &["a"], &["b"]),
            node("Relu", &["x"], &["y"]),
        ]),
        "Add node \"a\" is part of a cycle; graphs must be acyclic",
    );
    refused(
        with(vec![node("Add", &["x", "y"], &["y"])]),
        "Add node \"y\" is part of a cycle; graphs must be acyclic",
    );
    // Through a value that a branch captures.
    let inner = branch(vec![node("Relu", &["late"], &["r"])], &["r"]);
    refused(
        with(vec![
            if_node("x", inner.clone(), inner, "y"),
            node("Relu", &["y"], &["late"]),
        ]),
        "If node \"y\" is part of a cycle; graphs must be acyclic",
    );
}

#[test]
fn things_without_a_name() {
    let nameless = ValueInfoProto::default();
    refused(
        GraphProto {
            input: vec![info("x"), nameless.clone()],
            ..GraphProto::default()
        },
        "graph input number 1 has no name",
    );
    refused(
        GraphProto {
            output: vec![nameless],
            ..GraphProto::default()
        },
        "graph output number 0 has no name",
    );
    refused(
        GraphProto {
            initializer: vec![tensor("", &[1.0])],
            ..GraphProto::default()
        },
        "initializer number 0 has no name",
    );
}

#[test]
fn initializers_that_cannot_be() {
    let bad = |dims: Vec<i64>, data_type| {
        let tensor = TensorProto {
            name: Some("w".to_owned()),
            dims,
            data_type: Some(data_type),
            ..TensorProto::default()
        };
        let graph = GraphProto {
            initializer: vec![tensor],
            ..GraphProto::default()
        };
        Model::from_proto(model(graph)).unwrap_err().to_string()
    };
    assert!(bad(vec![-1], 1).starts_with("initializer \"w\": "));
    assert!(bad(vec![i64::MAX, i64::MAX], 1).starts_with("initializer \"w\": "));
    assert!(bad(vec![1], 999).starts_with("initializer \"w\": "));
}
