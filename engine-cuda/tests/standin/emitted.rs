//! The program that is emitted with a training step, against the engine.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use bcosc::Weights;
use bcosc_engine::Precision;
use bcosc_engine_cuda::runtime::Cuda;
use bcosc_ir::Tensor;

use crate::common::device::{following, given, session};
use crate::common::{converted, inputs, shapes, training_step};
use crate::done;

/// Images of a step.
const BATCH: u64 = 3;
/// Steps of the emitted program, and the learning rate that it begins with.
const STEPS: u64 = 3;
const RATE: f64 = 1e-3;

/// Where cargo builds it.
pub fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let folder = own.ancestors().nth(2).unwrap();
    folder.join("examples/finetune_cuda")
}

/// The program of a folder for GPUs leaves the state that the engine leaves.
pub fn trains_alike(engine: &Cuda) {
    let program = program();
    if !program.exists() {
        return;
    }
    let step = training_step(&converted("resnet_tiny", 2.0), true);
    let shapes = shapes(&step.model, BATCH, 32);
    let mut all = inputs(&step.model, &shapes);
    let initial = step.initial();
    all.extend(initial.iter().map(|(name, t)| (name.to_owned(), t.clone())));

    let folder = tempfile::tempdir().unwrap();
    let [plan, images, labels, tuned] =
        ["net.cuda", "images.npy", "labels.npy", "tuned.safetensors"]
            .map(|name| folder.path().join(name));
    bcosc::write_cuda_folder(&step, BATCH, Precision::Fp32, &plan).unwrap();
    let image = step.model.graph.inputs()[0];
    let image = &all[step.model.graph.value_name(image)];
    fs::write(&images, npy("<f4", image)).unwrap();
    fs::write(&labels, npy("<i8", &all["targets"])).unwrap();
    let mut command = Command::new(&program);
    command.arg(&plan);
    command
        .arg("--images")
        .arg(&images)
        .arg("--labels")
        .arg(&labels);
    command.args(["--steps", &STEPS.to_string(), "--lr", &RATE.to_string()]);
    // It gives nothing back by itself.
    let output = done(
        command
            .arg("--out")
            .arg(&tuned)
            .env_remove("STANDIN_REPORT"),
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.is_empty(), "{said}");

    let session = session(engine, &step.model, &shapes, Precision::Fp32);
    let mut values = given(&*session, &all);
    let mut losses = String::new();
    let mut state = Vec::new();
    for number in 0..STEPS {
        let falls = (std::f64::consts::PI * number as f64 / STEPS as f64).cos();
        let rate = (RATE * (1.0 + falls) / 2.0) as f32;
        for (port, value) in session.inputs().iter().zip(&mut values) {
            match port.name.as_str() {
                "learning_rate" => *value = Tensor::f32s(&[], vec![rate]).into(),
                "step" => *value = Tensor::i64s(&[], vec![number as i64 + 1]).into(),
                _ => {}
            }
        }
        let outputs = session.run(std::mem::take(&mut values)).unwrap();
        let place = session.outputs().iter().position(|p| p.name == "loss");
        let loss = outputs[place.unwrap()].to_tensor().unwrap();
        let loss = loss.to_f64s().unwrap()[0];
        losses += &format!("step {}: loss {loss:.4}\n", number + 1);
        values = following(&*session, &all, &outputs);
        state = values.clone();
    }
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.starts_with(&losses), "{told}\n{losses}");
    let saved = Weights::read(&tuned).unwrap();
    let mut compared = 0;
    for (port, value) in session.inputs().iter().zip(state) {
        if let Some(saved) = saved.get(&port.name) {
            assert_eq!(saved, &value.to_tensor().unwrap(), "{}", port.name);
            compared += 1;
        }
    }
    assert!(compared > 0);
    assert_eq!(compared, saved.len());
}

/// An array in NumPy's format.
fn npy(dtype: &str, tensor: &Tensor) -> Vec<u8> {
    let sizes: String = tensor.dims().iter().map(|d| format!("{d}, ")).collect();
    let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({sizes}), }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend_from_slice(&tensor.bytes().unwrap());
    bytes
}
