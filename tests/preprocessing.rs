//! Models that normalise their input themselves.

use bcosc::passes::{Biases, InputContract, LogitBias};
use bcosc::{Metadata, Options, convert};
use bcosc_engine::default_interpreter;
use bcosc_ir::{Attribute, DataType, Interpreter, Model, ModelBuilder, Tensor};
use bcosc_testing::Layers;

fn numbers(x: [f32; 3]) -> Tensor {
    Tensor::f32s(&[3, 1, 1], x.to_vec())
}

/// A classifier of four on bytes [N, H, W, C].
fn on_bytes() -> Vec<u8> {
    let model = ModelBuilder::new(17)
        .input("pixels", DataType::Uint8, "batch,8,8,3")
        .op("Cast", &["pixels"], "f", [Attribute::int("to", 1)])
        .op(
            "Transpose",
            &["f"],
            "t",
            [Attribute::ints("perm", &[0, 3, 1, 2])],
        )
        .param("mean", numbers([123.675, 116.28, 103.53]))
        .op("Sub", &["t", "mean"], "s", [])
        .param("std", numbers([58.395, 57.12, 57.375]))
        .op("Div", &["s", "std"], "x", [])
        .conv("x", "features", &[6, 3, 3, 3], [])
        .op("Relu", &["features"], "hidden", [])
        .op("GlobalAveragePool", &["hidden"], "pooled", [])
        .op("Flatten", &["pooled"], "flat", [])
        .matmul("flat", "logits", &[6, 4])
        .output_as("logits", DataType::Float, "batch,4")
        .finish()
        .unwrap();
    bcosc_ir::onnx::encode(&model.to_proto()).unwrap().to_vec()
}

#[test]
fn its_normalisation_is_that_of_the_contract() {
    for absorb in [false, true] {
        let mut options = Options::default();
        options.settings.input = InputContract::AddInverse;
        options.settings.absorb_normalization = absorb;
        let converted = convert(on_bytes(), &options).unwrap();
        let graph = &converted.model.graph;
        let input = graph.value_type(graph.inputs()[0]).unwrap();
        assert_eq!(input.to_string(), "float[batch,6,8,8]");
        let noted = Metadata::read(&converted.model, "").unwrap().unwrap();
        for (found, expected) in noted.mean.iter().zip([0.485, 0.456, 0.406]) {
            assert!((found - expected).abs() < 1e-6, "{found}");
        }
        for (found, expected) in noted.std.iter().zip([0.229, 0.224, 0.225]) {
            assert!((found - expected).abs() < 1e-6, "{found}");
        }
        assert!(converted.report.warnings[0].contains("normalises its input itself"));
    }
}

#[test]
fn it_stays_where_the_model_takes_what_it_took() {
    let converted = convert(on_bytes(), &Options::default()).unwrap();
    let graph = &converted.model.graph;
    let input = graph.value_type(graph.inputs()[0]).unwrap();
    assert_eq!(input.to_string(), "uint8[batch,8,8,3]");
}

/// Not covered by proofs: the original on bytes against the converted model on the same pixels.
#[test]
fn bytes_and_what_takes_their_place_say_the_same() {
    let byte = |h: usize, w: usize, c: usize| ((37 * h + 11 * w + 83 * c + 5) % 256) as u8;
    let bytes: Vec<u8> = (0..192).map(|i| byte(i / 24, i / 3 % 8, i % 3)).collect();
    let bytes = Tensor::from_bytes(DataType::Uint8, &[1, 8, 8, 3], bytes.into());
    let pixel = |i: usize| f32::from(byte(i / 8 % 8, i % 8, i / 64)) / 255.0;
    let plain = (0..192).map(pixel);
    let doubled: Vec<f32> = plain.clone().chain(plain.map(|x| 1.0 - x)).collect();
    let doubled = Tensor::f32s(&[1, 6, 8, 8], doubled);
    let run = |model: &Model, input: &Tensor| {
        let outputs =
            default_interpreter().run(model, &[("pixels".to_owned(), input.clone())].into());
        outputs.unwrap()["logits"].to_f32s().unwrap()
    };
    let file = bcosc_ir::onnx::decode(on_bytes().into()).unwrap();
    let original = run(&Model::from_proto(file.model).unwrap(), &bytes);
    let mut options = Options::default();
    options.settings.b = 1.0;
    options.settings.biases = Some(Biases::Keep);
    options.settings.logit_bias = LogitBias::None;
    options.settings.input = InputContract::AddInverse;
    for absorb in [false, true] {
        options.settings.absorb_normalization = absorb;
        let converted = run(&convert(on_bytes(), &options).unwrap().model, &doubled);
        let largest = original.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let pairs = original.iter().zip(&converted);
        let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5 * largest, "{worst:e} of {largest:e}");
    }
}

#[test]
fn it_stays_where_no_input_is_doubled() {
    let mut options = Options::default();
    options.settings.input = InputContract::AddInverse;
    options.recipe = bcosc::Recipe::None;
    let copied = convert(on_bytes(), &options).unwrap().model;
    options.recipe = bcosc::Recipe::Cnn;
    options.passes.skip = vec!["double-input".to_owned()];
    let converted = convert(on_bytes(), &options).unwrap().model;
    for model in [copied, converted] {
        let input = model.graph.value_type(model.graph.inputs()[0]).unwrap();
        assert_eq!(input.to_string(), "uint8[batch,8,8,3]");
    }
}
