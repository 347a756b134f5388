//! Converted fixtures against the published implementation.

mod common;

use bcosc::passes::{Biases, InputContract, LogitBias};
use bcosc::{Options, Preset, convert};
use common::{
    densenet_as_published, fixture, golden, largest_difference, normalised, outputs, spread,
    with_inverse,
};

const NETWORKS: [&str; 3] = ["resnet_tiny", "resnet_tiny_grouped", "densenet_tiny"];
const EXPORTS: [&str; 3] = ["model.onnx", "model.folded.onnx", "model.opset13.onnx"];

#[test]
fn nothing_changes_at_b_1_with_everything_kept() {
    let mut options = Options::default();
    options.settings.b = 1.0;
    options.settings.biases = Some(Biases::Keep);
    options.settings.keep_max_pool = true;
    options.settings.logit_bias = LogitBias::None;
    for network in NETWORKS {
        let images = normalised(&golden(network, "image"), &Preset::Imagenet.normalization());
        let expected = golden(network, "original.logits").to_f32s().unwrap();
        let scale = expected.iter().fold(0.0f32, |a, x| a.max(x.abs()));
        for export in EXPORTS {
            let converted = convert(fixture(network, export), &options).unwrap();
            let found = outputs(&converted, images.clone());
            let relative = largest_difference(&expected, &found) / scale;
            assert!(relative < 1e-5, "{network}/{export}: {relative:e}");
            let proved = converted.report.proof.unwrap().exact.overall.max_relative;
            assert!(proved < 1e-5, "{network}/{export}: proof at {proved:e}");
        }
    }
}

/// Norm statistics are those of the original in the golden data, so norms must not be folded.
fn matches_published(b: f64, name: &str, adjust: impl Fn(&mut Options)) {
    let mut options = Options::default();
    options.settings.b = b;
    options.settings.input = InputContract::AddInverse;
    options.settings.normalization = Some(Preset::Imagenet.normalization());
    adjust(&mut options);
    for network in NETWORKS {
        let images = with_inverse(&golden(network, "image"));
        let expected = golden(network, name).to_f32s().unwrap();
        let converted = if network == "densenet_tiny" {
            options.settings.keep_max_pool = true;
            convert(densenet_as_published(), &options)
        } else {
            convert(fixture(network, "model.onnx"), &options)
        };
        let found = outputs(&converted.unwrap(), images);
        let relative = largest_difference(&expected, &found) / spread(&expected);
        assert!(
            relative < 1e-3,
            "{network} at B = {b}: {relative:e} of the spread"
        );
    }
}

#[test]
fn b_2_matches_the_published_implementation() {
    matches_published(2.0, "b2.logits", |_| {});
}

#[test]
fn b_1_5_matches_the_published_implementation() {
    matches_published(1.5, "b1_5.logits", |_| {});
}

#[test]
fn the_deployed_form_matches_too() {
    matches_published(2.0, "b2.logits", |options| options.settings.deploy = true);
}

#[test]
fn the_deployed_form_is_proved_where_it_can_be() {
    let mut options = Options::default();
    options.settings.deploy = true;
    let mut proved = 0;
    for network in ["resnet_tiny", "densenet_tiny"] {
        for b in [1.5, 2.0] {
            options.settings.b = b;
            let converted = convert(fixture(network, "model.onnx"), &options).unwrap();
            let proof = converted.report.proof.unwrap();
            assert_eq!(
                proof.deployed.is_some(),
                proof.sensitivity.depends_on_input()
            );
            if let Some(figures) = proof.deployed {
                assert!(figures.overall.max_relative < 1e-4);
                proved += 1;
            }
        }
    }
    assert!(proved > 0);
}
