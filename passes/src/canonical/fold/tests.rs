use bcosc_ir::{Attribute, DataType, Dim, ModelBuilder};

use super::*;
use crate::Reason;
use crate::testing::{apply, model, reasons, rewritten, text, weight};

fn start(dims: &str) -> ModelBuilder {
    ModelBuilder::new(20).input("x", DataType::Float, dims)
}

fn ints(values: &[i64]) -> [Attribute; 1] {
    [Attribute::ints("value_ints", values)]
}

fn first_size() -> [Attribute; 2] {
    [Attribute::int("start", 0), Attribute::int("end", 1)]
}

#[test]
fn a_bias_that_is_computed_from_shapes_is_a_constant() {
    let before = start("batch,3,8,8")
        .param("w", weight(1, &[4, 3, 1, 1]))
        .op("Shape", &["w"], "n", first_size())
        .op(
            "Constant",
            &[],
            "half",
            [Attribute::tensor(
                "value",
                Tensor::floats(DataType::Double, &[], &[0.5]).unwrap(),
            )],
        )
        .op("CastLike", &["half", "x"], "c", [])
        .op("Expand", &["c", "n"], "b", [])
        .op("Conv", &["x", "w", "b"], "y", [])
        .output_as("y", DataType::Float, "batch,4,8,8");
    insta::assert_snapshot!(text(&rewritten(&FOLD_CONSTANTS, &model(before))), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 20]
    >
    main (float[batch,3,8,8] x) => (float[batch,4,8,8] y)
    <
       float[4,3,1,1] w = {-0.14761274, -0.20840575, -0.4877265, -0.7881713, ... a26657b0},
       float[4] "b.value" = {0.5, 0.5, 0.5, 0.5}
    >
    {
       y = Conv (x, w, "b.value")
    }
    "#);
}

#[test]
fn a_dynamic_batch_becomes_the_open_size() {
    let before = start("batch,4,2,3")
        .op("Shape", &["x"], "n", first_size())
        .op("Constant", &[], "rest", ints(&[24]))
        .op("Concat", &["n", "rest"], "s", [Attribute::int("axis", 0)])
        .op(
            "Reshape",
            &["x", "s"],
            "y",
            [Attribute::int("allowzero", 1)],
        )
        .output_as("y", DataType::Float, "batch,24");
    insta::assert_snapshot!(text(&rewritten(&FOLD_CONSTANTS, &model(before))), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 20]
    >
    main (float[batch,4,2,3] x) => (float[batch,24] y)
    <
       int64[2] "y.shape" = {-1, 24}
    >
    {
       y = Reshape (x, "y.shape")
    }
    "#);
}

#[test]
fn a_channel_shuffle_has_constant_shapes() {
    let size = |builder: ModelBuilder, name: &str, index| {
        let place = format!("{name}.at");
        builder.op("Constant", &[], &place, ints(&[index])).op(
            "Gather",
            &["shape", &place],
            name,
            [],
        )
    };
    let sizes = start("batch,4,height,6").op("Shape", &["x"], "shape", []);
    let sizes = ["n", "c", "h", "w"]
        .into_iter()
        .zip(0..)
        .fold(sizes, |b, (name, i)| size(b, name, i));
    let before = sizes
        .op("Constant", &[], "two", ints(&[2]))
        .op("Div", &["c", "two"], "half", [])
        .op(
            "Concat",
            &["n", "two", "half", "h", "w"],
            "apart",
            [Attribute::int("axis", 0)],
        )
        .op("Reshape", &["x", "apart"], "r", [])
        .op(
            "Transpose",
            &["r"],
            "t",
            [Attribute::ints("perm", &[0, 2, 1, 3, 4])],
        )
        .op(
            "Concat",
            &["n", "c", "h", "w"],
            "together",
            [Attribute::int("axis", 0)],
        )
        .op("Reshape", &["t", "together"], "y", [])
        .output_as("y", DataType::Float, "batch,4,height,6");
    insta::assert_snapshot!(text(&rewritten(&FOLD_CONSTANTS, &model(before))), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 20]
    >
    main (float[batch,4,height,6] x) => (float[batch,4,height,6] y)
    <
       int64[5] "r.shape" = {0, 2, 2, -1, 6},
       int64[4] "y.shape" = {0, 4, -1, 6}
    >
    {
       r = Reshape (x, "r.shape")
       t = Transpose <perm = [0, 2, 1, 3, 4]> (r)
       y = Reshape (t, "y.shape")
    }
    "#);
}

#[test]
fn expand_and_slice_to_sizes_of_the_input() {
    let before = start("batch,1,5")
        .op("Shape", &["x"], "n", first_size())
        .op("Constant", &[], "rest", ints(&[4, 5]))
        .op("Concat", &["n", "rest"], "s", [Attribute::int("axis", 0)])
        .op("Expand", &["x", "s"], "e", [])
        .op("Constant", &[], "zero", ints(&[0]))
        .op("Slice", &["e", "zero", "n", "zero"], "y", [])
        .output_as("y", DataType::Float, "batch,4,5");
    insta::assert_snapshot!(text(&rewritten(&FOLD_CONSTANTS, &model(before))), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 20]
    >
    main (float[batch,1,5] x) => (float[batch,4,5] y)
    <
       int64[3] "e.shape" = {1, 4, 5},
       int64[1] "zero.value" = {0},
       int64[1] "y.ends" = {9223372036854775807}
    >
    {
       e = Expand (x, "e.shape")
       y = Slice (e, "zero.value", "y.ends", "zero.value")
    }
    "#);
}

#[test]
fn a_weight_used_once_is_transposed_now() {
    let before = start("batch,200")
        .param("w", weight(1, &[150, 200]))
        .op("Transpose", &["w"], "t", [Attribute::ints("perm", &[1, 0])])
        .op("MatMul", &["x", "t"], "y", [])
        .output_as("y", DataType::Float, "batch,150");
    insta::assert_snapshot!(text(&rewritten(&FOLD_CONSTANTS, &model(before))), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 20]
    >
    main (float[batch,200] x) => (float[batch,150] y)
    <
       float[200,150] "w.transpose" = {-0.14761274, -0.36701006, 0.7543135, 0.7133532, ... da3bf42b}
    >
    {
       y = MatMul (x, "w.transpose")
    }
    "#);
}

/// Names of the parameters, once constants are folded.
fn folded_names(builder: ModelBuilder) -> Vec<String> {
    let graph = rewritten(&FOLD_CONSTANTS, &model(builder)).graph;
    let names = graph.parameters().into_iter();
    let names = names.map(|(node, _)| graph.value_name(graph.output(node, 0)).to_owned());
    names.collect()
}

#[test]
fn a_weight_in_another_form_keeps_its_name() {
    let perm = || [Attribute::ints("perm", &[1, 0])];
    let flattened = start("batch,6")
        .param("w", weight(1, &[2, 3, 4]))
        .param("shape", Tensor::i64_vec(&[4, 6]))
        .op("Reshape", &["w", "shape"], "r", [])
        .op("Transpose", &["r"], "t", perm())
        .op("MatMul", &["x", "t"], "y", [])
        .output_as("y", DataType::Float, "batch,4");
    assert_eq!(folded_names(flattened), ["w.transpose"]);
    let reshaped = start("batch,4")
        .param("w", weight(1, &[2, 2, 6]))
        .param("shape", Tensor::i64_vec(&[4, 6]))
        .op("Reshape", &["w", "shape"], "r", [])
        .op("MatMul", &["x", "r"], "y", [])
        .output_as("y", DataType::Float, "batch,6");
    assert_eq!(folded_names(reshaped), ["w"]);
    let tied = start("batch,3")
        .param("w", weight(1, &[3, 3]))
        .op("Transpose", &["w"], "t", perm())
        .op("MatMul", &["x", "w"], "a", [])
        .op("MatMul", &["a", "t"], "y", [])
        .output_as("y", DataType::Float, "batch,3");
    assert_eq!(folded_names(tied), ["w", "w.transpose"]);
    // A constant that has no elements of its own is called after its place.
    let scaled = start("batch,3")
        .param("w", weight(1, &[3]))
        .op("Exp", &["w"], "e", [])
        .op("Mul", &["x", "e"], "y", [])
        .output_as("y", DataType::Float, "batch,3");
    assert_eq!(folded_names(scaled), ["e.value"]);
}

#[test]
fn a_weight_used_twice_stays() {
    let mut model = model(
        start("batch,200")
            .param("w", weight(1, &[200, 200]))
            .op("Transpose", &["w"], "t", [Attribute::ints("perm", &[1, 0])])
            .op("MatMul", &["x", "t"], "y", [])
            .op("MatMul", &["y", "w"], "z", [])
            .output_as("z", DataType::Float, "batch,200"),
    );
    let outcome = apply(&FOLD_CONSTANTS, &mut model);
    assert_eq!(outcome.changes, []);
    assert_eq!(
        reasons(outcome),
        [Reason::TooLarge {
            bytes: 160_000,
            replaces: 0
        }]
    );
}

#[test]
fn a_large_constant_of_one_number_stays() {
    let before = start("batch,300,300")
        .op("Constant", &[], "s", ints(&[300, 300]))
        .op(
            "ConstantOfShape",
            &["s"],
            "c",
            [Attribute::tensor("value", Tensor::f32s(&[1], vec![2.0]))],
        )
        .op("Mul", &["x", "c"], "y", [])
        .output_as("y", DataType::Float, "batch,300,300");
    let mut after = model(before);
    let outcome = apply(&FOLD_CONSTANTS, &mut after);
    assert_eq!(
        reasons(outcome),
        [Reason::TooLarge {
            bytes: 360_000,
            replaces: 16
        }]
    );
    assert_eq!(after.graph.ops().len(), 2);
}

#[test]
fn every_kind_of_constant_node_becomes_a_parameter() {
    let constant = |builder: ModelBuilder, name: &str, attribute| {
        builder.op("Constant", &[], name, [attribute])
    };
    let mut builder = start("batch,2");
    builder = constant(builder, "f", Attribute::float("value_float", 0.5));
    builder = constant(builder, "i", Attribute::int("value_int", 1));
    let before = builder
        .op("Add", &["x", "f"], "a", [])
        .op("Gather", &["a", "i"], "y", [Attribute::int("axis", 1)])
        .output_as("y", DataType::Float, "batch");
    insta::assert_snapshot!(text(&rewritten(&FOLD_CONSTANTS, &model(before))), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 20]
    >
    main (float[batch,2] x) => (float[batch] y)
    <
       float "f.value" = {0.5},
       int64 "i.value" = {1}
    >
    {
       a = Add (x, "f.value")
       y = Gather <axis = 1> (a, "i.value")
    }
    "#);
}

#[test]
fn an_output_that_is_a_constant_keeps_its_node() {
    let before = start("batch,2")
        .op("Relu", &["x"], "y", [])
        .op("Constant", &[], "c", ints(&[7]))
        .output_as("y", DataType::Float, "batch,2")
        .output_as("c", DataType::Int64, "1");
    let mut after = model(before);
    let outcome = apply(&FOLD_CONSTANTS, &mut after);
    assert_eq!(outcome.changes, []);
    assert_eq!(reasons(outcome), [Reason::OutputName("c".to_owned())]);
}

#[test]
fn two_computed_sizes_that_move_stay() {
    let before = start("h,w,4")
        .op("Shape", &["x"], "s", [])
        .op("Constant", &[], "order", ints(&[1, 0, 2]))
        .op("Gather", &["s", "order"], "turned", [])
        .op("Reshape", &["x", "turned"], "y", [])
        .output_as("y", DataType::Float, "w,h,4");
    let mut after = model(before);
    let outcome = apply(&FOLD_CONSTANTS, &mut after);
    assert_eq!(
        reasons(outcome),
        [Reason::ShapeArithmetic("[w,h,4]".to_owned())]
    );
    assert_eq!(after.graph.ops().len(), 3);
}

#[test]
fn open_sizes_in_place_are_copied() {
    let dims = |text: &[&str]| -> Vec<Dim> {
        let dim = |text: &&str| {
            text.parse()
                .map_or(Dim::Symbol((*text).to_owned()), Dim::Known)
        };
        text.iter().map(dim).collect()
    };
    let spec = |from: &[&str], to: &[&str]| shapes::reshape_spec(&dims(from), &dims(to));
    assert_eq!(spec(&["b", "12"], &["b", "3", "4"]), Some(vec![-1, 3, 4]));
    assert_eq!(
        spec(&["b", "c", "h", "w"], &["b", "c", "h*w"]),
        Some(vec![0, 0, -1])
    );
    assert_eq!(spec(&["b", "c", "h"], &["b", "h", "c"]), None);
    assert_eq!(spec(&["b", "0"], &["b", "0"]), None);
}
