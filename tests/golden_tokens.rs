//! Converted transformers and CLIP image encoders against the published implementation.

mod common;

use bcosc::passes::{Biases, InputContract, LogitBias, Reason};
use bcosc::{Converted, Options, Preset, convert};
use common::{fixture, golden, largest_difference, normalised, outputs, spread, with_inverse};

const TRANSFORMERS: [&str; 2] = ["vit_tiny", "vitc_tiny"];
const EXPORTS: [&str; 3] = ["model.onnx", "model.folded.onnx", "model.opset13.onnx"];

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |a, x| a.max(x.abs()))
}

#[test]
fn nothing_changes_at_b_1_with_everything_kept() {
    let mut options = Options::default();
    options.settings.b = 1.0;
    options.settings.biases = Some(Biases::Keep);
    options.settings.keep_head = true;
    options.settings.logit_bias = LogitBias::None;
    for network in TRANSFORMERS {
        let imagenet = Preset::Imagenet.normalization();
        let images = normalised(&golden(network, "image"), &imagenet);
        let expected = golden(network, "original.logits").to_f32s().unwrap();
        for export in EXPORTS {
            let converted = convert(fixture(network, export), &options).unwrap();
            assert_eq!(converted.report.recipe, "vit");
            let found = outputs(&converted, images.clone());
            let relative = largest_difference(&expected, &found) / largest(&expected);
            assert!(relative < 1e-5, "{network}/{export}: {relative:e}");
            let proved = converted.report.proof.unwrap().exact.overall.max_relative;
            assert!(proved < 1e-5, "{network}/{export}: proof at {proved:e}");
        }
    }
}

/// The exports differ in their norms and activations, not in their weights: all have the same golden numbers.
fn matches_published(b: f64, name: &str) {
    let mut options = Options::default();
    options.settings.b = b;
    options.settings.input = InputContract::AddInverse;
    options.settings.normalization = Some(Preset::Imagenet.normalization());
    for network in TRANSFORMERS {
        let images = with_inverse(&golden(network, "image"));
        let expected = golden(network, name).to_f32s().unwrap();
        for export in EXPORTS {
            let converted = convert(fixture(network, export), &options).unwrap();
            let found = outputs(&converted, images.clone());
            let relative = largest_difference(&expected, &found) / spread(&expected);
            assert!(
                relative < 1e-3,
                "{network}/{export} at B = {b}: {relative:e} of the spread"
            );
        }
    }
}

#[test]
fn b_2_matches_the_published_implementation() {
    matches_published(2.0, "b2.logits");
}

#[test]
fn b_1_5_matches_the_published_implementation() {
    matches_published(1.5, "b1_5.logits");
}

fn tower(b: f64, adjust: impl Fn(&mut Options)) -> Converted {
    let mut options = Options::default();
    options.settings.b = b;
    options.settings.input = InputContract::AddInverse;
    options.settings.normalization = Some(Preset::Clip.normalization());
    adjust(&mut options);
    let converted = convert(fixture("clip_rn_tiny", "model.onnx"), &options).unwrap();
    assert_eq!(converted.report.recipe, "clip");
    converted
}

fn assert_embeds(converted: &Converted, name: &str) {
    let images = with_inverse(&golden("clip_rn_tiny", "image"));
    let expected = golden("clip_rn_tiny", name).to_f32s().unwrap();
    let found = outputs(converted, images);
    let relative = largest_difference(&expected, &found) / largest(&expected);
    assert!(relative < 1e-3, "{name}: {relative:e} of the largest");
}

#[test]
fn a_tower_alters_as_published() {
    assert_embeds(&tower(1.0, |_| {}), "b1_departed.embedding");
}

#[test]
fn a_tower_pools_with_attention_as_published() {
    assert_embeds(&tower(1.25, |_| {}), "b1_25.embedding");
}

#[test]
fn an_unpooled_tower_puts_out_every_position_as_published() {
    let converted = tower(1.25, |options| options.settings.attention_unpool = true);
    assert_embeds(&converted, "b1_25.unpooled");
}

#[test]
fn a_b_cos_projection_is_another_network() {
    let linear = tower(1.25, |_| {});
    let converted = tower(1.25, |options| options.settings.bcos_projection = true);
    let layers = |converted: &Converted| {
        let bcos = converted
            .report
            .passes
            .iter()
            .find(|step| step.pass == "bcos");
        bcos.map(|step| step.outcome.changes.len())
    };
    assert_eq!(layers(&converted), layers(&linear).map(|n| n + 1));
}

#[test]
fn every_layer_becomes_b_cos_but_the_projections() {
    // Patch embedding, two blocks of an output projection and two layers, and the head.
    for export in EXPORTS {
        let converted = convert(fixture("vit_tiny", export), &Options::default()).unwrap();
        let bcos = converted
            .report
            .passes
            .iter()
            .find(|step| step.pass == "bcos");
        let outcome = &bcos.unwrap().outcome;
        let linear = outcome
            .skips
            .iter()
            .filter(|skip| skip.reason == Reason::Projection);
        assert_eq!((outcome.changes.len(), linear.count()), (8, 2), "{export}");
    }
}
