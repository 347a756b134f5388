//! `bcosc align`: from a network and a folder of images without labels to a model that computes what its original does.

mod biases;
mod command;
mod growth;
mod runs;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Output};

use bcosc::autodiff::training::NormStatistics;
use bcosc::data::{Augmentation, SplitOptions, Unreadable};
use bcosc::onnx::{ExternalData, WriteOptions};
use bcosc::passes::{Biases, InputContract, Normalization, Settings};
use bcosc::{
    AlignEvent, AlignOptions, Aligned, DeviceChoice, EngineChoice, Error, Growth, InputShape,
    METRICS, Method, Options, PredictOptions, TrainOn, align, convert, plan_alignment, write_model,
};
use bcosc_ir::{Attribute, DataType, Model, ModelBuilder, onnx};
use bcosc_testing::{Layers, noise};
use tempfile::TempDir;

const SIDE: u32 = 8;

/// A network with a residual block.
fn network(height: &str, width: &str) -> ModelBuilder {
    let pads = || [Attribute::ints("pads", &[1; 4])];
    ModelBuilder::new(17)
        .input(
            "images",
            DataType::Float,
            &format!("batch,3,{height},{width}"),
        )
        .biased_conv("images", "stem", &[8, 3, 3, 3], pads())
        .norm("stem", "stem_norm", 8)
        .op("Relu", &["stem_norm"], "features", [])
        .biased_conv("features", "inner", &[8, 8, 3, 3], pads())
        .norm("inner", "inner_norm", 8)
        .op("Relu", &["inner_norm"], "inner_relu", [])
        .biased_conv("inner_relu", "outer", &[8, 8, 3, 3], pads())
        .norm("outer", "outer_norm", 8)
        .op("Add", &["outer_norm", "features"], "sum", [])
        .op("Relu", &["sum"], "block", [])
        .biased_conv("block", "scores", &[3, 8, 3, 3], pads())
        .op("GlobalAveragePool", &["scores"], "pooled", [])
        .op("Flatten", &["pooled"], "logits", [])
        .output("logits")
}

/// The network, and images of three kinds in one folder each.
fn workplace() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let bytes = onnx::encode(&network("height", "width").proto()).unwrap();
    fs::write(folder.path().join("net.onnx"), bytes).unwrap();
    for class in 0..3 {
        for index in 0..12 {
            let path = format!("data/{class}/{index}.png");
            picture(&folder.path().join(path), class, class * 100 + index);
        }
    }
    folder
}

/// Noise that is brighter in one channel.
fn picture(path: &Path, class: usize, seed: usize) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let noise = noise(seed as u64, u64::from(3 * SIDE * SIDE));
    let picture = image::RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let place = 3 * (y * SIDE + x) as usize;
        image::Rgb([0, 1, 2].map(|channel| {
            let bright = if channel == class { 150.0 } else { 80.0 };
            (bright + 40.0 * noise[place + channel]).clamp(0.0, 255.0) as u8
        }))
    });
    picture.save(path).unwrap();
}

fn conversion() -> Options {
    Options {
        settings: Settings {
            input: InputContract::AddInverse,
            normalization: Some(Normalization {
                mean: vec![0.5; 3],
                std: vec![0.25; 3],
            }),
            absorb_normalization: true,
            ..Settings::default()
        },
        ..Options::default()
    }
}

fn options(folder: &TempDir, run: &str, method: Method) -> AlignOptions {
    AlignOptions {
        teacher: None,
        conversion: conversion(),
        calibration_images: 8,
        predict: PredictOptions {
            normalization: conversion().settings.normalization,
            ..PredictOptions::default()
        },
        data: folder.path().join("data"),
        split: SplitOptions::default(),
        labels: None,
        images: None,
        method,
        segments: None,
        taps: Some(2),
        block_steps: 20,
        joint_steps: Some(30),
        block_rate: Some(0.05),
        joint_rate: Some(0.01),
        budget: None,
        norm_statistics: None,
        norm_momentum: None,
        then_train: 0,
        train_on: TrainOn::Original,
        train_rate: 1e-3,
        warmup: None,
        growth: None,
        bias_decay: None,
        freeze: Vec::new(),
        batch_size: Some(16),
        feature_memory: 1 << 30,
        augmentation: Augmentation::shift(1),
        workers: 2,
        unreadable: Unreadable::Fail,
        val_images: None,
        pointing: None,
        sheet: 2,
        seed: 1,
        work_dir: folder.path().join(run),
        resume: false,
        engine: EngineChoice::Tract,
        device: DeviceChoice::Cpu,
        precision: bcosc::engine::Precision::Fp32,
        threads: 1,
    }
}

fn run(folder: &TempDir, options: &AlignOptions) -> Result<Aligned, Error> {
    align(folder.path().join("net.onnx"), options, &mut |_| {
        ControlFlow::Continue(())
    })
}

/// Stops an alignment after so many steps.
fn stop(folder: &TempDir, options: &AlignOptions, after: u64) {
    let mut steps = 0;
    let stopped = align(folder.path().join("net.onnx"), options, &mut |event| {
        steps += u64::from(matches!(event, AlignEvent::Step { .. }));
        match steps < after {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    });
    assert!(stopped.unwrap().interrupted);
}

fn bytes(aligned: &Aligned) -> Vec<u8> {
    onnx::encode(&aligned.model.to_proto()).unwrap().to_vec()
}

/// A network that was exported for one size learns at another, once its sizes are open.
#[test]
fn sizes_can_be_opened() {
    let folder = workplace();
    let bytes = onnx::encode(&network("16", "16").proto()).unwrap();
    fs::write(folder.path().join("net.onnx"), bytes).unwrap();
    let mut options = AlignOptions {
        joint_steps: Some(8),
        ..options(&folder, "opened", Method::Joint)
    };
    options.predict.size = Some([8, 8]);
    let error = run(&folder, &options).unwrap_err().to_string();
    assert!(error.contains("--input-shapes"), "{error}");
    let opened: InputShape = "images:batch,3,h,w".parse().unwrap();
    options.conversion.input_shapes = vec![opened.clone()];
    options.predict.input_shapes = vec![opened];
    let aligned = run(&folder, &options).unwrap();
    let input = aligned.model.graph.inputs()[0];
    let dims = aligned.model.graph.value_type(input).unwrap().to_string();
    assert_eq!(dims, "float[batch,6,h,w]");
    assert!(aligned.phases[0].after < aligned.phases[0].before);
}

#[test]
fn every_segment_comes_closer_to_the_original() {
    let folder = workplace();
    let aligned = run(&folder, &options(&folder, "run", Method::Blocks)).unwrap();
    let names: Vec<&str> = aligned.phases.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["segment 1", "segment 2"]);
    for phase in &aligned.phases {
        assert!(phase.after < 0.9 * phase.before, "{phase:?}");
    }
    let (before, after) = (aligned.before.unwrap(), aligned.after.unwrap());
    assert_eq!(before.images, 4);
    assert!(after.top1 >= before.top1);
    // The folders are the classes 0, 1 and 2.
    assert!(after.figures.is_some() && aligned.original.is_some());
    let lines = fs::read_to_string(folder.path().join("run").join(METRICS)).unwrap();
    assert_eq!(lines.lines().count(), 40 + 2 + 2);
    for file in ["last.safetensors", "explanations.png"] {
        assert!(folder.path().join("run").join(file).exists(), "{file}");
    }
}

#[test]
fn all_segments_learn_together() {
    let folder = workplace();
    let aligned = run(&folder, &options(&folder, "run", Method::Joint)).unwrap();
    let [phase] = &aligned.phases[..] else {
        panic!("{:?}", aligned.phases)
    };
    assert_eq!((phase.name.as_str(), phase.steps), ("joint", 30));
    assert!(phase.after < 0.7 * phase.before, "{phase:?}");
}

#[test]
fn a_converted_file_is_aligned_as_the_model_in_memory() {
    let folder = workplace();
    let both = options(&folder, "memory", Method::BlocksJoint);
    let first = run(&folder, &both).unwrap();
    assert_eq!(first.phases.len(), 3);

    // What calibration has measured is in the file.
    let calibrated = Options {
        calibration: Some(bcosc::Calibration::Files(bcosc::CalibrationFiles {
            images: 8,
            ..bcosc::CalibrationFiles::new(folder.path().join("data"))
        })),
        ..conversion()
    };
    let file = folder.path().join("net.bcos.onnx");
    let converted = convert(folder.path().join("net.onnx"), &calibrated).unwrap();
    write_model(
        &converted.model,
        &file,
        &WriteOptions {
            external_data: ExternalData::Never,
        },
    )
    .unwrap();
    let from_file = AlignOptions {
        teacher: Some(folder.path().join("net.onnx").into()),
        work_dir: folder.path().join("file"),
        ..both
    };
    let second = align(&file, &from_file, &mut |_| ControlFlow::Continue(())).unwrap();
    let places = |aligned: &Aligned| -> Vec<(String, u64)> {
        let phases = aligned.phases.iter();
        phases.map(|p| (p.name.clone(), p.steps)).collect()
    };
    assert_eq!(places(&first), places(&second));
    for (a, b) in first.phases.iter().zip(&second.phases) {
        // Calibration images differ: all here, and those for training there.
        assert!((a.after - b.after).abs() < 0.3 * a.after, "{a:?}, {b:?}");
    }

    let without = AlignOptions {
        teacher: None,
        ..from_file
    };
    let error = align(&file, &without, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(error.to_string().contains("--teacher"), "{error}");
}

#[test]
fn labels_and_the_original_teach_differently() {
    let folder = workplace();
    let one = |name: &str, train_on| {
        let options = AlignOptions {
            then_train: 10,
            train_on,
            block_steps: 2,
            ..options(&folder, name, Method::Blocks)
        };
        run(&folder, &options).unwrap()
    };
    let [original, labels] = [
        one("original", TrainOn::Original),
        one("labels", TrainOn::Labels),
    ];
    for aligned in [&original, &labels] {
        let last = aligned.phases.last().unwrap();
        assert_eq!((last.name.as_str(), last.steps), ("end to end", 10));
        assert!(last.after < last.before, "{last:?}");
    }
    assert!(bytes(&original) != bytes(&labels));
    // Without class folders there are no labels.
    let refused = AlignOptions {
        data: folder.path().join("data/0"),
        ..options(&folder, "none", Method::Blocks)
    };
    let refused = AlignOptions {
        then_train: 1,
        train_on: TrainOn::Labels,
        ..refused
    };
    let error = run(&folder, &refused).unwrap_err().to_string();
    assert!(error.contains("data/0"), "{error}");
}

#[test]
fn images_need_no_classes() {
    let folder = workplace();
    let flat = folder.path().join("flat");
    for index in 0..20 {
        picture(&flat.join(format!("{index}.png")), index % 3, index);
    }
    let options = AlignOptions {
        data: flat,
        images: Some(6),
        ..options(&folder, "run", Method::Joint)
    };
    let aligned = run(&folder, &options).unwrap();
    let after = aligned.after.unwrap();
    assert_eq!((after.images, after.figures), (2, None));
    assert_eq!(aligned.original, None);
}

#[test]
fn frozen_parameters_stay() {
    let folder = workplace();
    let frozen = |pattern: &str| AlignOptions {
        block_steps: 3,
        joint_steps: Some(3),
        then_train: 2,
        freeze: vec![pattern.to_owned()],
        sheet: 0,
        ..options(&folder, "frozen", Method::BlocksJoint)
    };
    let aligned = run(&folder, &frozen("scores*")).unwrap();
    let phases: Vec<&str> = aligned.phases.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(phases, ["segment 1", "joint", "end to end"]);
    let converted = convert(folder.path().join("net.onnx"), &conversion()).unwrap();
    let weight = |model: &Model, name: &str| {
        let graph = &model.graph;
        let parameters = graph.parameters().into_iter();
        let mut values = parameters.map(|(node, _)| graph.output(node, 0));
        let found = values.find(|&value| graph.value_name(value) == name);
        graph.constant(found.unwrap()).unwrap().clone()
    };
    for (name, stays) in [
        ("stem.weight", false),
        ("inner.w", false),
        ("scores.w", true),
    ] {
        let [before, after] = [&converted.model, &aligned.model].map(|m| weight(m, name));
        assert_eq!(before == after, stays, "{name}");
    }

    let refused = |options: AlignOptions| run(&folder, &options).unwrap_err().to_string();
    let resumed = AlignOptions {
        resume: true,
        ..frozen("scores.*")
    };
    for (options, expected) in [
        (frozen("nothing*"), "`nothing*`"),
        (frozen("[a"), "`[a`"),
        (frozen("*"), "all parameters are frozen"),
        (resumed, "--freeze"),
    ] {
        let error = refused(options);
        assert!(error.contains(expected), "{error}");
    }
}

/// Each model gets the mixture in its own encoding, so a start that is exact for images is exact for mixtures.
#[test]
fn both_models_see_the_same_mixtures() {
    let folder = workplace();
    let mut options = AlignOptions {
        growth: Some(Growth {
            from: 1.0,
            steps: None,
        }),
        joint_steps: Some(4),
        sheet: 0,
        ..options(&folder, "mixed", Method::Joint)
    };
    options.conversion.settings.biases = Some(Biases::Carry);
    options.augmentation.mixup_alpha = Some(0.8);
    let mixed = run(&folder, &options).unwrap();
    assert!(mixed.phases[0].before < 1e-9, "{:?}", mixed.phases);
    options.augmentation.mixup_alpha = None;
    options.work_dir = folder.path().join("plain");
    assert!(bytes(&mixed) != bytes(&run(&folder, &options).unwrap()));
}
