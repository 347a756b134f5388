//! `--biases carry`: at B = 1 the function of the original, and contributions that leave nothing of it out.

mod common;

use std::collections::BTreeSet;

use bcosc::passes::{Biases, InputContract};
use bcosc::{
    Converted, Error, ExplainOptions, Metadata, Options, Preset, convert, explanation_graph,
};
use bcosc_engine::default_interpreter;
use bcosc_ir::{Interpreter, Model, Patch, Tensor, Tensors, Use};
use common::{fixture, golden, largest_difference, outputs, spread, with_inverse};

fn options(biases: Biases) -> Options {
    let mut options = Options::default();
    options.settings.biases = Some(biases);
    options.settings.input = InputContract::AddInverse;
    options.settings.normalization = Some(Preset::Imagenet.normalization());
    options.settings.absorb_normalization = true;
    options
}

/// A model with some of its constants set to zero.
fn without(model: &Model, zero: &BTreeSet<String>) -> Model {
    let mut model = model.clone();
    for name in zero {
        let value = model.graph.value_named(name).unwrap();
        let dims = model.graph.constant(value).unwrap().dims();
        let zeros = vec![0.0; dims.iter().product::<u64>() as usize];
        let [Use::Input { node, slot }] = model.graph.uses(value)[..] else {
            panic!("one node adds {name}");
        };
        let mut patch = Patch::at(node);
        let zeros = patch.parameter("zeros", Tensor::f32s(&dims, zeros));
        patch.set_input(node, slot, Some(zeros));
        model.graph.apply(patch).unwrap();
    }
    model
}

/// The names of the constants that the verdict finds.
fn constants(converted: &Converted) -> BTreeSet<String> {
    let verdicts = &converted.report.linearity;
    assert!(verdicts.iter().all(|verdict| verdict.dynamic_linear));
    let constants = verdicts.iter().flat_map(|verdict| &verdict.constants);
    let names = constants.map(|found| found.constant.clone());
    names.filter(|name| !name.contains("logit_bias")).collect()
}

/// The largest residual of an image, as a share of its logit.
fn residual(model: &Model, images: &Tensor) -> f64 {
    let bytes = bcosc_ir::onnx::encode(&model.to_proto()).unwrap().to_vec();
    let graph = explanation_graph(bytes, &ExplainOptions::default()).unwrap();
    let count = images.dims()[0];
    let names = graph.graph.inputs();
    let name = |i: usize| graph.graph.value_name(names[i]).to_owned();
    let inputs = Tensors::from([
        (name(0), with_inverse(images)),
        (name(1), Tensor::i64s(&[count], vec![-1; count as usize])),
    ]);
    let found = default_interpreter().run(&graph, &inputs).unwrap();
    let logits = found["logits"].to_f32s().unwrap();
    let classes = found["class"].to_i64s().unwrap();
    let bias = Metadata::read(model, "it").unwrap().unwrap().logit_bias;
    let contributions = found["contributions"].to_f32s().unwrap();
    let each = contributions.len() / count as usize;
    let shares = contributions.chunks(each).enumerate().map(|(i, parts)| {
        let logit = f64::from(logits[10 * i + classes[i] as usize]) - bias;
        let sum: f64 = parts.iter().map(|x| f64::from(*x)).sum();
        assert!(logit.abs() > 1e-3, "{logit}");
        (sum - logit).abs() / logit.abs()
    });
    shares.fold(0.0, f64::max)
}

/// Checks a network whose constants `zero` are position embeddings and tokens.
fn check(network: &str, file: &str, zero: &[&str]) {
    let path = fixture(network, file);
    let images = golden(network, "image");
    let kept = convert(&path, &options(Biases::Keep)).unwrap();
    let carried = convert(&path, &options(Biases::Carry)).unwrap();
    let linear = |biases| {
        let mut options = options(biases);
        options.settings.b = 1.0;
        outputs(&convert(&path, &options).unwrap(), with_inverse(&images))
    };
    let (expected, found) = (linear(Biases::Keep), linear(Biases::Carry));
    let difference = largest_difference(&expected, &found);
    assert!(
        difference <= 1e-4 * spread(&expected),
        "{network}: {difference:e}"
    );
    let metadata = Metadata::read(&carried.model, network).unwrap().unwrap();
    assert!(metadata.biases_carried && !metadata.biases_kept);
    assert!(constants(&kept).len() > zero.len(), "{network} has biases");
    let zero: BTreeSet<String> = zero.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(constants(&carried), zero, "{network}");
    let residual = residual(&without(&carried.model, &zero), &images);
    assert!(
        residual < 1e-4,
        "{network}: {residual:e} of the logit is left"
    );
}

#[test]
fn convolutional_networks_are_explained_whole() {
    for network in ["resnet_tiny", "resnet_tiny_grouped", "densenet_tiny"] {
        check(network, "model.folded.onnx", &[]);
    }
    check("resnet_tiny", "model.onnx", &[]);
}

#[test]
fn transformers_are_explained_whole_but_for_positions() {
    check("vit_tiny", "model.onnx", &["node_cat.value"]);
    check("vitc_tiny", "model.onnx", &["node_cat.value"]);
}

#[test]
fn the_deploy_form_is_proved() {
    for network in ["resnet_tiny", "vit_tiny"] {
        let mut options = options(Biases::Carry);
        options.settings.deploy = true;
        let converted = convert(fixture(network, "model.folded.onnx"), &options).unwrap();
        assert!(
            converted.report.proof.unwrap().deployed.is_some(),
            "{network}"
        );
    }
}

#[test]
fn it_needs_an_input_with_the_inverse() {
    let mut options = options(Biases::Carry);
    options.settings.absorb_normalization = false;
    options.settings.input = InputContract::Same;
    let error = convert(fixture("resnet_tiny", "model.onnx"), &options).unwrap_err();
    assert!(matches!(error, Error::Options(_)), "{error}");
    let mut options = self::options(Biases::Carry);
    options.passes.skip = vec!["double-input".to_owned()];
    let error = convert(fixture("resnet_tiny", "model.onnx"), &options).unwrap_err();
    assert!(matches!(error, Error::MissingPass { .. }), "{error}");
}
