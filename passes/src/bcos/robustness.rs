//! Tests with broken models: recipes return a model or an error that names a node, and never panic.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bcosc_engine::default_interpreter;
use bcosc_ir::onnx::proto::{ModelProto, NodeProto, TensorProto};
use bcosc_ir::{Attribute, Model, Tensor};

use crate::recipe::CNN;
use crate::testing::{Layers, contract, image, inputs_for, model, weight};
use crate::{Context, InputContract, Pass, Settings, pipeline};

/// A small model with all operators that recipes handle.
fn network() -> ModelProto {
    let ints = Attribute::ints;
    let windowed = vec![
        ints("strides", &[2, 1]),
        ints("pads", &[1, 0, 1, 1]),
        ints("dilations", &[1, 2]),
        Attribute::int("group", 1),
    ];
    let pool = [
        ints("kernel_shape", &[2, 2]),
        ints("strides", &[1, 1]),
        ints("pads", &[0, 0, 1, 1]),
        Attribute::int("ceil_mode", 1),
    ];
    image("batch,3,8,8")
        .biased_conv("x", "a", &[4, 3, 3, 3], windowed)
        .norm("a", "an", 4)
        .op("Relu", &["an"], "ar", [])
        .op("MaxPool", &["ar"], "p", pool)
        .conv("p", "b", &[4, 2, 1, 1], vec![Attribute::int("group", 2)])
        .param("bb", weight(1, &[1, 4, 1, 1]))
        .op("Add", &["b", "bb"], "bs", [])
        .op("Relu", &["bs"], "br", [])
        .param("ls", weight(2, &[5]))
        .param("lb", weight(3, &[5]))
        .op("LayerNormalization", &["br", "ls", "lb"], "ln", [])
        .param("axes", Tensor::i64_vec(&[2, 3]))
        .op("ReduceMean", &["ln"], "g", [ints("axes", &[2, 3])])
        .param("shape", Tensor::i64_vec(&[0, 4]))
        .op("Reshape", &["g", "shape"], "f", [])
        .matmul("f", "m", &[4, 5])
        .param("mb", weight(4, &[5]))
        .op("Add", &["m", "mb"], "y", [])
        .linear("f", "z", 4, 3)
        .output("y")
        .output("z")
        .proto()
}

/// All models with one defect, with a description of the defect.
fn broken() -> Vec<(String, ModelProto)> {
    let whole = network();
    let mut found = vec![("nothing".to_owned(), whole.clone())];
    let graph = whole.graph.clone().unwrap_or_default();
    let mut add = |what: String, change: &dyn Fn(&mut ModelProto)| {
        let mut changed = whole.clone();
        change(&mut changed);
        found.push((what, changed));
    };
    for (n, node) in graph.node.iter().enumerate() {
        let op = node.op_type();
        // Nothing reads this one, whose operator has no inference either.
        add(
            format!("an unknown operator behind {op} {n}, without outputs"),
            &|m| {
                let input = node_of(m, n).output.clone();
                let op_type = Some("Unknown".to_owned());
                let graph = m.graph.get_or_insert_default();
                graph.node.push(NodeProto {
                    op_type,
                    input,
                    ..NodeProto::default()
                });
            },
        );
        for slot in 0..node.input.len() {
            add(format!("{op} {n} without input {slot}"), &|m| {
                node_of(m, n).input[slot].clear();
            });
            add(format!("{op} {n} with {slot} inputs"), &|m| {
                node_of(m, n).input.truncate(slot);
            });
            add(format!("{op} {n} twice on input {slot}"), &|m| {
                let node = node_of(m, n);
                let name = node.input[slot].clone();
                node.input.push(name);
            });
        }
        for (a, attribute) in node.attribute.iter().enumerate() {
            let name = attribute.name();
            let lists: [&[i64]; 6] = [
                &[],
                &[0],
                &[-1, -1],
                &[i64::MAX; 2],
                &[1; 9],
                &[i64::MIN; 4],
            ];
            for list in lists {
                add(format!("{op} {n} with {name} = {list:?}"), &|m| {
                    let attribute = &mut node_of(m, n).attribute[a];
                    attribute.ints = list.to_vec();
                    attribute.i = list.first().copied();
                });
            }
        }
    }
    for (i, parameter) in graph.initializer.iter().enumerate() {
        let name = parameter.name();
        let others = [
            ("empty", Tensor::f32s(&[0], vec![])),
            ("empty of rank 4", Tensor::f32s(&[4, 0, 3, 3], vec![])),
            ("a scalar", Tensor::f32s(&[], vec![1.0])),
            ("one number", Tensor::f32s(&[1], vec![1.0])),
            ("of rank 2", weight(1, &[2, 3])),
            ("of rank 5", weight(1, &[2, 1, 1, 1, 2])),
            ("not a number", Tensor::f32s(&[4], vec![f32::NAN; 4])),
            ("integers", Tensor::i64_vec(&[-7, i64::MAX, 0, 1])),
        ];
        for (what, tensor) in others {
            add(format!("{name} {what}"), &|m| {
                let tensor = tensor.clone().into_proto();
                let name = Some(name.to_owned());
                *parameter_of(m, i) = TensorProto { name, ..tensor };
            });
        }
        add(format!("{name} infinite"), &|m| {
            let parameter = parameter_of(m, i);
            if let Some(bytes) = &parameter.raw_data {
                let infinity = f32::INFINITY.to_le_bytes();
                let bytes = infinity.iter().copied().cycle().take(bytes.len());
                parameter.raw_data = Some(bytes.collect::<Vec<u8>>().into());
            }
        });
        add(format!("{name} cut short"), &|m| {
            let parameter = parameter_of(m, i);
            parameter.raw_data = parameter.raw_data.as_ref().map(|b| b.slice(..b.len() / 2));
        });
        add(format!("{name} declared too large"), &|m| {
            parameter_of(m, i).dims = vec![1 << 40, 3, 3, 3];
        });
        add(format!("{name} missing"), &|m| {
            if let Some(graph) = &mut m.graph {
                graph.initializer.remove(i);
            }
        });
    }
    found
}

fn node_of(model: &mut ModelProto, n: usize) -> &mut bcosc_ir::onnx::proto::NodeProto {
    &mut model.graph.get_or_insert_default().node[n]
}

fn parameter_of(model: &mut ModelProto, i: usize) -> &mut TensorProto {
    &mut model.graph.get_or_insert_default().initializer[i]
}

/// Runs a recipe on every broken model; returns the descriptions of those that panic.
fn panics(passes: &[&'static Pass], calibrated: bool, settings: &Settings) -> Vec<String> {
    let images = inputs_for(&model(image("batch,3,8,8").output("x")), 2);
    let survives = |proto: ModelProto| {
        let Ok(mut model) = Model::from_proto(proto) else {
            return;
        };
        let cx = Context {
            settings,
            interpreter: default_interpreter(),
            calibration: Some(&images).filter(|_| calibrated),
        };
        if let Err(error) = pipeline::run(&mut model, passes, &cx, |_, _| {}) {
            let text = error.to_string();
            assert!(!text.contains("internal error"), "{text}");
        }
    };
    let mut failed = Vec::new();
    for (what, proto) in broken() {
        if catch_unwind(AssertUnwindSafe(|| survives(proto))).is_err() {
            failed.push(what);
        }
    }
    failed
}

#[test]
fn broken_models_in_canonical_form_do_not_panic() {
    assert_eq!(
        panics(&CNN.concat(), true, &contract(InputContract::Rgb, true)),
        [""; 0]
    );
}

#[test]
fn broken_models_as_they_are_do_not_panic() {
    let settings = Settings {
        deploy: true,
        ..Settings::default()
    };
    assert_eq!(panics(&CNN[1..].concat(), false, &settings), [""; 0]);
}

#[test]
fn the_whole_model_converts() {
    let whole = Model::from_proto(network());
    let settings = contract(InputContract::AddInverse, false);
    let cx = Context {
        settings: &settings,
        interpreter: default_interpreter(),
        calibration: None,
    };
    let passes = CNN.concat();
    let result = whole.map(|mut model| pipeline::run(&mut model, &passes, &cx, |_, _| {}));
    let result = result.map(|result| result.map(|steps| steps.len()).map_err(|e| e.to_string()));
    assert_eq!(result.ok(), Some(Ok(passes.len())));
}
