use bcosc_ir::{Attribute, DataType, ModelBuilder};
use bcosc_testing::{Layers, batch, image, model, outputs};

use super::*;

/// A classifier of four whose logits are `[N, 4, 1, 1]`, before what `end` adds.
fn classifier(end: impl Fn(ModelBuilder) -> ModelBuilder) -> Model {
    let logits = image("batch,3,4,4")
        .conv("x", "features", &[4, 3, 1, 1], vec![])
        .op("GlobalAveragePool", &["features"], "logits", []);
    model(end(logits))
}

/// Cuts, and compares what is put out with the logits.
fn assert_cut(end: impl Fn(ModelBuilder) -> ModelBuilder, expected: Option<Probability>) {
    let logits = classifier(|builder| builder.output_as("logits", DataType::Float, "batch,4,1,1"));
    let mut cut = classifier(end);
    let inputs = batch(&cut);
    assert_eq!(before_probabilities(&mut cut), expected);
    if expected.is_some() {
        assert_eq!(cut.graph.outputs().len(), 1);
        let numbers = |model: &Model| outputs(model, &inputs)[0].data.clone();
        assert_eq!(numbers(&cut), numbers(&logits));
    }
}

#[test]
fn every_kind_of_probability_is_cut() {
    let kinds = [
        ("Softmax", Probability::Softmax),
        ("LogSoftmax", Probability::Softmax),
        ("Sigmoid", Probability::Sigmoid),
    ];
    for (op, kind) in kinds {
        let axis = || match op {
            "Sigmoid" => vec![],
            _ => vec![Attribute::int("axis", 1)],
        };
        assert_cut(
            |b| b.op(op, &["logits"], "p", axis()).output("p"),
            Some(kind),
        );
    }
    let written_out = |b: ModelBuilder| {
        b.op("Softmax", &["logits"], "p", [Attribute::int("axis", 1)])
            .op("Log", &["p"], "log", [])
            .output("log")
    };
    assert_cut(written_out, Some(Probability::Softmax));
}

#[test]
fn views_may_follow() {
    let softmax = |b: ModelBuilder| b.op("Softmax", &["logits"], "p", [Attribute::int("axis", 1)]);
    assert_cut(
        |b| {
            softmax(b)
                .op("Flatten", &["p"], "flat", [])
                .op("Identity", &["flat"], "y", [])
                .output("y")
        },
        Some(Probability::Softmax),
    );
    assert_cut(
        |b| {
            let axes = bcosc_ir::Tensor::i64_vec(&[2, 3]);
            softmax(b)
                .param("axes", axes)
                .op("Squeeze", &["p", "axes"], "y", [])
                .output("y")
        },
        Some(Probability::Softmax),
    );
}

#[test]
fn of_several_outputs_the_explained_one_is_cut() {
    let with_label = |b: ModelBuilder| {
        b.op("Flatten", &["logits"], "flat", [])
            .op("ArgMax", &["flat"], "label", [Attribute::int("axis", 1)])
            .op("Softmax", &["flat"], "p", [])
    };
    assert_cut(
        |b| {
            with_label(b)
                .output_as("label", DataType::Int64, "batch,1")
                .output_as("p", DataType::Float, "batch,4")
        },
        Some(Probability::Softmax),
    );
    // Types that the file leaves out are inferred.
    assert_cut(
        |b| with_label(b).output("label").output("p"),
        Some(Probability::Softmax),
    );
    // The logits come first: they are explained as they are.
    assert_cut(
        |b| {
            with_label(b)
                .output_as("flat", DataType::Float, "batch,4")
                .output_as("p", DataType::Float, "batch,4")
        },
        None,
    );
}

#[test]
fn a_gate_in_the_middle_stays() {
    let gated = |b: ModelBuilder| {
        b.op("Sigmoid", &["logits"], "gate", [])
            .op("Mul", &["gate", "logits"], "y", [])
            .output("y")
    };
    assert_cut(gated, None);
}

#[test]
fn declared_sizes_are_those_of_the_logits() {
    let mut cut = model(
        image("batch,3,4,4")
            .input("shape", DataType::Int64, "axes")
            .op("Reshape", &["x", "shape"], "logits", [])
            .op("Softmax", &["logits"], "p", [])
            .output_as("p", DataType::Float, "batch,4"),
    );
    assert!(before_probabilities(&mut cut).is_some());
    let output = cut.graph.outputs()[0].info.r#type.as_deref();
    let declared = output.and_then(bcosc_ir::TensorType::from_proto);
    assert_eq!(
        declared.map(|t| t.to_string()).as_deref(),
        Some("float[batch,4]")
    );
}
