//! Single operators.

use std::fs;

use bcosc_engine::{Engine as _, EngineError, SessionOptions};
use bcosc_ir::{Model, onnx};

use crate::cases::engine;
use crate::common::device::TOLERANCE;
use crate::common::{difference, fixtures, inputs, reference, shapes};

/// Models of single operators, of odd sizes.
pub fn operators() {
    let engine = engine();
    let mut wrong = Vec::new();
    for folder in ["autodiff", "derivative"] {
        let files = fs::read_dir(fixtures().join(folder)).unwrap();
        let mut files: Vec<_> = files.map(|f| f.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|e| e == "onnx"));
        files.sort();
        for file in files {
            let name = file.file_stem().unwrap().to_string_lossy().into_owned();
            let model = Model::from_proto(onnx::read(&file).unwrap().model).unwrap();
            let shapes = shapes(&model, 3, 7);
            let inputs = inputs(&model, &shapes);
            let Ok(expected) = std::panic::catch_unwind(|| reference(&model, &inputs)) else {
                continue;
            };
            let found = engine.load(&model).and_then(|network| {
                let session = network.session(&shapes, &SessionOptions::default())?;
                session.run_named(&inputs)?;
                session.run_named(&inputs)
            });
            match found {
                Ok(found) => {
                    let (error, place) = difference(&found, &expected);
                    if error > TOLERANCE {
                        wrong.push(format!("{name}: {error:e} at {place}"));
                    }
                }
                Err(EngineError::Unsupported(_)) => {}
                Err(error) => wrong.push(format!("{name}: {error}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
