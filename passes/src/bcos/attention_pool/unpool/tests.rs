use bcosc_ir::{Attribute, Tensor};

use super::*;
use crate::Settings;
use crate::bcos::attention_pool::testing::tower;
use crate::testing::{Layers, batch, image, infer, model, outputs, passed, weight};

fn asked() -> Settings {
    Settings {
        attention_unpool: true,
        ..Settings::default()
    }
}

fn unpooled(before: &Model, settings: &Settings) -> Result<(Model, Outcome), PassError> {
    let mut before = before.clone();
    infer(&mut before);
    passed(&[&UNPOOL_ATTENTION], &before, settings, None)
}

#[test]
fn every_position_gets_a_unit_vector_of_its_own() {
    let before = model(tower(false));
    let (after, _) = match unpooled(&before, &asked()) {
        Ok(done) => done,
        Err(error) => panic!("{error}"),
    };
    // Written by hand, with the weights of the same names.
    let reference = image("batch,4,3,2")
        .conv("x", "map", &[4, 4, 1, 1], vec![])
        .param("flat", Tensor::i64_vec(&[0, 4, 6]))
        .op("Reshape", &["map", "flat"], "rows", [])
        .op(
            "Transpose",
            &["rows"],
            "features",
            [Attribute::ints("perm", &[2, 0, 1])],
        )
        .matmul("features", "v0", &[4, 4])
        .param("vectors", Tensor::i64_vec(&[-1, 4]))
        .op("Reshape", &["v0", "vectors"], "list", [])
        .linear("list", "embedding", 4, 3)
        .op(
            "LpNormalization",
            &["embedding"],
            "unit",
            [Attribute::int("axis", -1)],
        )
        .param("shape", Tensor::i64_vec(&[6, -1, 3]))
        .op("Reshape", &["unit", "shape"], "y", [])
        .output("y");
    let inputs = batch(&before);
    let expected = outputs(&model(reference), &inputs);
    outputs(&after, &inputs)[0].assert_close(&expected[0], 1e-5);
    let gone = |name| after.graph.value_named(name).is_none();
    assert!(gone("q0") && gone("k0") && gone("weights"));
}

#[test]
fn nothing_happens_unasked() {
    let outcome = match unpooled(&model(tower(true)), &Settings::default()) {
        Ok((_, outcome)) => outcome,
        Err(error) => panic!("{error}"),
    };
    assert!(outcome.changes.is_empty());
}

#[test]
fn a_model_without_an_attention_pool_is_refused() {
    let before = model(
        image("batch,4")
            .param("w", weight(1, &[4, 2]))
            .op("MatMul", &["x", "w"], "y", [])
            .output("y"),
    );
    match unpooled(&before, &asked()) {
        Err(PassError::Model(reason)) => assert_eq!(reason, Reason::NoAttentionPool),
        other => panic!("{:?}", other.map(|(_, outcome)| outcome)),
    }
}
