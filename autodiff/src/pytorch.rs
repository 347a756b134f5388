//! Rules against gradients of PyTorch: `fixtures/autodiff/generate.py` has the cases.

use std::collections::BTreeSet;
use std::path::PathBuf;

use bcosc_ir::{DataType, Model, Tensor, onnx};
use safetensors::SafeTensors;

use crate::detached;
use crate::testing::{backward, floats, pulled_back};

/// The largest error relative to the largest element of a cotangent.
const TOLERANCE: f64 = 1e-5;

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "fixtures", "autodiff"]
        .iter()
        .collect()
}

/// The names of all cases: the operator, and what is special after a dot.
fn cases() -> BTreeSet<String> {
    let files = std::fs::read_dir(folder()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names
        .filter_map(|name| Some(name.strip_suffix(".onnx")?.to_owned()))
        .collect()
}

fn operator(case: &str) -> &str {
    case.split_once('.').map_or(case, |(operator, _)| operator)
}

fn model(case: &str) -> Model {
    let file = onnx::read(&folder().join(format!("{case}.onnx"))).unwrap();
    Model::from_proto(file.model).unwrap()
}

fn tensor(all: &SafeTensors<'_>, name: &str) -> Tensor {
    let found = all.tensor(name).unwrap();
    assert_eq!(found.dtype(), safetensors::Dtype::F32);
    let dims: Vec<u64> = found.shape().iter().map(|&d| d as u64).collect();
    Tensor::from_bytes(DataType::Float, &dims, found.data().to_vec().into())
}

#[test]
fn rules_give_the_gradients_of_pytorch() {
    let bytes = std::fs::read(folder().join("cotangents.safetensors")).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let cases = cases();
    assert_eq!(
        3 * cases.len(),
        all.len(),
        "models without numbers or the reverse: run fixtures/autodiff/generate.py"
    );
    let mut wrong = Vec::new();
    for case in cases {
        let [x, s, dx] = ["x", "s", "dx"].map(|what| tensor(&all, &format!("{case}/{what}")));
        let (_, both) = backward(&case, model(&case));
        let found = pulled_back(&both, &x, &s);
        assert_eq!(found.dims(), dx.dims(), "{case}");
        let (found, dx) = (floats(&found), floats(&dx));
        let scale = dx.iter().fold(0.0, |scale: f64, x| scale.max(x.abs()));
        let errors = found.iter().zip(&dx).map(|(a, b)| (a - b).abs());
        let error = errors.fold(0.0, f64::max) / scale;
        if error > TOLERANCE || !found.iter().all(|x| x.is_finite()) {
            wrong.push(format!("{case}: {error:e}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rule_has_a_case() {
    let cases = cases();
    let covered: BTreeSet<&str> = cases.iter().map(|case| operator(case)).collect();
    let rules: BTreeSet<&str> = detached::operators().collect();
    let missing: Vec<_> = rules.difference(&covered).collect();
    assert!(
        missing.is_empty(),
        "rules without a case in fixtures/autodiff/cases.py: {missing:?}"
    );
    let idle: Vec<_> = covered.difference(&rules).collect();
    assert!(
        idle.is_empty(),
        "cases of operators that are not in detached.rs or transpose.rs: {idle:?}"
    );
    for case in &cases {
        let graph = model(case).graph;
        let mut ops = graph.ops().into_iter().filter_map(|id| graph.op(id));
        assert!(
            ops.any(|op| op.is(operator(case))),
            "{case} lacks its operator"
        );
    }
}
