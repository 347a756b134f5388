//! The verdict on dynamic linearity against numbers: with every detached operand held at its value for
//! one image, the graph must be linear in another image, but for the constants that the verdict names.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use bcosc::passes::analysis::linearity::{Class, Linearity};
use bcosc::{Converted, Options, convert};
use bcosc_engine::default_interpreter;
use bcosc_ir::onnx::proto::{ModelProto, NodeProto, ValueInfoProto};
use bcosc_ir::{Attribute, Graph, Interpreter, Model, Op, Patch, Tensor, Tensors};
use bcosc_testing::infer;
use bcosc_testing::message::node;
use common::{fixture, golden};

/// Suffix of the names of values that are held fixed.
const FIXED: &str = "#fixed";
/// Avoids division by zero; values are far larger.
const TINY: f32 = 1e-30;

fn typed(model: &Model) -> Model {
    let mut model = model.clone();
    infer(&mut model);
    model
}

fn converted(network: &str, file: &str) -> Converted {
    let mut options = Options::default();
    options.settings.logit_bias = bcosc::passes::LogitBias::None;
    options.verification.when = bcosc::Verify::Off;
    convert(fixture(network, file), &options).unwrap()
}

struct Frozen {
    opset: i64,
    proto: ModelProto,
    extra: Vec<NodeProto>,
}

impl Frozen {
    fn op(&mut self, op_type: &str, inputs: &[&str], output: &str) {
        self.extra.push(node(op_type, inputs, &[output]));
    }

    /// The mean along an axis, given as an input from opset 18 on.
    fn mean(&mut self, x: &str, axis: i64, output: &str) {
        if self.opset >= 18 {
            let axes = if axis < 0 { "#last" } else { "#behind" };
            return self.op("ReduceMean", &[x, axes], output);
        }
        self.op("ReduceMean", &[x], output);
        let node = self.extra.last_mut().unwrap();
        let axes = Attribute::ints("axes", &[axis]);
        node.attribute.push(axes.proto().clone());
    }

    /// `y = x * (f(x0) / x0)`.
    fn gate(&mut self, x: &str, y: &str) {
        let (x0, y0) = (format!("{x}{FIXED}"), format!("{y}{FIXED}"));
        let (safe, factor) = (format!("{y}#safe"), format!("{y}#factor"));
        self.op("Add", &[&x0, "#tiny"], &safe);
        self.op("Div", &[&y0, &safe], &factor);
        self.op("Mul", &[x, &factor], y);
    }
}

/// The graph twice: once on an image that is held fixed, and once on another, with every factor taken
/// from the first. Constants in `zeroed` are zero in the second.
fn frozen(model: &Model, zeroed: &BTreeSet<String>) -> Model {
    let graph = &model.graph;
    let linearity = Linearity::of(graph);
    let classes: BTreeMap<String, Class> = linearity
        .classes()
        .into_iter()
        .map(|(id, class)| (graph.value_name(graph.output(id, 0)).to_owned(), class))
        .collect();
    let mut detached: BTreeSet<(String, usize)> = BTreeSet::new();
    for id in graph.ops() {
        let name = graph.value_name(graph.output(id, 0));
        for slot in 0..graph.inputs_of(id).len() {
            if linearity.is_detached(id, slot as u32) {
                detached.insert((name.to_owned(), slot));
            }
        }
    }
    let mut frozen = Frozen {
        opset: model.opset("").unwrap(),
        proto: model.to_proto(),
        extra: Vec::new(),
    };
    let mut body = *frozen.proto.graph.take().unwrap();
    let nodes = std::mem::take(&mut body.node);
    let input = body.input[0].name.clone().unwrap();
    let computed: BTreeSet<String> = nodes
        .iter()
        .flat_map(|node| node.output.iter().cloned())
        .chain([input.clone()])
        .collect();
    let fix = |name: &String| match computed.contains(name) {
        true => format!("{name}{FIXED}"),
        false => name.clone(),
    };
    for node in &nodes {
        let mut fixed = node.clone();
        fixed.name = None;
        fixed.input = node.input.iter().map(fix).collect();
        fixed.output = node.output.iter().map(fix).collect();
        frozen.extra.push(fixed);
    }
    for mut node in nodes {
        let y = node.output[0].clone();
        let class = classes[&y];
        for (slot, name) in node.input.iter_mut().enumerate() {
            if detached.contains(&(y.clone(), slot)) {
                *name = fix(name);
            } else if zeroed.contains(name) {
                *name = format!("{name}#zero");
            }
        }
        let op_type = node.op_type.clone().unwrap();
        let marked = (0..node.input.len()).any(|slot| detached.contains(&(y.clone(), slot)));
        match (class, op_type.as_str()) {
            (Class::Gate, _) if !marked => {
                let x = node.input[0].clone();
                frozen.gate(&x, &y);
            }
            (Class::Norm, "LayerNormalization" | "InstanceNormalization") => {
                // The deviation is fixed and the mean is not: the norm is a gate on what is centred.
                assert!(node.input.len() < 3 || op_type == "InstanceNormalization");
                let x = node.input[0].clone();
                for (x, centred) in [
                    (x.clone(), format!("{y}#c")),
                    (fix(&x), format!("{y}#c{FIXED}")),
                ] {
                    let mean = format!("{centred}#mean");
                    let axis = if op_type.starts_with('L') { -1 } else { 2 };
                    frozen.mean(&x, axis, &mean);
                    frozen.op("Sub", &[&x, &mean], &centred);
                }
                let centred = format!("{y}#c");
                frozen.gate(&centred, &y);
            }
            (Class::Norm, other) => panic!("no frozen form of {other}"),
            _ => frozen.extra.push(node),
        }
    }
    body.node = frozen.extra;
    let shape = body.input[0].r#type.clone();
    body.input.push(ValueInfoProto {
        name: Some(format!("{input}{FIXED}")),
        r#type: shape,
        ..ValueInfoProto::default()
    });
    let mut constant = |name: &str, tensor: Tensor| {
        let mut proto = tensor.into_proto();
        proto.name = Some(name.to_owned());
        body.initializer.push(proto);
    };
    constant("#tiny", Tensor::f32s(&[], vec![TINY]));
    constant("#last", Tensor::i64_vec(&[-1]));
    constant("#behind", Tensor::i64_vec(&[2]));
    for name in zeroed {
        let value = graph.value_named(name).unwrap();
        let dims = graph.constant(value).unwrap().dims();
        let count = dims.iter().product::<u64>() as usize;
        constant(
            &format!("{name}#zero"),
            Tensor::f32s(&dims, vec![0.0; count]),
        );
    }
    body.value_info.clear();
    frozen.proto.graph = Some(Box::new(body));
    Model::from_proto(frozen.proto).unwrap()
}

fn run(model: &Model, inputs: &Tensors) -> Vec<f32> {
    let outputs = default_interpreter().run(model, inputs).unwrap();
    outputs.into_values().next().unwrap().to_f32s().unwrap()
}

fn assert_close(a: &[f32], b: &[f32], scale: &[f32], what: &str) {
    let largest = scale.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let worst = a
        .iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(worst <= 1e-4 * largest, "{what}: {worst:e} of {largest:e}");
}

/// Centres images, so that untrained B-cos networks have outputs above rounding.
fn image(network: &str, scale: f32, offset: f32) -> Tensor {
    let images = golden(network, "image");
    let values = images
        .to_f32s()
        .unwrap()
        .into_iter()
        .map(|x| scale * (x - 0.5) + offset);
    Tensor::f32s(&images.dims(), values.collect())
}

/// The sum of contributions to the first entry of each output vector.
fn contributed(converted: &Converted, input: &str, x: &Tensor) -> Vec<f32> {
    let graph = converted.explanation_graph().unwrap();
    let count = x.dims()[0];
    let inputs = Tensors::from([
        (input.to_owned(), x.clone()),
        (
            "target".to_owned(),
            Tensor::i64s(&[count], vec![0; count as usize]),
        ),
    ]);
    let found = default_interpreter().run(&graph, &inputs).unwrap()["contributions"]
        .to_f64s()
        .unwrap();
    let maps = found.chunks(found.len() / count as usize);
    maps.map(|map| map.iter().sum::<f64>() as f32).collect()
}

fn check(network: &str, file: &str) {
    let converted = converted(network, file);
    let model = typed(&converted.model);
    let verdict = Linearity::of(&model.graph).verdicts().remove(0);
    assert!(verdict.dynamic_linear, "{network}/{file}: {verdict:?}");
    let named: BTreeSet<String> = verdict
        .constants
        .iter()
        .map(|c| c.constant.clone())
        .collect();
    let input = model.graph.value_name(model.graph.inputs()[0]).to_owned();
    let (x0, x1) = (image(network, 4.0, 0.0), image(network, -1.5, 0.25));
    let zero = Tensor::f32s(&x0.dims(), vec![0.0; x0.len() as usize]);
    let sum = |a: &Tensor, b: &Tensor| {
        let (a32, b32) = (a.to_f32s().unwrap(), b.to_f32s().unwrap());
        Tensor::f32s(
            &a.dims(),
            a32.iter().zip(&b32).map(|(a, b)| a + b).collect(),
        )
    };
    let label = format!("{network}/{file}");
    let fixed_name = format!("{input}{FIXED}");
    let on = |model: &Model, x: &Tensor| {
        let inputs = [(input.clone(), x.clone()), (fixed_name.clone(), x0.clone())];
        run(model, &inputs.into())
    };
    let whole = frozen(&model, &BTreeSet::new());
    let output = run(&model, &[(input.clone(), x0.clone())].into());
    assert_close(
        &on(&whole, &x0),
        &output,
        &output,
        &format!("{label}: the same at x0"),
    );
    let at_zero = on(&whole, &zero);
    // Affine: F(a + b) - F(0) = F(a) - F(0) + F(b) - F(0), so that constants do not hide the rest.
    let without =
        |y: Vec<f32>| -> Vec<f32> { y.iter().zip(&at_zero).map(|(y, c)| y - c).collect() };
    let both = without(on(&whole, &sum(&x0, &x1)));
    let (one, other) = (without(on(&whole, &x0)), without(on(&whole, &x1)));
    let apart: Vec<f32> = one.iter().zip(&other).map(|(a, b)| a + b).collect();
    assert_close(&both, &apart, &apart, &format!("{label}: linear"));
    // Position embeddings dominate in an untrained network; the part of x must be above rounding.
    let largest = |y: &[f32]| y.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    assert!(
        largest(&one) > 1e-4 * largest(&output),
        "{label}: nothing depends on x"
    );
    // The output at zero is the sum of the named constant terms.
    let linear = frozen(&model, &named);
    let rest = on(&linear, &zero);
    assert_close(
        &rest,
        &vec![0.0; rest.len()],
        &output,
        &format!("{label}: constants"),
    );
    let w_x = on(&linear, &x0);
    assert_close(&w_x, &one, &one, &format!("{label}: W(x)x"));
    let parts: Vec<f32> = w_x.iter().zip(&at_zero).map(|(a, b)| a + b).collect();
    assert_close(
        &parts,
        &output,
        &output,
        &format!("{label}: W(x)x and constants"),
    );
    // The residual of a logit is the sum of the named constant terms.
    let contributions = contributed(&converted, &input, &x0);
    let length = output.len() / contributions.len();
    let first = |values: &[f32]| -> Vec<f32> { values.iter().step_by(length).copied().collect() };
    let (logits, constants) = (first(&output), first(&at_zero));
    let residuals: Vec<f32> = logits
        .iter()
        .zip(&contributions)
        .map(|(y, c)| y - c)
        .collect();
    assert_close(&residuals, &constants, &one, &format!("{label}: residual"));
}

#[test]
fn convolutional_networks_are_what_the_verdict_says() {
    for network in ["resnet_tiny", "resnet_tiny_grouped", "densenet_tiny"] {
        check(network, "model.onnx");
    }
    check("resnet_tiny", "model.folded.onnx");
}

#[test]
fn transformers_are_what_the_verdict_says() {
    for network in ["vit_tiny", "vitc_tiny"] {
        for file in ["model.onnx", "model.folded.onnx", "model.opset13.onnx"] {
            check(network, file);
        }
    }
}

#[test]
fn a_tower_is_what_the_verdict_says() {
    check("clip_rn_tiny", "model.onnx");
}

#[test]
fn another_operator_in_place_of_a_gate_changes_the_verdict() {
    let mut model = typed(&converted("vit_tiny", "model.folded.onnx").model);
    let is = |graph: &Graph, name: &str| {
        let ops = graph.ops().into_iter();
        ops.filter(|id| graph.op(*id).is_some_and(|op| op.is(name)))
            .collect::<Vec<_>>()
    };
    assert!(Linearity::of(&model.graph).verdicts()[0].dynamic_linear);
    let gelu = is(&model.graph, "Gelu")[0];
    let (x, y) = (
        model.graph.input(gelu, 0).unwrap(),
        model.graph.output(gelu, 0),
    );
    let mut patch = Patch::at(gelu);
    let sigmoid = patch.op(Op::new("", "Sigmoid").named("sigmoid"), &[x.into()]);
    patch.replace(y, sigmoid);
    model.graph.apply(patch).unwrap();
    let model = typed(&model);
    let verdict = Linearity::of(&model.graph).verdicts().remove(0);
    assert!(!verdict.dynamic_linear);
    let sigmoid = is(&model.graph, "Sigmoid")[0];
    assert_eq!(verdict.broken_by, [model.graph.label(sigmoid)]);
}
