//! Plans on the CPU against tract. Kernels are compiled as C++; skipped where there is no compiler.

mod common;

use bcosc_engine_cuda::plan;
use bcosc_ir::{Model, onnx};
use common::cpu::{Case, Memory, compiler, run};
use common::{Graph, NETWORKS, difference, fixtures, graph, inputs, reference, shapes};

/// The largest error relative to the largest number of an output.
const TOLERANCE: f64 = 1e-4;

fn check(cases: Vec<(Case, bcosc_ir::Tensors)>, memory: Memory) {
    let Some(compiler) = compiler() else {
        eprintln!("skipped: there is no C++ compiler");
        return;
    };
    let (cases, expected): (Vec<Case>, Vec<_>) = cases.into_iter().unzip();
    let found = run(compiler, &cases, memory);
    let mut wrong = Vec::new();
    for ((case, found), expected) in cases.iter().zip(&found).zip(&expected) {
        let (error, place) = difference(found, expected);
        eprintln!("{}: {error:e}", case.name);
        if error > TOLERANCE {
            wrong.push(format!("{}: {error:e} at {place}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn networks(names: &[&str], kind: Graph, memory: Memory) {
    let cases = names.iter().map(|network| {
        let (model, standard) = graph(network, kind);
        let shapes = shapes(&model, 3, 32);
        let inputs = inputs(&model, &shapes);
        let expected = reference(&standard, &inputs);
        let planned = plan(&model, &shapes).unwrap();
        let name = format!("{network} {kind:?}");
        (
            Case {
                name,
                planned,
                inputs,
            },
            expected,
        )
    });
    check(cases.collect(), memory);
}

#[test]
fn forward_graphs_give_the_numbers_of_tract() {
    networks(&NETWORKS, Graph::Forward, Memory::Apart);
}

#[test]
fn explanations_give_the_numbers_of_tract() {
    networks(&NETWORKS, Graph::Explanation, Memory::Planned);
}

#[test]
fn training_steps_give_the_numbers_of_tract() {
    // The last one has no classes; as logits its embedding overflows in tract's softplus.
    let classifiers = &NETWORKS[..NETWORKS.len() - 1];
    networks(classifiers, Graph::Step, Memory::Planned);
}

/// Models of single operators, of odd sizes.
fn operators(folder: &str) -> Vec<(Case, bcosc_ir::Tensors)> {
    let mut files: Vec<_> = std::fs::read_dir(fixtures().join(folder))
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "onnx"));
    files.sort();
    let mut cases = Vec::new();
    let mut open = Vec::new();
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let model = Model::from_proto(onnx::read(&file).unwrap().model).unwrap();
        let shapes = shapes(&model, 3, 7);
        let inputs = inputs(&model, &shapes);
        let planned = match plan(&model, &shapes) {
            Ok(planned) => planned,
            Err(error) => {
                open.push(format!("{name}: {error}"));
                continue;
            }
        };
        let Ok(expected) = std::panic::catch_unwind(|| reference(&model, &inputs)) else {
            open.push(format!("{name}: not run by tract"));
            continue;
        };
        cases.push((
            Case {
                name,
                planned,
                inputs,
            },
            expected,
        ));
    }
    eprintln!(
        "{folder}: {} cases, not planned or run:\n{}",
        cases.len(),
        open.join("\n")
    );
    cases
}

#[test]
fn operators_give_the_numbers_of_tract() {
    check(operators("autodiff"), Memory::Apart);
}

#[test]
fn other_operators_give_the_numbers_of_tract() {
    check(operators("derivative"), Memory::Planned);
}
