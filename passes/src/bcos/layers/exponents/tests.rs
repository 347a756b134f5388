use bcosc_ir::{DataType, Model, ModelBuilder, Tensors};

use crate::bcos::layers::{B_LAYERS, BCOS};
use crate::bcos::lower::LOWER;
use crate::testing::{Array, Layers, after, exponent, image, outputs, passed, reasons, text};
use crate::{Outcome, Pass, PassError, Reason, Settings};

/// A convolution to three channels, and a layer on vectors.
fn network() -> Model {
    image("batch,2,3")
        .conv("x", "first", &[3, 2, 3], vec![])
        .op("Flatten", &["first"], "flat", [])
        .matmul("flat", "y", &[3, 4])
        .typed("y")
}

fn settings(b: f64, last: Option<f64>, layers: &[(&str, f64)]) -> Settings {
    let layers = layers
        .iter()
        .map(|(pattern, b)| ((*pattern).to_owned(), *b));
    Settings {
        b_last: last,
        b_layers: layers.collect(),
        ..exponent(b)
    }
}

const PASSES: [&Pass; 2] = [&BCOS, &LOWER];

fn result(before: &Model, settings: &Settings) -> Result<(Model, Outcome), PassError> {
    passed(&[&BCOS], before, settings, None)
}

/// What the report says of each layer.
fn changes(before: &Model, settings: &Settings) -> Vec<(String, String)> {
    match result(before, settings) {
        Ok((_, outcome)) => {
            let changes = outcome.changes.into_iter();
            changes.map(|change| (change.node, change.what)).collect()
        }
        Err(error) => panic!("{error}"),
    }
}

fn pairs(found: &[(String, String)]) -> Vec<(&str, &str)> {
    found.iter().map(|(a, b)| (&**a, &**b)).collect()
}

#[test]
fn the_last_layer_has_its_own() {
    let (model, _) = match result(&network(), &settings(2.0, Some(1.25), &[])) {
        Ok(done) => done,
        Err(error) => panic!("{error}"),
    };
    insta::assert_snapshot!(text(&model), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 17],
       metadata_props: ["bcosc.b_layers": "{\"y\":1.25}"]
    >
    main (float[batch,2,3] x) => (y)
    <
       float[3,2,3] "first.w" = {0.31832, 1.0932955, 0.26574147, 0.708373, ... 9a1a4b61},
       float[3,4] "y.w" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, ... 73524159}
    >
    {
       first = Conv (x, "first.w")
       ["first.patch_norm"] "first.patch_norm" = bcosc.PatchNorm <kernel_shape = [3], group = 1, channels = 2> (x)  # from first
       ["first.bcos"] "first.bcos" = bcosc.Scale <b = 2.0, group = 1, channels = 3, spatial = 1> (first, "first.patch_norm")  # from first
       flat = Flatten ("first.bcos")
       "y.before" = MatMul (flat, "y.w")
       ["y.vector_norm"] "y.vector_norm" = bcosc.VectorNorm <axis = -1, transposed = 0> (flat)  # from y
       ["y.bcos"] y = bcosc.Scale <b = 1.25, group = 1, channels = 1, spatial = 0> ("y.before", "y.vector_norm")  # from y
    }
    "#);
    assert_eq!(model.metadata(B_LAYERS), Some(r#"{"y":1.25}"#));
}

#[test]
fn every_layer_computes_with_its_own() {
    let x = Array::noise(3, &[2, 2, 3]);
    let feed =
        |name: &str, x: &Array| Tensors::from([(name.to_owned(), x.tensor(DataType::Float))]);
    let both = after(
        &PASSES,
        &network(),
        &settings(2.0, None, &[("f*", 1.75), ("y", 1.25)]),
    );
    let found = outputs(&both, &feed("x", &x)).remove(0);
    // The same, one layer at a time.
    let first = image("batch,2,3")
        .conv("x", "first", &[3, 2, 3], vec![])
        .typed("first");
    let mut middle = outputs(&after(&PASSES, &first, &exponent(1.75)), &feed("x", &x)).remove(0);
    middle.dims.truncate(2);
    let second = ModelBuilder::new(17)
        .input("flat", DataType::Float, "batch,3")
        .matmul("flat", "y", &[3, 4])
        .typed("y");
    let expected = outputs(
        &after(&PASSES, &second, &exponent(1.25)),
        &feed("flat", &middle),
    );
    found.assert_close(&expected[0], 1e-6);
}

#[test]
fn patterns_count_in_order_and_more_than_being_last() {
    let of = |last, layers: &[(&str, f64)]| changes(&network(), &settings(2.0, last, layers));
    let found = of(Some(1.5), &[("*", 1.25), ("first", 3.0)]);
    assert_eq!(
        pairs(&found),
        [("first", "B-cos, B = 3"), ("y", "B-cos, B = 1.25")]
    );
    // B = 1 leaves a layer linear, and a layer can be B-cos among linear ones.
    assert_eq!(pairs(&of(Some(1.0), &[])), [("first", "B-cos, B = 2")]);
    let only = changes(&network(), &settings(1.0, Some(2.0), &[]));
    assert_eq!(pairs(&only), [("y", "B-cos, B = 2")]);
}

#[test]
fn each_output_has_a_last_layer() {
    let heads = image("batch,4")
        .matmul("x", "body", &[4, 3])
        .matmul("body", "a", &[3, 2])
        .matmul("body", "b", &[3, 2])
        .op("Relu", &["a"], "z", []);
    let before = crate::testing::inferred(heads.output("z").output("b"));
    let found = changes(&before, &settings(2.0, Some(1.5), &[]));
    let expected = [
        ("body", "B-cos, B = 2"),
        ("a", "B-cos, B = 1.5"),
        ("b", "B-cos, B = 1.5"),
    ];
    assert_eq!(pairs(&found), expected);
}

#[test]
fn a_pattern_without_a_layer_is_an_error() {
    let error = |pattern: &str| match result(&network(), &settings(2.0, None, &[(pattern, 1.5)])) {
        Err(PassError::Model(reason)) => reason,
        other => panic!("{:?}", other.map(|(_, outcome)| reasons(outcome))),
    };
    let none = Reason::NoSuchLayer {
        pattern: "layer*".to_owned(),
        names: "first, y".to_owned(),
    };
    assert_eq!(error("layer*"), none);
    assert_eq!(error("[a"), Reason::NoPattern("[a".to_owned()));
}

#[test]
fn nothing_is_recorded_of_layers_alike() {
    let same = settings(2.0, Some(2.0), &[]);
    assert!(result(&network(), &same).is_ok_and(|(model, _)| model.metadata(B_LAYERS).is_none()));
}
