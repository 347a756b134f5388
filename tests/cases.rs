//! Models of kinds that exporters write and conversions or explanations once got wrong; see `fixtures/README.md`.

mod common;

use bcosc::passes::{InputContract, LogitBias};
use bcosc::{ExplainOptions, InputShape, Options, Preset, convert, explanation_graph};
use bcosc_engine::default_interpreter;
use bcosc_ir::{Interpreter, Model, Tensor, Tensors};
use common::fixture;

fn case(name: &str) -> std::path::PathBuf {
    fixture("cases", &format!("{name}.onnx"))
}

/// Numbers in [-1, 1] that differ.
fn numbers(dims: &[u64]) -> Tensor {
    let count = dims.iter().product::<u64>();
    let element = |i: u64| ((i * 37 % 101) as f32 - 50.0) / 50.0;
    Tensor::f32s(dims, (0..count).map(element).collect())
}

/// What an explanation graph says of the predicted classes of an image that is its first floating-point input.
fn run(graph: &Model, inputs: &[(&str, Tensor)]) -> Tensors {
    let mut all: Tensors = inputs
        .iter()
        .map(|(name, tensor)| ((*name).to_owned(), tensor.clone()))
        .collect();
    let images = inputs[0].1.dims()[0];
    let open = Tensor::i64s(&[images], vec![-1; images as usize]);
    all.insert("target".to_owned(), open);
    default_interpreter().run(graph, &all).unwrap()
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    assert!(largest > 0.0);
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() <= 1e-5 * largest,
            "{found} {expected}"
        );
    }
}

fn contributions_are_sums_over_channels(graph: &Model) {
    let x = numbers(&[2, 24, 32, 3]);
    let found = run(graph, &[("input_1:0", x.clone())]);
    assert_eq!(found["contributions"].dims(), [2, 24, 32]);
    let dims = found["weights"].dims();
    let (channels, area) = (dims[1] as usize, 24 * 32);
    assert_eq!(dims[2..], [24, 32]);
    let (weights, x) = (found["weights"].to_f32s().unwrap(), x.to_f32s().unwrap());
    let at = |i: usize| -> f32 {
        let (image, pixel) = (i / area, i % area);
        let of = |c: usize| {
            let x = x[(image * area + pixel) * 3 + c % 3];
            let x = if c < 3 { x } else { -x };
            x * weights[(image * channels + c) * area + pixel]
        };
        (0..channels).map(of).sum()
    };
    let expected: Vec<f32> = (0..2 * area).map(at).collect();
    assert_close(&found["contributions"].to_f32s().unwrap(), &expected);
}

#[test]
fn contributions_are_summed_over_channels_where_those_come_last() {
    let original = explanation_graph(case("01-nhwc-contributions"), &ExplainOptions::default());
    contributions_are_sums_over_channels(&original.unwrap());
    let converted = convert(case("01-nhwc-contributions"), &Options::default()).unwrap();
    contributions_are_sums_over_channels(&converted.explanation_graph().unwrap());
}

#[test]
fn contracts_on_raw_images_take_the_place_of_the_leading_transpose() {
    let mut options = Options::default();
    options.settings.input = InputContract::AddInverse;
    let unknown = convert(case("01-nhwc-contributions"), &options).unwrap_err();
    assert!(unknown.to_string().contains("--normalization"), "{unknown}");
    options.settings.normalization = Some(Preset::Inception.normalization());
    let expected = [
        (InputContract::AddInverse, "float[unk__1,6,24,32]"),
        (InputContract::Rgb, "float[unk__1,3,24,32]"),
        (InputContract::Same, "float[unk__1,24,32,3]"),
    ];
    for (contract, taken) in expected {
        options.settings.input = contract;
        // The proof holds the result against the original on the same pictures.
        let converted = convert(case("01-nhwc-contributions"), &options).unwrap();
        let graph = &converted.model.graph;
        let input = graph.value_type(graph.inputs()[0]).unwrap();
        assert_eq!(input.to_string(), taken);
        let noted = converted
            .report
            .warnings
            .iter()
            .any(|w| w.contains("[N, C, H, W]"));
        assert_eq!(noted, contract != InputContract::Same);
    }
}

#[test]
fn probabilities_are_explained_by_their_logits() {
    let converted = convert(case("03-softmax-emit-explain"), &Options::default()).unwrap();
    let graph = converted.explanation_graph().unwrap();
    let found = run(&graph, &[("x", numbers(&[2, 3, 32, 32]))]);
    let logits = found["logits"].to_f32s().unwrap();
    assert_eq!(found["logits"].dims(), [2, 4]);
    let sum: f32 = logits[..4].iter().sum();
    assert!(
        (sum - 1.0).abs() > 1e-3,
        "these are probabilities: {logits:?}"
    );
}

#[test]
fn other_inputs_are_constants_of_an_explanation() {
    let mut options = Options::default();
    options.settings.logit_bias = LogitBias::None;
    let converted = convert(case("06-second-input"), &options).unwrap();
    let verdict = &converted.report.linearity[0];
    assert!(verdict.dynamic_linear && !verdict.is_complete());
    let constants: Vec<&str> = verdict
        .constants
        .iter()
        .map(|c| c.constant.as_str())
        .collect();
    assert_eq!(constants, ["meta"]);
    let graph = converted.explanation_graph().unwrap();
    let unexplained = |meta: Tensor| {
        let found = run(
            &graph,
            &[("image", numbers(&[1, 3, 32, 32])), ("meta", meta)],
        );
        let class = found["class"].to_i64s().unwrap()[0] as usize;
        let sum: f32 = found["contributions"].to_f32s().unwrap().iter().sum();
        (found["logits"].to_f32s().unwrap()[class] - sum).abs()
    };
    assert!(unexplained(Tensor::f32s(&[1, 5], vec![0.0; 5])) < 1e-4);
    assert!(unexplained(numbers(&[1, 5])) > 1e-2);
}

#[test]
fn new_input_shapes_leave_outputs_declared() {
    let options = Options {
        input_shapes: vec!["x:N,3,48,48".parse::<InputShape>().unwrap()],
        ..Options::default()
    };
    let converted = convert(case("07-input-shapes-checker"), &options).unwrap();
    let output = &converted.model.to_proto().graph.unwrap().output[0];
    let declared = bcosc_ir::TensorType::from_proto(output.r#type.as_deref().unwrap());
    assert_eq!(declared.unwrap().to_string(), "float[N,10]");
}

#[test]
fn logits_of_one_pixel_are_vectors() {
    for emitted in [false, true] {
        let graph = match emitted {
            false => explanation_graph(case("09-output-1x1"), &ExplainOptions::default()).unwrap(),
            true => {
                let converted = convert(case("09-output-1x1"), &Options::default()).unwrap();
                converted.explanation_graph().unwrap()
            }
        };
        let found = run(&graph, &[("data_0", numbers(&[2, 3, 32, 32]))]);
        assert_eq!(found["logits"].dims(), [2, 10]);
        assert_eq!(found["contributions"].dims(), [2, 32, 32]);
    }
}

#[test]
fn sizes_in_32_bits_do_not_hide_the_logits() {
    let original = explanation_graph(case("14-tf-flatten"), &ExplainOptions::default()).unwrap();
    let converted = convert(case("14-tf-flatten"), &Options::default()).unwrap();
    for graph in [original, converted.explanation_graph().unwrap()] {
        let found = run(&graph, &[("input", numbers(&[2, 32, 32, 3]))]);
        assert_eq!(found["logits"].dims(), [2, 4]);
        assert_eq!(found["contributions"].dims(), [2, 32, 32]);
    }
}
