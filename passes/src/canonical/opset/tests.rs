//! Tests of each row: the upgraded operator computes the same, and unsupported ones are rejected.

use bcosc_engine::default_interpreter;
use bcosc_ir::ops::NEWEST;
use bcosc_ir::{Attribute, DataType, Model, ModelBuilder, Tensor};

use super::RAISE_OPSET;
use crate::testing::{assert_same_function, model, text, weight};
use crate::{Context, Outcome, PassError, Reason, Settings};

fn raise(model: &mut Model, opset: i64) -> Result<Outcome, PassError> {
    let settings = Settings {
        opset: Some(opset),
        ..Settings::default()
    };
    let cx = Context {
        settings: &settings,
        interpreter: default_interpreter(),
        calibration: None,
    };
    (RAISE_OPSET.run)(model, &cx)
}

fn raised(before: &Model, opset: i64) -> Model {
    let mut after = before.clone();
    raise(&mut after, opset).unwrap();
    assert_eq!(after.opset(""), Some(opset));
    assert_same_function(before, &after, 1e-6);
    after
}

fn one_op(opset: i64, op: &str, dims: &str, attributes: Vec<Attribute>) -> Model {
    let builder = ModelBuilder::new(opset).input("x", DataType::Float, dims);
    model(builder.op(op, &["x"], "y", attributes).output("y"))
}

#[test]
fn attributes_become_inputs() {
    let before = one_op(
        9,
        "Slice",
        "N,4,6",
        vec![
            Attribute::ints("starts", &[1, 0]),
            Attribute::ints("ends", &[4, -2]),
            Attribute::ints("axes", &[1, 2]),
        ],
    );
    let after = raised(&before, 20);
    insta::assert_snapshot!(text(&after));
}

#[test]
fn every_row_keeps_the_function() {
    let axes = |axes: &[i64]| vec![Attribute::ints("axes", axes), Attribute::int("keepdims", 0)];
    let clip = vec![Attribute::float("min", -0.5), Attribute::float("max", 0.25)];
    let pad = vec![
        Attribute::ints("pads", &[0, 0, 1, 0, 0, 2]),
        Attribute::float("value", 0.5),
    ];
    let cases = [
        one_op(7, "Clip", "N,3,4", clip),
        one_op(7, "Pad", "N,3,4", pad),
        one_op(7, "Dropout", "N,3,4", vec![Attribute::float("ratio", 0.3)]),
        one_op(11, "Softmax", "N,3,4", vec![Attribute::int("axis", 1)]),
        one_op(11, "Softmax", "N,3,4", vec![Attribute::int("axis", 2)]),
        one_op(11, "LogSoftmax", "N,3,4", vec![]),
        one_op(
            11,
            "Unsqueeze",
            "N,3,4",
            vec![Attribute::ints("axes", &[1])],
        ),
        one_op(11, "Squeeze", "N,1,4", vec![Attribute::ints("axes", &[1])]),
        one_op(11, "ReduceSum", "N,3,4", axes(&[1])),
        one_op(13, "ReduceMean", "N,3,4", axes(&[1, 2])),
        one_op(13, "ReduceMax", "N,3,4", axes(&[2])),
        one_op(13, "ReduceL2", "N,3,4", axes(&[-1])),
    ];
    for before in cases {
        for opset in [18, 20, NEWEST] {
            raised(&before, opset);
        }
    }
}

#[test]
fn splits_say_how_many_parts() {
    let split = |opset, attributes: Vec<Attribute>| {
        let builder = ModelBuilder::new(opset).input("x", DataType::Float, "N,4,3");
        model(
            builder
                .op("Split", &["x"], "a,b", attributes)
                .output("a")
                .output("b"),
        )
    };
    let equal = split(11, vec![Attribute::int("axis", 1)]);
    let parts = vec![Attribute::int("axis", 1), Attribute::ints("split", &[1, 3])];
    assert!(text(&raised(&equal, 18)).contains("num_outputs"));
    assert!(!text(&raised(&split(11, parts), 18)).contains("num_outputs"));
}

#[test]
fn batch_norm_keeps_one_output() {
    let builder = ModelBuilder::new(8).input("x", DataType::Float, "N,2,3,3");
    let builder = ["scale", "bias", "mean"]
        .iter()
        .zip(0..)
        .fold(builder, |b, (name, i)| b.param(name, weight(i, &[2])));
    let builder = builder.param("var", Tensor::f32s(&[2], vec![0.5, 2.0]));
    let before = model(
        builder
            .op(
                "BatchNormalization",
                &["x", "scale", "bias", "mean", "var"],
                "y",
                [Attribute::int("spatial", 1)],
            )
            .output("y"),
    );
    assert!(!text(&raised(&before, 15)).contains("spatial"));
}

#[test]
fn what_has_no_new_form_is_refused() {
    let mut old = one_op(
        18,
        "GroupNormalization",
        "N,4,3",
        vec![Attribute::int("num_groups", 2)],
    );
    let refused = raise(&mut old, 21);
    assert!(
        matches!(
            refused,
            Err(PassError::Unsupported {
                reason: Reason::NoRewrite(_),
                ..
            })
        ),
        "{refused:?}"
    );
}

#[test]
fn opsets_go_up_only() {
    let mut newer = one_op(18, "Relu", "N,4", vec![]);
    for wanted in [17, NEWEST + 1] {
        let refused = raise(&mut newer, wanted);
        let out_of_range = PassError::Model(Reason::OpsetOutOfRange {
            from: 18,
            to: wanted,
            newest: NEWEST,
        });
        assert_eq!(
            refused.map_err(|e| e.to_string()),
            Err(out_of_range.to_string())
        );
    }
    assert_eq!(newer.opset(""), Some(18));
}
