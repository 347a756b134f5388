//! Parts of networks, run one after the other or spliced together again, compute the same as the whole.

mod common;

use bcosc::Preset;
use bcosc_engine::default_interpreter;
use bcosc_ir::{DataType, Interpreter as _, Model, Tensor, Tensors, Value};
use bcosc_testing::message::{branch, if_node, node, untyped};
use bcosc_testing::{infer, input, value};
use common::{fixture, golden, normalised};

fn run(model: &Model, inputs: &Tensors) -> Tensors {
    default_interpreter().run(model, inputs).unwrap()
}

fn named(model: &Model, values: &[Value]) -> Vec<String> {
    let names = values.iter().map(|&v| model.graph.value_name(v).to_owned());
    names.collect()
}

/// Cuts a model at some values; the second part may still read the inputs, as branches around a cut do.
fn assert_halves_are_the_whole(model: &Model, cut: &[Value], inputs: &Tensors) {
    let expected = run(model, inputs);
    let graph = &model.graph;
    let outputs: Vec<Value> = graph.outputs().iter().map(|o| o.value).collect();
    let mut first = model.extract(&graph.inputs(), cut).unwrap();
    let mut seams = cut.to_vec();
    seams.extend(
        graph
            .inputs()
            .into_iter()
            .filter(|input| !cut.contains(input)),
    );
    let second = model.extract(&seams, &outputs).unwrap();
    assert!(second.graph.op_count() < graph.op_count());

    let mut between = run(&first, inputs);
    between.extend(inputs.clone());
    let needed = named(&second, &second.graph.inputs());
    between.retain(|name, _| needed.contains(name));
    let found = run(&second, &between);
    assert_eq!(found, expected, "one after the other");

    let bindings: Vec<(Value, Value)> = second
        .graph
        .inputs()
        .into_iter()
        .map(|input| {
            let name = second.graph.value_name(input);
            (input, first.graph.value_named(name).unwrap())
        })
        .collect();
    let joined = first.splice(&second, &bindings).unwrap();
    let outputs: Vec<(Value, String)> = joined.into_iter().zip(expected.keys().cloned()).collect();
    first.graph.set_outputs(&outputs);
    first.graph.remove_dead();
    let again = Model::from_proto(first.to_proto()).unwrap();
    assert_eq!(run(&again, inputs), expected, "put together");
}

#[test]
fn networks_can_be_cut_anywhere() {
    for network in ["resnet_tiny", "densenet_tiny", "vit_tiny", "clip_rn_tiny"] {
        let file = bcosc_ir::onnx::read(&fixture(network, "model.onnx")).unwrap();
        let mut model = Model::from_proto(file.model).unwrap();
        infer(&mut model);
        let graph = &model.graph;
        let images = normalised(&golden(network, "image"), &Preset::Imagenet.normalization());
        let inputs = [(graph.value_name(graph.inputs()[0]).to_owned(), images)].into();
        let floats = |value: &Value| {
            let found = graph.value_type(*value);
            found.is_some_and(|found| found.dtype == DataType::Float)
        };
        let ops = graph.ops().into_iter();
        let values: Vec<Value> = ops.map(|op| graph.output(op, 0)).filter(floats).collect();
        let places = [values.len() / 4, values.len() / 2, values.len() - 2];
        for place in places {
            assert_halves_are_the_whole(&model, &values[place..=place], &inputs);
        }
        assert_halves_are_the_whole(&model, &values[places[0]..places[0] + 3], &inputs);
    }
}

/// `y = If (flag) { Mul (a, k) } else { Neg (a) }` with `a = Relu (x)`.
fn branching() -> Model {
    let scaled = branch(vec![node("Mul", &["a", "k"], &["scaled"])], &["scaled"]);
    let negative = branch(vec![node("Neg", &["a"], &["negative"])], &["negative"]);
    let chosen = if_node("flag", untyped(scaled), untyped(negative), "y");
    let builder = input(17, "4")
        .input("flag", DataType::Bool, "")
        .param("k", Tensor::f32s(&[1], vec![3.0]))
        .op("Relu", &["x"], "a", [])
        .value("a", DataType::Float, "4")
        .node(chosen)
        .output_as("y", DataType::Float, "4");
    builder.finish().unwrap()
}

#[test]
fn a_network_can_be_cut_before_a_branch() {
    let model = branching();
    let a = value(&model, "a");
    for flag in [0, 1] {
        let flag = Tensor::from_bytes(DataType::Bool, &[], vec![flag].into());
        let x = Tensor::f32s(&[4], vec![-1.0, 2.0, 0.5, 3.0]);
        let inputs = [("x".to_owned(), x), ("flag".to_owned(), flag)].into();
        assert_halves_are_the_whole(&model, &[a], &inputs);
    }
}

#[test]
fn a_weight_can_be_given_from_outside() {
    let file = bcosc_ir::onnx::read(&fixture("resnet_tiny", "model.onnx")).unwrap();
    let model = Model::from_proto(file.model).unwrap();
    let images = normalised(
        &golden("resnet_tiny", "image"),
        &Preset::Imagenet.normalization(),
    );
    let input = model.graph.value_name(model.graph.inputs()[0]).to_owned();
    let mut inputs: Tensors = [(input, images)].into();
    let expected = run(&model, &inputs);

    let mut open = model.clone();
    let parameters: Vec<_> = model
        .graph
        .parameters()
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    let mut promoted = Vec::new();
    for id in parameters {
        let weight = open.graph.output(id, 0);
        let name = open.graph.value_name(weight).to_owned();
        let dims = open.graph.value_type(weight).and_then(|t| t.rank());
        // Weights of convolutions and linear layers: shapes and the like must be constants.
        if dims.is_some_and(|rank| rank > 1) {
            inputs.insert(name, open.graph.promote(weight).unwrap());
            promoted.push(weight);
        }
    }
    assert!(promoted.len() > 5);
    assert_eq!(run(&open, &inputs), expected);
    for weight in promoted {
        let name = open.graph.value_name(weight).to_owned();
        open.graph
            .bind(weight, inputs.remove(&name).unwrap())
            .unwrap();
    }
    assert_eq!(open.to_proto(), model.to_proto());
}
