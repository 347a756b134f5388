//! `bcosc train`: from a network and a folder of images to a tuned model.

mod command;
mod embeddings;
mod faults;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;

use bcosc::data::{Augmentation, SplitOptions, Unreadable};
use bcosc::passes::{Biases, InputContract, Normalization, Settings};
use bcosc::{
    DeviceChoice, EngineChoice, Error, EvaluateEvery, METRICS, Options, PredictOptions, Shape,
    TrainEvent, TrainOptions, Trained, TrainingOptions, train,
};
use bcosc_ir::{Attribute, DataType, ModelBuilder, onnx};
use bcosc_testing::{Layers, noise};
use tempfile::TempDir;

const CLASSES: [&str; 3] = ["blue", "green", "red"];
const SIDE: u32 = 8;

/// A network of two convolutions, and images of three classes: 8 each for training, 4 each for validation.
fn workplace() -> TempDir {
    workplace_with("Relu")
}

fn workplace_with(activation: &str) -> TempDir {
    workplace_of(activation, "logits")
}

fn workplace_of(activation: &str, output: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let pads = || [Attribute::ints("pads", &[1; 4])];
    let network = ModelBuilder::new(17)
        .input("images", DataType::Float, "batch,3,height,width")
        .biased_conv("images", "a", &[8, 3, 3, 3], pads())
        .norm("a", "b", 8)
        .op(activation, &["b"], "c", [])
        .biased_conv("c", "scores", &[3, 8, 3, 3], pads())
        .op("GlobalAveragePool", &["scores"], "pooled", [])
        .op("Flatten", &["pooled"], output, [])
        .output(output);
    let bytes = onnx::encode(&network.proto()).unwrap();
    fs::write(folder.path().join("net.onnx"), bytes).unwrap();
    for (part, count) in [("train", 8), ("val", 4)] {
        for (class, name) in CLASSES.into_iter().enumerate() {
            for index in 0..count {
                let seed = (part.len() * 1000 + class * 100 + index) as u64;
                let path = format!("data/{part}/{name}/{index}.png");
                picture(&folder.path().join(path), class, seed);
            }
        }
    }
    folder
}

/// Noise that is brighter in the channel of its class.
fn picture(path: &Path, class: usize, seed: u64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let noise = noise(seed, u64::from(3 * SIDE * SIDE));
    let picture = image::RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let place = 3 * (y * SIDE + x) as usize;
        image::Rgb([0, 1, 2].map(|channel| {
            let bright = if channel == 2 - class { 150.0 } else { 80.0 };
            (bright + 40.0 * noise[place + channel]).clamp(0.0, 255.0) as u8
        }))
    });
    picture.save(path).unwrap();
}

/// How the network takes images, where no metadata says it.
fn normalized() -> PredictOptions {
    PredictOptions {
        normalization: Some(Normalization {
            mean: vec![0.5; 3],
            std: vec![0.25; 3],
        }),
        ..PredictOptions::default()
    }
}

fn options(folder: &TempDir, run: &str) -> TrainOptions {
    TrainOptions {
        conversion: Some(Options {
            settings: Settings {
                input: InputContract::AddInverse,
                normalization: normalized().normalization,
                absorb_normalization: true,
                ..Settings::default()
            },
            ..Options::default()
        }),
        calibration_images: 8,
        training: TrainingOptions::default(),
        predict: PredictOptions::default(),
        data: folder.path().join("data"),
        split: SplitOptions::default(),
        labels: None,
        batch_size: 4,
        epochs: 6,
        steps: None,
        rate: 0.03,
        warmup: 0,
        shape: Shape::Cosine,
        growth: None,
        bias_decay: None,
        augmentation: Augmentation::shift(1),
        workers: 2,
        unreadable: Unreadable::Fail,
        eval_every: EvaluateEvery::Epochs(2),
        completeness: 4,
        pointing: None,
        sheet: 2,
        val_images: None,
        seed: 1,
        work_dir: folder.path().join(run),
        resume: false,
        engine: EngineChoice::Tract,
        device: DeviceChoice::Cpu,
        precision: bcosc::engine::Precision::Fp32,
        threads: 1,
    }
}

/// `bcosc train` on a [`workplace`], with options separated by spaces.
fn train_command(folder: &TempDir, options: &str) -> Command {
    let usual = "train net.onnx --data data --engine tract --input add-inverse \
                 --mean 0.5,0.5,0.5 --std 0.25,0.25,0.25";
    bcosc(folder, &format!("{usual} {options}"))
}

/// The command with arguments separated by spaces.
fn bcosc(folder: &TempDir, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bcosc"));
    command
        .current_dir(folder.path())
        .env_remove("RUST_LOG")
        .args(arguments.split_whitespace());
    command
}

fn run(folder: &TempDir, options: &TrainOptions) -> Result<Trained, Error> {
    train(folder.path().join("net.onnx"), options, &mut |_| {
        ControlFlow::Continue(())
    })
}

fn bytes(trained: &Trained) -> Vec<u8> {
    onnx::encode(&trained.model.to_proto()).unwrap().to_vec()
}

#[test]
fn training_makes_a_model_better() {
    let folder = workplace();
    let trained = run(&folder, &options(&folder, "run")).unwrap();
    assert_eq!((trained.steps, trained.interrupted), (36, false));
    let (before, after) = (trained.before.unwrap(), trained.after.unwrap());
    assert!(after.top1 > Some(0.9), "{before:?} before, {after:?} after");
    assert!(after.nll < before.nll);
    assert_eq!(trained.best, after.top1);
    let lines = fs::read_to_string(folder.path().join("run").join(METRICS)).unwrap();
    // Before, and after every second epoch.
    assert_eq!(lines.lines().count(), 36 + 4);
    for file in ["last.safetensors", "best.safetensors", "explanations.png"] {
        assert!(folder.path().join("run").join(file).exists(), "{file}");
    }
}

/// The evaluations that a run has recorded: step, residual and number of images.
fn evaluations(work: &Path) -> Vec<(u64, Option<(f64, u64)>)> {
    let text = fs::read_to_string(work.join(METRICS)).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let evaluated = lines.filter(|line: &serde_json::Value| line.get("val_top1").is_some());
    let evaluated = evaluated.map(|line| {
        let residual = line.get("residual").and_then(serde_json::Value::as_f64);
        let images = line
            .get("residual_images")
            .and_then(serde_json::Value::as_u64);
        (line["step"].as_u64().unwrap(), residual.zip(images))
    });
    evaluated.collect()
}

#[test]
fn evaluations_follow_steps_or_epochs_and_state_the_residual() {
    let folder = workplace();
    let steps = TrainOptions {
        steps: Some(12),
        eval_every: EvaluateEvery::Steps(5),
        ..options(&folder, "steps")
    };
    let trained = run(&folder, &steps).unwrap();
    let found = evaluations(&steps.work_dir);
    let at: Vec<u64> = found.iter().map(|(step, _)| *step).collect();
    assert_eq!(at, [0, 5, 10, 12]);
    for (_, residual) in found {
        let (size, images) = residual.unwrap();
        assert!(size < 1e-4 && images == 4, "{size} of {images}");
    }
    assert_eq!(trained.after.unwrap().residual_images, Some(4));
    // A run that is interrupted at an evaluation catches up on it.
    let parts = TrainOptions {
        resume: true,
        work_dir: folder.path().join("parts"),
        ..steps
    };
    let net = folder.path().join("net.onnx");
    let stopped = train(net, &parts, &mut |event| match event {
        TrainEvent::Step { step: 5, .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert!(stopped.unwrap().interrupted);
    run(&folder, &parts).unwrap();
    let at: Vec<u64> = evaluations(&parts.work_dir)
        .iter()
        .map(|(step, _)| *step)
        .collect();
    assert_eq!(at, [0, 5, 10, 12]);
}

#[test]
fn a_model_that_cannot_be_explained_is_trained_and_noted() {
    let folder = workplace_with("Softplus");
    let plain = TrainOptions {
        conversion: None,
        predict: normalized(),
        epochs: 1,
        ..options(&folder, "run")
    };
    let mut noted = Vec::new();
    let net = folder.path().join("net.onnx");
    let trained = train(net, &plain, &mut |event| {
        if let TrainEvent::Started { notes, .. } = event {
            noted.extend_from_slice(notes);
        }
        ControlFlow::Continue(())
    });
    assert_eq!(trained.unwrap().after.unwrap().residual, None);
    let said = noted
        .iter()
        .any(|note| note.contains("cannot be explained"));
    assert!(said, "{noted:?}");
    assert!(!plain.work_dir.join("explanations.png").exists());
}

#[test]
fn the_result_depends_on_the_seed_and_not_on_threads() {
    let folder = workplace();
    let first = run(&folder, &options(&folder, "first")).unwrap();
    let other = TrainOptions {
        workers: 1,
        threads: 2,
        ..options(&folder, "second")
    };
    assert!(bytes(&first) == bytes(&run(&folder, &other).unwrap()));
    let other = TrainOptions {
        seed: 2,
        ..options(&folder, "third")
    };
    assert!(bytes(&first) != bytes(&run(&folder, &other).unwrap()));
}

#[test]
fn an_interrupted_run_goes_on_to_the_same_bytes() {
    let folder = workplace();
    let whole = run(&folder, &options(&folder, "whole")).unwrap();
    // In an epoch, at its end, and twice.
    for stops in [&[1][..], &[6], &[12], &[5, 17]] {
        let parts = TrainOptions {
            resume: true,
            ..options(&folder, &format!("parts{stops:?}"))
        };
        for stop in stops {
            let stopped = train(
                folder.path().join("net.onnx"),
                &parts,
                &mut |event| match event {
                    TrainEvent::Step { step, .. } if step == *stop => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                },
            );
            let stopped = stopped.unwrap();
            assert!(stopped.interrupted);
            assert_eq!(stopped.steps, *stop);
        }
        let rest = run(&folder, &parts).unwrap();
        assert!(bytes(&rest) == bytes(&whole), "stopped at {stops:?}");
        assert_alike(&rest, &whole);
    }
}

/// Both evaluations of two runs are there and agree. A checkpoint may lose the last bit of a number.
fn assert_alike(a: &Trained, b: &Trained) {
    let numbers = |trained: &Trained| {
        let sides = [&trained.before, &trained.after].map(|side| side.clone().unwrap());
        sides.map(|side| [side.top1, side.nll, side.cosine].map(|x| x.map(|x| (1e9 * x).round())))
    };
    assert_eq!(numbers(a), numbers(b));
}

/// The same run with another conversion.
fn converted_by(options: &TrainOptions, change: impl Fn(&mut Settings)) -> TrainOptions {
    let mut options = options.clone();
    change(&mut options.conversion.as_mut().unwrap().settings);
    options
}

#[test]
fn a_run_goes_on_with_its_own_options_only() {
    let folder = workplace();
    let first = TrainOptions {
        epochs: 1,
        ..options(&folder, "run")
    };
    run(&folder, &first).unwrap();
    for (change, named) in [
        (
            TrainOptions {
                batch_size: 3,
                ..first.clone()
            },
            "--batch-size = 4, not 3",
        ),
        (
            TrainOptions {
                seed: 7,
                ..first.clone()
            },
            "--seed = 1, not 7",
        ),
        (
            TrainOptions {
                rate: 0.5,
                ..first.clone()
            },
            "--lr = 0.03, not 0.5",
        ),
        (
            converted_by(&first, |settings| settings.b = 1.5),
            "--b = 2.0, not 1.5",
        ),
        (
            converted_by(&first, |settings| settings.input = InputContract::Rgb),
            "--input = add-inverse, not rgb",
        ),
        (
            converted_by(&first, |settings| {
                settings.normalization = Some(Normalization {
                    mean: vec![0.4; 3],
                    std: vec![0.25; 3],
                });
            }),
            r#"--normalization = {"mean":[0.5,0.5,0.5],"std":[0.25,0.25,0.25]}, not {"mean":[0.4,0.4,0.4],"#,
        ),
        (
            TrainOptions {
                conversion: None,
                predict: normalized(),
                ..first.clone()
            },
            "a conversion = yes, not none",
        ),
    ] {
        let resumed = TrainOptions {
            resume: true,
            ..change
        };
        let error = run(&folder, &resumed).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
    // A torn checkpoint is an error too.
    let path = folder.path().join("run/last.safetensors");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = run(
        &folder,
        &TrainOptions {
            resume: true,
            ..first
        },
    )
    .unwrap_err();
    assert!(matches!(error, Error::WeightFile { .. }), "{error}");
}

#[test]
fn a_teacher_takes_the_place_of_labels() {
    let folder = workplace();
    let mut options = options(&folder, "run");
    options.training.teacher = Some(folder.path().join("net.onnx").into());
    options.training.step.loss = bcosc::autodiff::training::Loss::MeanSquare;
    options.predict = normalized();
    let mut losses = Vec::new();
    let trained = train(folder.path().join("net.onnx"), &options, &mut |event| {
        if let TrainEvent::Step { loss, .. } = event {
            losses.push(loss);
        }
        ControlFlow::Continue(())
    });
    trained.unwrap();
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&losses[30..]) < 0.5 * mean(&losses[..6]), "{losses:?}");
}

#[test]
fn biases_decay_until_none_is_left() {
    let folder = workplace();
    let mut options = options(&folder, "run");
    options.conversion.as_mut().unwrap().settings.biases = Some(Biases::Keep);
    options.training.step.scale_biases = true;
    options.bias_decay = Some(18);
    let trained = run(&folder, &options).unwrap();
    assert_eq!(trained.model.metadata("bcosc.biases_kept"), Some("false"));
    let graph = &trained.model.graph;
    let biases = graph.ops().into_iter().filter_map(|node| {
        graph
            .op(node)
            .filter(|op| op.is("Conv") || op.is("BatchNormalization"))?;
        graph.constant(graph.input(node, 2)?)
    });
    let biases: Vec<Vec<f64>> = biases.map(|bias| bias.to_f64s().unwrap()).collect();
    assert!(!biases.is_empty() && biases.iter().flatten().all(|x| *x == 0.0));
    let after = trained.after.unwrap();
    assert!(after.top1 > trained.before.unwrap().top1);
    // While they are there, they are scaled.
    options.bias_decay = Some(72);
    options.work_dir = folder.path().join("half");
    let half = run(&folder, &options).unwrap();
    assert_eq!(half.model.metadata("bcosc.biases_kept"), Some("true"));
}
