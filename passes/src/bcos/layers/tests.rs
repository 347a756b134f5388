mod carried;
mod convolutions;
mod products;

use bcosc_ir::{Attribute, DataType, ModelBuilder, Tensor};

use super::*;
use crate::bcos::lower::LOWER;
use crate::testing::{
    Array, Layers, after, exponent, image, inferred, model, passed, reasons, text, weight,
};

/// One output unit by definition: its product with its inputs, and the sum of squares of these.
fn transformed(product: f64, squares: f64, b: f64, is_conv: bool) -> f64 {
    let norm = if is_conv {
        (squares + 1e-6).sqrt()
    } else {
        squares.sqrt() + 1e-12
    };
    let cosine = product.abs() / norm;
    if b == 2.0 {
        cosine * product
    } else {
        (cosine + 1e-6).powf(b - 1.0) * product
    }
}

/// Numbers that single precision holds.
fn rounded(array: &Array) -> Array {
    let data = array.data.iter().map(|&x| f64::from(x as f32)).collect();
    Array {
        data,
        ..array.clone()
    }
}

#[test]
fn layers_become_marked_layers() {
    let before = image("batch,4,6,8")
        .conv("x", "a", &[4, 2, 3, 3], vec![Attribute::int("group", 2)])
        .op("GlobalAveragePool", &["a"], "p", [])
        .op("Flatten", &["p"], "f", [])
        .linear("f", "y", 4, 3)
        .typed("y");
    insta::assert_snapshot!(text(&after(&[&BCOS], &before, &exponent(2.0))), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 17]
    >
    main (float[batch,4,6,8] x) => (y)
    <
       float[4,2,3,3] "a.w" = {-0.8198231, -0.5585862, -1.0915186, -1.0646492, ... 9e9056fd},
       float[3,4] "y.w" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, ... 73524159},
       float[3] "y.b" = {0.6823779, -0.77477896, 0.9362561}
    >
    {
       a = Conv <group = 2> (x, "a.w")
       ["a.patch_norm"] "a.patch_norm" = bcosc.PatchNorm <kernel_shape = [3, 3], group = 2, channels = 4> (x)  # from a
       ["a.bcos"] "a.bcos" = bcosc.Scale <b = 2.0, group = 2, channels = 4, spatial = 2> (a, "a.patch_norm")  # from a
       p = GlobalAveragePool ("a.bcos")
       f = Flatten (p)
       "y.before" = Gemm <transB = 1> (f, "y.w", "y.b")
       ["y.vector_norm"] "y.vector_norm" = bcosc.VectorNorm <axis = -1, transposed = 0> (f)  # from y
       ["y.bcos"] y = bcosc.Scale <b = 2.0, group = 1, channels = 1, spatial = 0> ("y.before", "y.vector_norm")  # from y
    }
    "#);
}

#[test]
fn layers_that_see_the_same_share_a_norm() {
    let builder = image("batch,4,6,8")
        .conv("x", "a", &[4, 4, 1, 1], vec![])
        .conv("x", "b", &[4, 4, 1, 1], vec![])
        .conv(
            "x",
            "c",
            &[4, 4, 1, 1],
            vec![Attribute::ints("strides", &[2, 2])],
        );
    let before = builder.output("a").output("b").typed("c");
    let after = after(&[&BCOS], &before, &exponent(2.0));
    let ops = after.graph.ops();
    let norms = ops
        .iter()
        .filter(|&&id| PatchNorm::of(&after.graph, id).is_some());
    assert_eq!(norms.count(), 2);
}

#[test]
fn nothing_happens_at_b_1() {
    let before = image("batch,4,6,8")
        .conv("x", "y", &[4, 4, 1, 1], vec![])
        .typed("y");
    let result = passed(&[&BCOS, &LOWER], &before, &exponent(1.0), None);
    assert!(result.is_ok_and(|(after, _)| text(&after) == text(&before)));
}

fn refusal(builder: ModelBuilder) -> Vec<Reason> {
    let before = inferred(builder.output("y"));
    match passed(&[&BCOS], &before, &exponent(2.0), None) {
        Ok((_, outcome)) => {
            assert!(outcome.changes.is_empty());
            reasons(outcome)
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn what_is_no_layer_with_constant_weights_stays() {
    let floats = |dims: &str| ModelBuilder::new(17).input("x", DataType::Float, dims);
    let attention = floats("2,3,3").op("MatMul", &["x", "x"], "y", []);
    assert_eq!(refusal(attention), [Reason::DynamicWeight]);
    let dynamic = floats("1,3,3,3").op("Conv", &["x", "x"], "y", []);
    assert_eq!(refusal(dynamic), [Reason::DynamicWeight]);
    let vector = floats("2,3").matmul("x", "y", &[3]);
    assert_eq!(refusal(vector), [Reason::VectorProduct]);
    let seen = floats("3")
        .param("w", weight(1, &[2, 3]))
        .op("MatMul", &["w", "x"], "y", []);
    assert_eq!(refusal(seen), [Reason::VectorProduct]);
    let integers = ModelBuilder::new(17)
        .input("x", DataType::Int64, "2,2")
        .param("w", Tensor::i64s(&[2, 2], vec![1, 2, 3, 4]))
        .op("MatMul", &["x", "w"], "y", []);
    assert_eq!(refusal(integers), [Reason::NotFloating]);
    let transposed = floats("1,2,3,3").param("w", weight(1, &[2, 2, 2, 2])).op(
        "ConvTranspose",
        &["x", "w"],
        "y",
        [],
    );
    assert_eq!(refusal(transposed), [Reason::NoBcosForm]);
}

#[test]
fn broken_layers_stay() {
    let with = |dims: &[u64], attributes: Vec<Attribute>| {
        let builder = ModelBuilder::new(17).input("x", DataType::Float, "1,4,3,3");
        let before = model(builder.conv("x", "y", dims, attributes).output("y"));
        match passed(&[&BCOS], &before, &exponent(2.0), None) {
            Ok((_, outcome)) => assert_eq!(reasons(outcome), [Reason::Malformed]),
            Err(error) => panic!("{error}"),
        }
    };
    with(&[4], vec![]);
    with(&[4, 4], vec![]);
    with(&[0, 4, 1, 1], vec![]);
    with(&[4, 4, 1, 0], vec![]);
    with(&[3, 2, 1, 1], vec![Attribute::int("group", 2)]);
    with(&[4, 4, 1, 1], vec![Attribute::int("group", 0)]);
    with(&[4, 4, 1, 1], vec![Attribute::int("group", -1)]);
    with(&[4, 4, 1, 1], vec![Attribute::int("group", i64::MAX)]);
    with(&[4, 4, 1, 1], vec![Attribute::ints("strides", &[1])]);
    with(&[4, 4, 1, 1], vec![Attribute::ints("pads", &[1, 1])]);
    with(&[4, 4, 1, 1], vec![Attribute::string("auto_pad", "SOME")]);
    let none = model(ModelBuilder::new(17).op("Conv", &[], "y", []).output("y"));
    let result = passed(&[&BCOS], &none, &exponent(2.0), None);
    assert!(result.is_ok_and(|(_, outcome)| reasons(outcome) == [Reason::Malformed]));
}
