//! Derivatives against those of PyTorch, and against central differences in double precision.
//!
//! `fixtures/derivative/generate.py` has the cases. Parameters with a gradient become inputs, as in training: a rule may
//! not take them for constants.

mod paths;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bcosc_engine::default_interpreter;
use bcosc_ir::{DataType, Interpreter, Model, Tensor, Tensors, Value, onnx};
use bcosc_testing::{infer, noise, text};
use safetensors::SafeTensors;

use super::{FLAT, RULES, TABLES, gradients, operators};
use crate::lower::lower;
use crate::testing::{dot, floats, like, widened};

/// The largest error in single precision relative to the largest element of a gradient.
const TOLERANCE: f64 = 1e-5;
/// The largest error of central differences relative to the lengths of gradient and direction.
const DIFFERENCE: f64 = 1e-7;
const STEP: f64 = 1.0 / (1 << 17) as f64;
/// Names the folder that graphs of gradients are written to, for `tests/python/gradients.py`.
const WRITE: &str = "BCOSC_GRADIENTS";
/// Variants of cases at a kink, where differences are no slopes.
const KINKS: &[&str] = &["zero", "tied", "bounds", "crossed"];
/// Cases, or operators, whose forward pass or gradient tract does not compute in double precision.
const SINGLE: &[&str] = &[
    "Attention",
    "Div.decomposed_layer_norm",
    "Erf",
    "Gelu",
    "Gemm.00_scaled",
    "Gemm.01_scaled",
    "Gemm.10_scaled",
    "Gemm.11_scaled",
    "GridSample",
    "GroupNormalization",
    "HardSwish",
    "InstanceNormalization",
    "LayerNormalization",
    "LeakyRelu",
    "MeanVarianceNormalization",
    "Mish",
    "Mul.round",
    "RMSNormalization",
    "Resize.linear",
    "Selu",
    "Sigmoid",
    "Softplus",
    "Swish",
];
/// Said of a case that does not run.
const NOT_SINGLE: &str = "neither in SINGLE nor in NOT_RUN";
/// Cases whose forward pass tract does not compute at all, or only with constants.
const NOT_RUN: &[&str] = &[
    "BatchNormalization.image",
    "BatchNormalization.measured",
    "BatchNormalization.vector",
    "Compress",
    "MatMul.vectors",
    "Pad.filled",
    "Pad.filled_axes",
    "Pad.wrap",
    "ReverseSequence",
];

/// A model, and its gradients for a cotangent `s` of `y`.
struct Case {
    name: String,
    x: Tensor,
    s: Tensor,
    grads: BTreeMap<String, Tensor>,
}

impl Case {
    fn all() -> Vec<Case> {
        let mut cases: BTreeMap<String, BTreeMap<String, Tensor>> = BTreeMap::new();
        for file in files("safetensors") {
            let bytes = std::fs::read(file).unwrap();
            let tensors = SafeTensors::deserialize(&bytes).unwrap();
            for (path, view) in tensors.iter() {
                let (case, name) = path.split_once('/').unwrap();
                let dims: Vec<u64> = view.shape().iter().map(|&d| d as u64).collect();
                assert_eq!(view.dtype(), safetensors::Dtype::F32);
                let tensor =
                    Tensor::from_bytes(DataType::Float, &dims, view.data().to_vec().into());
                let case = cases.entry(case.to_owned()).or_default();
                case.insert(name.to_owned(), tensor);
            }
        }
        let found = cases.into_iter().map(|(name, mut tensors)| Case {
            name,
            x: tensors.remove("x").unwrap(),
            s: tensors.remove("s").unwrap(),
            grads: tensors
                .into_iter()
                .map(|(path, grad)| (path.strip_prefix("grad/").unwrap().to_owned(), grad))
                .collect(),
        });
        found.collect()
    }

    fn operator(&self) -> &str {
        self.name.split('.').next().unwrap()
    }

    fn is_at_kink(&self) -> bool {
        let variant = self.name.split_once('.').map_or("", |(_, variant)| variant);
        KINKS.iter().any(|kink| variant.ends_with(kink))
    }

    fn is_among(&self, names: &[&str]) -> bool {
        names.contains(&self.name.as_str()) || names.contains(&self.operator())
    }

    fn proto(&self) -> onnx::proto::ModelProto {
        let path = folder().join(format!("{}.onnx", self.name));
        onnx::read(&path).unwrap().model
    }

    /// The model with all that has a gradient as inputs, and their numbers.
    fn promoted(&self, mut model: Model, dtype: DataType) -> (Model, Tensors) {
        let mut inputs = Tensors::new();
        for name in self.grads.keys() {
            let numbers = match name.as_str() {
                "x" => self.x.clone(),
                _ => {
                    let value = model.graph.value_named(name).unwrap();
                    model.graph.promote(value).unwrap()
                }
            };
            inputs.insert(name.clone(), like(dtype, &numbers, &floats(&numbers)));
        }
        infer(&mut model);
        (model, inputs)
    }

    /// The gradients by name, from a model with inputs.
    fn computed(
        &self,
        mut model: Model,
        mut inputs: Tensors,
        dtype: DataType,
    ) -> Result<Tensors, String> {
        let (s, wrt) = {
            let graph = &mut model.graph;
            let y = graph.value_named("y").unwrap();
            let found = graph.value_type(y).unwrap();
            let names = self.grads.keys();
            let wrt: Vec<Value> = names.map(|name| graph.value_named(name).unwrap()).collect();
            ((y, graph.add_input("s", found)), wrt)
        };
        let found = gradients(&mut model, &[s], &wrt).map_err(|error| error.to_string())?;
        let mut outputs = Vec::new();
        for (grad, name) in found.into_iter().zip(self.grads.keys()) {
            let grad = grad.ok_or_else(|| format!("no gradient of {name}"))?;
            outputs.push((grad, format!("grad/{name}")));
        }
        let graph = &mut model.graph;
        graph.set_outputs(&outputs);
        graph.remove_dead();
        lower(&mut model).map_err(|error| error.to_string())?;
        if let (Some(folder), DataType::Float) = (std::env::var_os(WRITE), dtype) {
            let path = PathBuf::from(folder).join(format!("{}.onnx", self.name));
            let mut typed = model.clone();
            for (index, grad) in self.grads.values().enumerate() {
                typed.graph.redeclare_output(index, &grad.tensor_type());
            }
            onnx::write(&typed.to_proto(), &path, &Default::default()).unwrap();
        }
        let graph = &model.graph;
        inputs.insert("s".to_owned(), like(dtype, &self.s, &floats(&self.s)));
        let read: BTreeSet<&str> = graph
            .inputs()
            .iter()
            .map(|v| graph.value_name(*v))
            .collect();
        inputs.retain(|name, _| read.contains(name.as_str()));
        let found = default_interpreter().run(&model, &inputs);
        let found = found.map_err(|error| format!("{error}\n{}", text(&model)))?;
        let found = found.into_iter();
        Ok(found
            .map(|(name, grad)| (name.trim_start_matches("grad/").to_owned(), grad))
            .collect())
    }
}

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "fixtures", "derivative"]
        .iter()
        .collect()
}

fn files(extension: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir(folder()).unwrap();
    let paths = all.map(|file| file.unwrap().path());
    let mut found: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    found.sort();
    found
}

#[test]
fn gradients_are_those_of_pytorch() {
    let cases = Case::all();
    assert_eq!(
        cases.len(),
        files("onnx").len(),
        "models without numbers or the reverse: run fixtures/derivative/generate.py"
    );
    let mut wrong = Vec::new();
    for case in &cases {
        let model = Model::from_proto(case.proto()).unwrap();
        let (model, inputs) = case.promoted(model, DataType::Float);
        let found = match case.computed(model, inputs, DataType::Float) {
            Ok(found) => found,
            Err(why) => {
                wrong.push(format!("{}: {why}", case.name));
                continue;
            }
        };
        for (name, want) in &case.grads {
            let grad = &found[name];
            assert_eq!(
                grad.tensor_type(),
                want.tensor_type(),
                "{}: {name}",
                case.name
            );
            let (grad, want) = (floats(grad), floats(want));
            let scale = want.iter().fold(0.0, |scale: f64, x| scale.max(x.abs()));
            let errors = grad.iter().zip(&want).map(|(a, b)| (a - b).abs());
            let error = errors.fold(0.0, f64::max);
            if error > TOLERANCE * scale || !grad.iter().all(|x| x.is_finite()) {
                wrong.push(format!("{}: {name}: {error:e} of {scale:e}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn gradients_are_slopes() {
    let mut wrong = Vec::new();
    for case in Case::all() {
        if case.is_at_kink() || case.is_among(SINGLE) || case.is_among(NOT_RUN) {
            continue;
        }
        let (model, inputs) = case.promoted(widened(case.proto()), DataType::Double);
        let s = floats(&case.s);
        let at = |inputs: &Tensors| -> Result<f64, String> {
            let found = default_interpreter().run(&model, inputs);
            let found = found.map_err(|error| error.to_string())?;
            Ok(dot(&s, &floats(&found["y"])))
        };
        let found = match case.computed(model.clone(), inputs.clone(), DataType::Double) {
            Ok(found) => found,
            Err(why) => {
                wrong.push(format!("{}: {NOT_SINGLE}: {why}", case.name));
                continue;
            }
        };
        for (seed, (name, grad)) in found.iter().enumerate() {
            let centre = floats(&inputs[name]);
            let direction = noise(seed as u64, centre.len() as u64);
            let moved = |by: f64| {
                let pairs = centre.iter().zip(&direction);
                let to: Vec<f64> = pairs.map(|(x, d)| x + by * d).collect();
                let mut inputs = inputs.clone();
                inputs.insert(name.clone(), like(DataType::Double, grad, &to));
                at(&inputs)
            };
            let slope = match (moved(STEP), moved(-STEP)) {
                (Ok(above), Ok(below)) => (above - below) / (2.0 * STEP),
                (Err(why), _) | (_, Err(why)) => {
                    wrong.push(format!("{}: {name}: {NOT_SINGLE}: {why}", case.name));
                    continue;
                }
            };
            let grad = floats(grad);
            let error = (slope - dot(&grad, &direction)).abs();
            let scale = (dot(&grad, &grad) * dot(&direction, &direction)).sqrt();
            if error.is_nan() || error > DIFFERENCE * scale {
                wrong.push(format!("{}: {name}: {error:e} of {scale:e}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rule_has_a_case() {
    let cases = Case::all();
    let covered: BTreeSet<&str> = cases.iter().map(Case::operator).collect();
    let missing: Vec<&str> = RULES
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !covered.contains(name))
        .collect();
    assert!(
        missing.is_empty(),
        "rules without a case in fixtures/derivative/elementwise.py or layers.py: {missing:?}"
    );
    for case in &cases {
        assert!(
            operators().any(|name| name == case.operator()),
            "{} is of an operator that is not in derivative.rs or transpose.rs",
            case.name
        );
        let graph = Model::from_proto(case.proto()).unwrap().graph;
        let mut ops = graph.ops().into_iter().filter_map(|id| graph.op(id));
        assert!(
            ops.any(|op| op.is(case.operator())),
            "{} lacks its operator",
            case.name
        );
    }
}

#[test]
fn the_tables_can_be_searched() {
    for table in TABLES {
        for pair in table.windows(2) {
            assert!(
                pair[0].0 < pair[1].0,
                "not in alphabetical order: {}, {}",
                pair[0].0,
                pair[1].0
            );
        }
    }
    for pair in FLAT.windows(2) {
        assert!(
            pair[0] < pair[1],
            "not in alphabetical order: {}, {}",
            pair[0],
            pair[1]
        );
    }
    for flat in FLAT {
        assert!(
            operators().all(|name| name != *flat),
            "{flat} is in FLAT, and in RULES or transpose.rs"
        );
    }
}
