//! Explanation graphs against the published implementation.

mod common;

use std::path::Path;

use bcosc::passes::{InputContract, LogitBias};
use bcosc::{
    Error, ExplainOptions, Explainer, Images, Options, PredictOptions, Preset, Probability, Source,
    convert, explanation_graph,
};
use bcosc_engine::default_interpreter;
use bcosc_ir::{Attribute, Interpreter, Model, ModelBuilder, Tensor, Tensors};
use bcosc_testing::{Layers, input, weight};
use common::{densenet_as_published, fixture, golden, golden_classes, with_inverse};

/// Images that the fixtures have explanations of.
const IMAGES: u64 = 2;

fn options(preset: Preset) -> Options {
    let mut options = Options::default();
    options.settings.input = InputContract::AddInverse;
    options.settings.normalization = Some(preset.normalization());
    options
}

fn explained(source: impl Into<Source>, options: &Options) -> Model {
    let converted = convert(source, options).unwrap();
    let bytes = converted.to_bytes().unwrap();
    explanation_graph(bytes.to_vec(), &ExplainOptions::default()).unwrap()
}

/// The first images, and a choice of class for each.
fn inputs(model: &Model, images: &Tensor, targets: Vec<i64>) -> Tensors {
    let count = targets.len();
    let dims = images.dims();
    let image = dims[1..].iter().product::<u64>() as usize;
    let values = images.to_f32s().unwrap()[..count * image].to_vec();
    let mut dims = dims;
    dims[0] = count as u64;
    let inputs = model.graph.inputs();
    let name = |i: usize| model.graph.value_name(inputs[i]).to_owned();
    Tensors::from([
        (name(0), Tensor::f32s(&dims, values)),
        (name(1), Tensor::i64s(&[count as u64], targets)),
    ])
}

fn assert_map(what: &str, expected: &Tensor, found: &Tensor) {
    assert_eq!(expected.dims(), found.dims(), "{what}");
    let (expected, found) = (expected.to_f32s().unwrap(), found.to_f32s().unwrap());
    let image = expected.len() / IMAGES as usize;
    for (i, (expected, found)) in expected.chunks(image).zip(found.chunks(image)).enumerate() {
        let largest = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let pairs = expected.iter().zip(found);
        let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest > 0.0);
        assert!(worst <= 1e-3 * largest, "{what} {i}: {:e}", worst / largest);
    }
}

fn matches_published(network: &str, source: impl Into<Source>, options: &Options, complete: bool) {
    let model = explained(source, options);
    let images = with_inverse(&golden(network, "image"));
    let run = |targets| {
        default_interpreter()
            .run(&model, &inputs(&model, &images, targets))
            .unwrap()
    };
    let found = run(vec![-1, -1]);
    let classes = golden_classes(network);
    assert_eq!(found["class"].to_i64s().unwrap(), classes, "{network}");
    assert_map(
        network,
        &golden(network, "explain.weights"),
        &found["weights"],
    );
    if complete {
        let expected = golden(network, "explain.contributions");
        assert_map(network, &expected, &found["contributions"]);
    }
    // Choosing the predicted class equals the default; another class gives another map.
    let asked = run(classes.clone());
    let weights = |found: &Tensors| found["weights"].to_f32s().unwrap();
    assert_eq!(weights(&asked), weights(&found), "{network}");
    let other = run(classes.iter().map(|c| (c + 1) % 10).collect());
    assert_ne!(weights(&other), weights(&found), "{network}");
}

#[test]
fn convolutional_networks_are_explained_as_published() {
    for network in ["resnet_tiny", "resnet_tiny_grouped"] {
        let file = fixture(network, "model.onnx");
        matches_published(network, file, &options(Preset::Imagenet), true);
    }
}

#[test]
fn a_densely_connected_network_is_explained_as_published() {
    let mut options = options(Preset::Imagenet);
    options.settings.keep_max_pool = true;
    matches_published("densenet_tiny", densenet_as_published(), &options, true);
}

#[test]
fn transformers_are_explained_as_published() {
    for network in ["vit_tiny", "vitc_tiny"] {
        let file = fixture(network, "model.onnx");
        matches_published(network, file, &options(Preset::Imagenet), true);
    }
}

/// Colour pictures from images alone, so that what is between is held too: the input's form, the class, the maps.
#[test]
fn pictures_are_those_that_are_published() {
    for network in [
        "resnet_tiny",
        "resnet_tiny_grouped",
        "vit_tiny",
        "vitc_tiny",
    ] {
        let file = fixture(network, "model.onnx");
        pictured_as_published(network, file, &options(Preset::Imagenet));
    }
    let mut options = options(Preset::Imagenet);
    options.settings.keep_max_pool = true;
    pictured_as_published("densenet_tiny", densenet_as_published(), &options);
}

fn pictured_as_published(network: &str, source: impl Into<Source>, options: &Options) {
    let converted = convert(source, options).unwrap();
    let bytes = converted.to_bytes().unwrap().to_vec();
    let explainer = Explainer::open(bytes, &PredictOptions::default()).unwrap();
    let images = golden(network, "image");
    let [_, channels, height, width] = images.dims()[..] else {
        panic!("images have four dimensions")
    };
    let pixels = images.to_f32s().unwrap();
    let expected = golden(network, "explain.rgba").to_f32s().unwrap();
    let sized = explainer.at(height as usize, width as usize).unwrap();
    let image = (channels * height * width) as usize;
    let picture = (4 * height * width) as usize;
    for i in 0..IMAGES as usize {
        let image = Images {
            dims: vec![1, channels, height, width],
            data: pixels[i * image..][..image].to_vec(),
        };
        let explanation = sized.explain(&image, None).unwrap();
        assert_eq!(explanation.class as i64, golden_classes(network)[i]);
        let found = explanation.rgba().unwrap();
        let pairs = expected[i * picture..][..picture].iter().zip(&found);
        let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 1e-3, "{network} {i}: {worst}");
    }
}

/// The deploy form has the same W(x)x.
#[test]
fn deployed_models_are_explained_as_they_were() {
    for network in [
        "resnet_tiny",
        "resnet_tiny_grouped",
        "densenet_tiny",
        "vitc_tiny",
    ] {
        let source = || Source::from(fixture(network, "model.folded.onnx"));
        let plain = options(Preset::Imagenet);
        let mut fast = plain.clone();
        fast.settings.deploy = true;
        let images = with_inverse(&golden(network, "image"));
        let [plain, fast] = [plain, fast].map(|options| {
            let model = explained(source(), &options);
            default_interpreter()
                .run(&model, &inputs(&model, &images, vec![1, 7]))
                .unwrap()
        });
        for map in ["weights", "contributions"] {
            assert_map(network, &plain[map], &fast[map]);
        }
    }
}

/// A gate stays a gate after a product with 1, and a rectified sum is not
/// one.
#[test]
fn deployed_gates_stay_gates() {
    let network = input(17, "batch,3,8,8")
        .conv("x", "a", &[16, 3, 3, 3], [])
        .op("Relu", &["a"], "y", [])
        .op("GlobalAveragePool", &["y"], "pooled", [])
        .conv("pooled", "b", &[16, 16, 1, 1], [])
        .clip("b", "gate", [0.0, 1.0])
        .op("Mul", &["gate", "y"], "gated", [])
        .op("GlobalAveragePool", &["gated"], "c", [])
        .op("Flatten", &["c"], "d", [])
        .matmul("d", "logits", &[16, 5])
        .output("logits")
        .proto();
    let bytes = bcosc_onnx::encode(&network).unwrap().to_vec();
    let values = (0..IMAGES * 192).map(|i| (i * 37 % 101) as f32 / 101.0);
    let images = Tensor::f32s(&[IMAGES, 3, 8, 8], values.collect());
    let [plain, fast] = [false, true].map(|deploy| {
        let mut options = Options::default();
        options.settings.deploy = deploy;
        let model = explained(bytes.clone(), &options);
        let inputs = inputs(&model, &images, vec![1, 3]);
        default_interpreter().run(&model, &inputs).unwrap()
    });
    assert_map(
        "contributions",
        &plain["contributions"],
        &fast["contributions"],
    );
}

/// Models that end in probabilities are explained by the logits before them.
#[test]
fn probabilities_are_explained_by_their_logits() {
    let weight: Vec<f32> = (0..15).map(|i| (i * 7 % 11) as f32 - 5.0).collect();
    let network = || {
        input(17, "batch,3,height,width")
            .param("w", Tensor::f32s(&[5, 3, 1, 1], weight.clone()))
            .op("Conv", &["x", "w"], "scores", [])
            .op("GlobalAveragePool", &["scores"], "means", [])
            .op("Flatten", &["means"], "logits", [])
    };
    let explained = |model: ModelBuilder| {
        let bytes = bcosc_onnx::encode(&model.proto()).unwrap();
        let options = PredictOptions {
            normalization: Some(Preset::None.normalization()),
            ..PredictOptions::default()
        };
        let explainer = Explainer::open(bytes, &options).unwrap();
        let image = Images {
            dims: vec![1, 3, 4, 4],
            data: (0..48).map(|i| (i % 13) as f32 / 13.0).collect(),
        };
        let explanation = explainer.at(4, 4).unwrap().explain(&image, None).unwrap();
        (explainer.predictor.probability, explanation)
    };
    let (probability, plain) = explained(network().output("logits"));
    assert_eq!(probability, Some(Probability::Softmax));
    for (op, expected) in [
        ("Softmax", Probability::Softmax),
        ("LogSoftmax", Probability::Softmax),
        ("Sigmoid", Probability::Sigmoid),
    ] {
        let ending = network().op(op, &["logits"], "probabilities", []);
        let (probability, found) = explained(ending.output("probabilities"));
        assert_eq!(probability, Some(expected));
        assert_eq!(found.logits, plain.logits);
        assert_eq!(found.contributions, plain.contributions);
        let of_logits = expected.of_logits(&plain.logits)[found.class];
        assert_eq!(found.probability, Some(of_logits));
    }
}

#[test]
fn a_tower_is_explained_as_published() {
    let mut options = options(Preset::Clip);
    options.settings.b = 1.25;
    let file = fixture("clip_rn_tiny", "model.onnx");
    matches_published("clip_rn_tiny", file, &options, false);
}

/// Contributions on normalised channels add up to the logit, for every class.
#[test]
fn contributions_add_up_to_the_logit() {
    for network in ["resnet_tiny", "resnet_tiny_grouped", "densenet_tiny"] {
        for file in ["model.onnx", "model.folded.onnx", "model.opset13.onnx"] {
            let mut options = Options::default();
            options.settings.logit_bias = LogitBias::None;
            adds_up(&fixture(network, file), &options);
        }
    }
}

fn adds_up(file: &Path, options: &Options) {
    let network = file.parent().unwrap().file_name().unwrap();
    let model = explained(file, options);
    let images = golden(network.to_str().unwrap(), "image");
    let values = images
        .to_f32s()
        .unwrap()
        .into_iter()
        .map(|x| 4.0 * (x - 0.5));
    let images = Tensor::f32s(&images.dims(), values.collect());
    let found = default_interpreter()
        .run(&model, &inputs(&model, &images, vec![-1, 3]))
        .unwrap();
    let (logits, classes) = (
        found["logits"].to_f32s().unwrap(),
        found["class"].to_i64s().unwrap(),
    );
    assert_eq!(found["weights"].dims()[1], 6);
    assert_eq!(classes[1], 3);
    let contributions = found["contributions"].to_f32s().unwrap();
    let map = contributions.len() / IMAGES as usize;
    for (i, contributions) in contributions.chunks(map).enumerate() {
        let logit = f64::from(logits[10 * i + classes[i] as usize]);
        let parts = || contributions.iter().map(|x| f64::from(*x));
        let (sum, sizes): (f64, f64) = (parts().sum(), parts().map(f64::abs).sum());
        let residual = (sum - logit).abs();
        assert!(sizes > 0.0);
        assert!(
            residual <= 1e-4 * logit.abs() + 1e-5 * sizes,
            "{}: {sum:e} for {logit:e}",
            file.display()
        );
    }
}

/// A network without biases, whose batch, height and width are open.
fn open_network(opset: i64, last: &str) -> Vec<u8> {
    let strides = || vec![Attribute::ints("strides", &[2, 2])];
    let pool = vec![
        Attribute::ints("kernel_shape", &[3, 3]),
        Attribute::ints("strides", &[2, 2]),
        Attribute::ints("pads", &[1, 1, 1, 1]),
    ];
    let model = input(opset, "batch,3,height,width")
        .conv("x", "a", &[4, 3, 3, 3], strides())
        .op("Relu", &["a"], "b", [])
        .op("MaxPool", &["b"], "c", pool)
        .conv("c", "d", &[5, 4, 3, 3], strides())
        .op("GlobalAveragePool", &["d"], "e", [])
        .op("Flatten", &["e"], "f", [])
        .op(last, &["f"], "y", [])
        .output("y")
        .finish()
        .unwrap();
    bcosc_ir::onnx::encode(&model.to_proto()).unwrap().to_vec()
}

#[test]
fn sizes_stay_open_and_old_opsets_are_raised() {
    for opset in [11, 17] {
        let bytes = open_network(opset, "Identity");
        let model = explanation_graph(bytes, &ExplainOptions::default()).unwrap();
        for (height, width) in [(23, 24), (30, 25)] {
            let images = weight(0, &[2, 3, height, width]);
            let found = default_interpreter()
                .run(&model, &inputs(&model, &images, vec![-1, 2]))
                .unwrap();
            assert_eq!(found["weights"].dims(), [2, 3, height, width]);
            let logits = found["logits"].to_f32s().unwrap();
            let classes = found["class"].to_i64s().unwrap();
            let contributions = found["contributions"].to_f32s().unwrap();
            let maps = contributions.chunks((height * width) as usize);
            for (i, map) in maps.enumerate() {
                let logit = logits[5 * i + classes[i] as usize];
                let sum: f32 = map.iter().sum();
                assert!((sum - logit).abs() < 1e-4 * logit.abs(), "{sum} {logit}");
            }
        }
    }
}

#[test]
fn a_model_explained_twice_gives_the_same_bytes() {
    let bytes = || {
        let converted = convert(fixture("vit_tiny", "model.onnx"), &Options::default()).unwrap();
        let graph = converted.explanation_graph().unwrap();
        bcosc_ir::onnx::encode(&graph.to_proto()).unwrap()
    };
    assert!(bytes() == bytes());
}

#[test]
fn what_is_not_linear_is_named() {
    let bytes = open_network(17, "Exp");
    let error = explanation_graph(bytes, &ExplainOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Explain { .. }));
    let mut text = String::new();
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        text += &format!("{error}\n");
        cause = error.source();
    }
    assert!(text.contains("because of y"), "{text}");
}
