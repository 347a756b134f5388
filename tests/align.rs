//! `bcosc align`: from a network and a folder of images without labels to a model that computes what its original does.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Output};

use bcosc::autodiff::training::NormStatistics;
use bcosc::data::{SplitOptions, Unreadable};
use bcosc::onnx::{ExternalData, WriteOptions};
use bcosc::passes::{Biases, InputContract, Normalization, Settings};
use bcosc::{
    AlignEvent, AlignOptions, Aligned, DeviceChoice, EngineChoice, Error, Growth, InputShape,
    METRICS, Method, Options, PredictOptions, TrainOn, align, convert, plan_alignment, write_model,
};
use bcosc_ir::{Attribute, DataType, ModelBuilder, onnx};
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
        taps: 2,
        block_steps: 20,
        joint_steps: 30,
        block_rate: 0.05,
        joint_rate: 0.01,
        budget: None,
        norm_statistics: None,
        norm_momentum: None,
        then_train: 0,
        train_on: TrainOn::Original,
        train_rate: 1e-3,
        warmup: None,
        growth: None,
        batch_size: 16,
        feature_memory: 1 << 30,
        augmentation: None,
        mixup_alpha: None,
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
        joint_steps: 8,
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
fn b_grows_in_a_phase_of_its_own() {
    let folder = workplace();
    let planned = |steps, method| {
        let options = AlignOptions {
            growth: Some(Growth { from: 1.0, steps }),
            joint_steps: 30,
            ..options(&folder, "planned", method)
        };
        let network = folder.path().join("net.onnx");
        let planned = plan_alignment(network, &options, &mut |_| ControlFlow::Continue(()));
        let planned = planned.unwrap().into_iter();
        let joint = planned.filter(|phase| phase.parameters.is_none());
        let named = joint.map(|phase| format!("{}: {}", phase.name, phase.steps));
        named.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(
        planned(None, Method::Joint),
        "joint, B grows: 15, joint: 15"
    );
    assert_eq!(
        planned(Some(20), Method::BlocksJoint),
        "joint, B grows: 20, joint: 10"
    );
}

/// Norms follow a growing B, and then keep their statistics; with those of batches they go on.
#[test]
fn at_the_final_b_norms_stay() {
    let folder = workplace();
    let statistics = |name: &str, steps, norm_statistics| {
        let mut options = AlignOptions {
            growth: Some(Growth {
                from: 1.0,
                steps: Some(4),
            }),
            joint_steps: steps,
            norm_statistics,
            sheet: 0,
            ..options(&folder, name, Method::Joint)
        };
        options.conversion.settings.biases = Biases::Carry;
        let model = run(&folder, &options).unwrap().model;
        let graph = &model.graph;
        let norms = graph.ops().into_iter().filter(|&node| {
            let op = graph.op(node);
            op.is_some_and(|op| op.is("BatchNormalization"))
        });
        let variances = norms.filter_map(|node| graph.constant(graph.input(node, 4)?));
        variances.collect::<Vec<_>>()
    };
    let kept = statistics("four", 5, None);
    assert!(!kept.is_empty());
    assert_eq!(statistics("more", 9, None), kept);
    let batch = Some(NormStatistics::Batch);
    assert_ne!(
        statistics("batch", 5, batch),
        statistics("batches", 9, batch)
    );
}

/// With its biases carried and its norms as they were, the model starts as the original. With the statistics of a batch it does not.
#[test]
fn b_grows_from_the_original() {
    let folder = workplace();
    let mut options = AlignOptions {
        growth: Some(Growth {
            from: 1.0,
            steps: None,
        }),
        joint_steps: 8,
        sheet: 0,
        ..options(&folder, "grown", Method::Joint)
    };
    options.conversion.settings.biases = Biases::Carry;
    let before = |options: &AlignOptions| run(&folder, options).unwrap().phases[0].before;
    let exact = before(&options);
    assert!(exact < 1e-9, "{exact:e}");
    options.norm_statistics = Some(NormStatistics::Batch);
    options.work_dir = folder.path().join("batch");
    let batch = before(&options);
    assert!(batch > 1e-4, "{batch:e}");
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
fn the_result_depends_on_the_seed_and_not_on_workers() {
    let folder = workplace();
    let one = |name: &str, workers, seed| {
        let options = AlignOptions {
            workers,
            seed,
            ..options(&folder, name, Method::BlocksJoint)
        };
        bytes(&run(&folder, &options).unwrap())
    };
    let first = one("a", 2, 1);
    assert!(first == one("b", 0, 1));
    assert!(first != one("c", 2, 2));
}

#[test]
fn an_interrupted_alignment_goes_on_to_the_same_bytes() {
    let folder = workplace();
    let whole = run(&folder, &options(&folder, "whole", Method::BlocksJoint)).unwrap();
    let whole = bytes(&whole);
    // In the first segment, at its last step, in the second, and in the joint part.
    for stop_at in [5, 20, 33, 50] {
        let name = format!("stopped{stop_at}");
        let mut options = options(&folder, &name, Method::BlocksJoint);
        let mut steps = 0;
        let stopped = align(folder.path().join("net.onnx"), &options, &mut |event| {
            steps += u64::from(matches!(event, AlignEvent::Step { .. }));
            match steps < stop_at {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
        assert!(stopped.unwrap().interrupted);
        options.resume = true;
        let resumed = run(&folder, &options).unwrap();
        assert!(bytes(&resumed) == whole, "stopped at {stop_at}");
        let lines = fs::read_to_string(options.work_dir.join(METRICS)).unwrap();
        assert_eq!(lines.lines().count(), 40 + 30 + 3 + 2);

        options.seed = 7;
        let error = run(&folder, &options).unwrap_err().to_string();
        assert!(error.contains("--seed = 1, not 7"), "{error}");
    }
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
fn features_can_be_in_a_file() {
    let folder = workplace();
    let one = |name: &str, feature_memory| {
        let options = AlignOptions {
            // An epoch, so that the memory does not decide on the images.
            block_steps: 2,
            feature_memory,
            ..options(&folder, name, Method::Blocks)
        };
        bytes(&run(&folder, &options).unwrap())
    };
    assert!(one("memory", 1 << 30) == one("file", 0));
    // The first images fit, and what follows does not.
    assert!(one("both", 50_000) == one("file", 0));
}

#[test]
fn a_budget_sets_the_steps() {
    let folder = workplace();
    let options = AlignOptions {
        budget: Some(std::time::Duration::from_millis(1)),
        ..options(&folder, "run", Method::Blocks)
    };
    let aligned = run(&folder, &options).unwrap();
    assert!(aligned.phases.iter().all(|phase| phase.steps == 8));
}

#[test]
fn a_budget_is_measured_again_after_an_interruption() {
    let folder = workplace();
    let mut options = AlignOptions {
        budget: Some(std::time::Duration::from_millis(500)),
        ..options(&folder, "run", Method::Blocks)
    };
    // At the step before the number of steps is decided.
    let mut steps = 0;
    let stopped = align(folder.path().join("net.onnx"), &options, &mut |event| {
        steps += u64::from(matches!(event, AlignEvent::Step { .. }));
        match steps < 3 {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    });
    assert!(stopped.unwrap().interrupted);
    options.resume = true;
    // A step takes a millisecond or more.
    let resumed = run(&folder, &options).unwrap();
    assert!(resumed.phases.iter().all(|phase| phase.steps < 1000));
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

fn bcosc(folder: &TempDir, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bcosc"))
        .current_dir(folder.path())
        .args(arguments)
        .output()
        .unwrap()
}

const NORMALIZATION: [&str; 4] = ["--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25"];

#[test]
fn the_command_says_what_it_does_and_what_changed() {
    let folder = workplace();
    let start = ["align", "net.onnx", "--data", "data"];
    let plan = bcosc(
        &folder,
        &[&start[..], &NORMALIZATION, &["--dry-run"]].concat(),
    );
    let plan = String::from_utf8(plan.stdout).unwrap();
    insta::assert_snapshot!(plan, @r"
    phase      layers  tensors  steps  compared at
    segment 1  3       6        80     block
    segment 2  1       1        80     output
    ");

    let rest = [
        "-o",
        "out.onnx",
        "--steps",
        "4",
        "--batch-size",
        "8",
        "--engine",
        "tract",
    ];
    let done = bcosc(&folder, &[&start[..], &NORMALIZATION, &rest].concat());
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success(), "{said}");
    for text in [
        "32 training images, 4 held out; 8 in a step; 2 phases",
        "segment 1: error ",
        "4 steps in ",
        "original  converted  aligned",
        "agreement",
        "top-1",
        "wrote out.onnx",
        "out.alignment",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
    assert!(folder.path().join("out.onnx").exists());
}

#[test]
fn a_conversion_can_end_with_the_alignment() {
    let folder = workplace();
    let start = ["net.onnx", "-o", "short.onnx", "--align", "data"];
    let short = bcosc(&folder, &[&start[..], &NORMALIZATION].concat());
    let said = String::from_utf8(short.stderr).unwrap();
    assert!(short.status.success(), "{said}");
    let start = ["align", "net.onnx", "-o", "long.onnx", "--data", "data"];
    bcosc(&folder, &[&start[..], &NORMALIZATION].concat());
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(read("short.onnx") == read("long.onnx"));
}

#[test]
fn errors_say_what_to_do() {
    let folder = workplace();
    let failure = |arguments: &[&str]| {
        let start = ["align", "net.onnx", "--data", "data", "-o", "out.onnx"];
        let found = bcosc(&folder, &[&start[..], arguments].concat());
        assert!(!found.status.success());
        assert!(!folder.path().join("out.onnx").exists());
        String::from_utf8(found.stderr).unwrap()
    };
    let text = failure(&[&NORMALIZATION[..], &["--b-from", "1", "--b-steps", "5"]].concat());
    assert!(text.contains("--method joint"), "{text}");
    let text = failure(&[&NORMALIZATION[..], &["--teacher", "data/0/0.png"]].concat());
    assert!(text.contains("0.png"), "{text}");
    let text = failure(&["--budget", "soon"]);
    assert!(text.contains("10min"), "{text}");
    fs::write(folder.path().join("data/1/broken.png"), b"no picture").unwrap();
    let text = failure(&NORMALIZATION);
    assert!(text.contains("broken.png"), "{text}");
    let start = [
        "align",
        "net.onnx",
        "--data",
        "data",
        "-o",
        "out.onnx",
        "--steps",
        "2",
        "--engine",
        "tract",
        "--skip-unreadable",
    ];
    let done = bcosc(&folder, &[&start[..], &NORMALIZATION].concat());
    let text = String::from_utf8(done.stderr).unwrap();
    assert!(
        done.status.success() && text.contains("broken.png"),
        "{text}"
    );
}
