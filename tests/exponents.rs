//! Layers with a B of their own, through conversion, proof, metadata and training.

mod common;

use bcosc::{Batch, Error, Metadata, Options, Trainer, TrainingOptions, Weights, convert};
use bcosc_autodiff::training::Exponent;
use bcosc_engine::{SessionOptions, default_engine};
use common::fixture;

fn options(b: f64, last: Option<f64>, layers: &[(&str, f64)]) -> Options {
    let mut options = Options::default();
    options.settings.b = b;
    options.settings.b_last = last;
    let layers = layers
        .iter()
        .map(|(pattern, b)| ((*pattern).to_owned(), *b));
    options.settings.b_layers = layers.collect();
    options
}

#[test]
fn they_are_proved_and_recorded() {
    for deploy in [false, true] {
        let mut options = options(2.0, Some(1.25), &[("/layer1/*conv2*", 1.5)]);
        options.settings.deploy = deploy;
        let converted = convert(fixture("resnet_tiny", "model.opset13.onnx"), &options).unwrap();
        assert!(converted.report.proof.is_some());
        let metadata = Metadata::read(&converted.model, "it").unwrap().unwrap();
        assert_eq!(metadata.b, 2.0);
        let others: Vec<(&str, f64)> = metadata.b_layers.iter().map(|(l, b)| (&**l, *b)).collect();
        let expected = [
            ("/fc/Gemm.conv", 1.25),
            ("/layer1/layer1.0/conv2/Conv", 1.5),
        ];
        assert_eq!(others, expected);
    }
}

#[test]
fn a_pattern_that_matches_nothing_is_an_error() {
    let options = options(2.0, None, &[("nowhere", 1.5)]);
    let error = convert(fixture("resnet_tiny", "model.onnx"), &options).unwrap_err();
    let Error::Pass { source, .. } = error else {
        panic!("{error}")
    };
    let text = source.to_string();
    assert!(
        text.contains("nowhere") && text.contains("node_conv2d"),
        "{text}"
    );
}

/// The loss of the first batch.
fn loss(options: &Options, b: Option<f64>) -> f64 {
    let data = Weights::read(&fixture("training", "steps.safetensors")).unwrap();
    let of = |what: &str| data.get(&format!("batch0/{what}")).unwrap().clone();
    let converted = convert(fixture("training", "network.onnx"), options).unwrap();
    let mut training = TrainingOptions::default();
    if b.is_some() {
        training.step.exponent = Exponent::Input;
    }
    let step = converted.training_step(&training).unwrap();
    let batch = Batch {
        input: "images".to_owned(),
        images: of("images").dims(),
        targets: Some(of("labels").dims()),
        teacher: None,
    };
    let session = SessionOptions::default();
    let mut trainer = Trainer::new(&step, 0, default_engine(), &batch, &session).unwrap();
    let numbers = bcosc::Numbers { b, ..0.1.into() };
    let stepped = trainer.step(of("images"), Some(of("labels")), None, numbers);
    stepped.unwrap().loss
}

#[test]
fn they_grow_with_b_of_the_model() {
    let own = options(2.0, Some(1.25), &[]);
    for (b, alike) in [
        (1.0, options(1.0, None, &[])),
        (1.5, options(1.5, Some(1.125), &[])),
        (2.0, options(2.0, Some(1.25), &[])),
    ] {
        let (found, expected) = (loss(&own, Some(b)), loss(&alike, None));
        assert!(
            (found - expected).abs() < 1e-5,
            "{found} and {expected} at {b}"
        );
    }
    let alone = options(2.0, None, &[]);
    assert!((loss(&alone, None) - loss(&own, None)).abs() > 1e-4);
}

#[test]
fn layers_of_a_linear_model_do_not_grow() {
    let converted = convert(
        fixture("training", "network.onnx"),
        &options(1.0, Some(1.5), &[]),
    );
    let mut training = TrainingOptions::default();
    training.step.exponent = Exponent::Input;
    let error = converted.unwrap().training_step(&training).unwrap_err();
    let Error::Train { source, .. } = error else {
        panic!("{error}")
    };
    assert!(
        source.to_string().contains("B of the model is 1"),
        "{source}"
    );
}
