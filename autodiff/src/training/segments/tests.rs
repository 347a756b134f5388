use bcosc_engine::default_interpreter;
use bcosc_ir::{Attribute, ModelBuilder};
use bcosc_passes::Settings;
use bcosc_testing::{Layers, image, model};

use super::*;

fn cut_with(
    model: &Model,
    original: &Model,
    count: Option<usize>,
) -> Result<Vec<Segment>, PassError> {
    let settings = Settings::default();
    let cx = Context {
        settings: &settings,
        interpreter: default_interpreter(),
        calibration: None,
    };
    segments(model, original, count, false, &cx)
}

/// What leaves each segment of a model that is its own original.
fn cut(builder: ModelBuilder, count: Option<usize>) -> Vec<String> {
    let model = model(builder);
    let found = cut_with(&model, &model, count).unwrap();
    let parts = found.iter();
    parts
        .map(|s| format!("{}: {}", s.layers, s.values.join(" ")))
        .collect()
}

fn ends(builder: ModelBuilder, x: &str) -> ModelBuilder {
    builder
        .op("GlobalAveragePool", &[x], "pooled", [])
        .op("Flatten", &["pooled"], "logits", [])
        .output("logits")
}

fn pads() -> [Attribute; 1] {
    [Attribute::ints("pads", &[1; 4])]
}

/// Plain layers, with norms and activations.
fn plain() -> ModelBuilder {
    let builder = image("batch,3,8,8")
        .conv("x", "a", &[4, 3, 3, 3], pads())
        .norm("a", "a_norm", 4)
        .op("Relu", &["a_norm"], "a_relu", [])
        .conv("a_relu", "b", &[4, 4, 3, 3], pads())
        .op("Relu", &["b"], "b_relu", [])
        .conv("b_relu", "c", &[5, 4, 3, 3], pads());
    ends(builder, "c")
}

#[test]
fn layers_end_behind_their_activations() {
    assert_eq!(cut(plain(), Some(9)), ["1: a_relu", "1: b_relu", "1: "]);
}

#[test]
fn neighbours_are_joined_by_cost() {
    // The last layer costs as much as the second and more than the first.
    assert_eq!(cut(plain(), Some(2)), ["2: b_relu", "1: "]);
    assert_eq!(cut(plain(), Some(1)), ["3: "]);
    assert_eq!(cut(plain(), None).len(), 1);
}

#[test]
fn a_residual_block_stays_whole() {
    let builder = image("batch,3,8,8")
        .conv("x", "a", &[4, 3, 3, 3], pads())
        .op("Relu", &["a"], "stem", [])
        .conv("stem", "b", &[4, 4, 3, 3], pads())
        .op("Relu", &["b"], "inner", [])
        .conv("inner", "c", &[4, 4, 3, 3], pads())
        .op("Add", &["c", "stem"], "sum", [])
        .op("Relu", &["sum"], "block", [])
        .conv("block", "d", &[5, 4, 1, 1], []);
    let found = cut(ends(builder, "d"), Some(9));
    assert_eq!(found, ["1: stem", "2: block", "1: "]);
}

#[test]
fn a_dense_block_is_cut_where_several_values_cross() {
    let mut builder = image("batch,3,8,8").conv("x", "f0", &[2, 3, 3, 3], pads());
    let mut all = vec!["f0".to_owned()];
    for layer in 1..=16u64 {
        let names: Vec<&str> = all.iter().map(String::as_str).collect();
        let (joined, new) = (format!("j{layer}"), format!("f{layer}"));
        builder = builder
            .op("Concat", &names, &joined, [Attribute::int("axis", 1)])
            .conv(&joined, &new, &[2, 2 * layer, 3, 3], pads());
        all.push(new);
    }
    let builder = ends(builder, "f16");
    let whole = model(builder.clone());
    let found = cut(builder, Some(9));
    // A block of 16 layers in pieces of 6; each is compared at all values that it adds.
    assert_eq!(
        found,
        [
            "1: f0",
            "6: f1 f2 f3 f4 f5 f6",
            "6: f7 f8 f9 f10 f11 f12",
            "3: j16",
            "1: "
        ]
    );

    let segments = cut_with(&whole, &whole, Some(9)).unwrap();
    assert!(segments[0].reads.is_empty());
    // The second piece passes on what the first one has computed and the third one reads.
    assert_eq!(segments[1].reads, ["f0"]);
    assert_eq!(
        segments[2].reads,
        ["f0", "f1", "f2", "f3", "f4", "f5", "f6"]
    );
    assert_eq!(segments[4].reads, ["j16"]);
}

#[test]
fn a_model_that_knows_no_places_is_refused() {
    let original = model(plain());
    let mut forgetful = original.clone();
    forgetful.graph.set_provenance(&BTreeMap::new());
    let refused = cut_with(&forgetful, &original, None);
    assert!(matches!(refused, Err(PassError::Model(Reason::NoPlaces))));
}

#[test]
fn a_value_of_another_shape_is_no_border() {
    let original = model(plain());
    let narrow = image("batch,3,8,8")
        .conv("x", "a", &[3, 3, 3, 3], pads())
        .norm("a", "a_norm", 3)
        .op("Relu", &["a_norm"], "a_relu", [])
        .conv("a_relu", "b", &[4, 3, 3, 3], pads())
        .op("Relu", &["b"], "b_relu", [])
        .conv("b_relu", "c", &[5, 4, 3, 3], pads());
    let narrow = model(ends(narrow, "c"));
    let found = cut_with(&narrow, &original, Some(9)).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].values, ["b_relu"]);
}
