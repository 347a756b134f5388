//! The engine on a device, against tract; without one, the message that says what is missing.
//!
//! Lines that begin with `figure: ` are JSON, for `tests/device/run.sh`. With `BCOSC_NETWORKS`, a folder of ONNX files, these
//! networks are compared as well.

mod common;

use bcosc_engine::{Device, Engine, EngineError, Precision, SessionOptions};
use bcosc_engine_cuda::runtime::Cuda;
use common::device::{
    TOLERANCE, engine, error_of_runs, state_goes_to_another_session, state_stays_on_the_device,
};
use common::{Graph, NETWORKS, converted_from, difference, graph_of, inputs, reference, shapes};

#[test]
fn what_is_missing_is_named() {
    let error = Cuda::new(Device::Cpu).unwrap_err();
    assert!(matches!(
        error,
        EngineError::Device {
            device: Device::Cpu,
            ..
        }
    ));
    match Cuda::new(Device::Cuda(10_000)) {
        Err(EngineError::Unavailable { reason, .. }) => {
            let named = ["install", "there is no device 10000"];
            assert!(named.iter().any(|text| reason.contains(text)), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

/// TF32 keeps 10 bits of factors, bf16 7, and errors of layers add up.
#[test]
fn networks_in_other_precisions_are_close_to_tract() {
    let Some(engine) = engine() else { return };
    for (precision, tolerance) in [(Precision::Tf32, 2e-2), (Precision::Bf16, 0.1)] {
        for network in ["resnet_tiny", "vitc_tiny"] {
            for kind in Graph::ALL {
                let (error, place) = error_of_runs(&engine, network, kind, precision);
                println!(
                    "figure: {{\"network\": \"{network}\", \"graph\": \"{kind:?}\", \
                     \"precision\": \"{precision}\", \"error\": {error:e}}}"
                );
                assert!(
                    error < tolerance,
                    "{network} {kind:?} {precision}: {error:e} at {place}"
                );
            }
        }
    }
}

#[test]
fn networks_give_the_numbers_of_tract() {
    let Some(engine) = engine() else { return };
    for network in NETWORKS {
        for kind in Graph::ALL {
            let (error, place) = error_of_runs(&engine, network, kind, Precision::Fp32);
            assert!(
                error < TOLERANCE,
                "{network} {kind:?}: {error:e} at {place}"
            );
            figure(network, kind, error);
        }
    }
}

/// A line for `tests/device/run.sh`.
fn figure(network: &str, kind: Graph, error: f64) {
    println!(
        "figure: {{\"network\": \"{network}\", \"graph\": \"{kind:?}\", \"error\": {error:e}}}"
    );
}

/// Two images each, since tract takes long.
#[test]
fn networks_of_a_folder_give_the_numbers_of_tract() {
    let Some(folder) = std::env::var_os("BCOSC_NETWORKS") else {
        eprintln!("skipped: BCOSC_NETWORKS is not set");
        return;
    };
    let Some(engine) = engine() else { return };
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "onnx"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let converted = converted_from(&file, &name, 2.0);
        for kind in Graph::ALL {
            let (model, standard) = graph_of(&converted, kind);
            let inputs = inputs(&model, &shapes(&model, 2, 224));
            let expected = reference(&standard, &inputs);
            let network = engine.load(&model).unwrap();
            let session = network
                .session(&shapes(&model, 2, 224), &SessionOptions::default())
                .unwrap();
            let found = session.run_named(&inputs).unwrap();
            let (error, place) = difference(&found, &expected);
            figure(&name, kind, error);
            assert!(error < TOLERANCE, "{name} {kind:?}: {error:e} at {place}");
        }
    }
}

#[test]
fn state_stays_on_the_device_over_steps() {
    let Some(engine) = engine() else { return };
    state_stays_on_the_device(&engine);
    state_goes_to_another_session(&engine);
}
