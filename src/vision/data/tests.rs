//! Batches of small pictures.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bcosc_ir::{Attribute, DataType, ModelBuilder, Tensor};
use bcosc_passes::InputContract;

use super::*;
use crate::{Error, Intake, PredictOptions, Predictor, Preset, Source};

/// Numbers of a batch.
type Numbers = (Vec<usize>, Vec<f32>, Vec<f64>);

/// Writes pictures of different sizes in two class folders, some as JPEG.
fn write_pictures(folder: &Path, count: usize) {
    for i in 0..count {
        let name = format!(
            "{}/{i:02}.{}",
            ["cat", "dog"][i % 2],
            ["png", "jpg"][i / 2 % 2]
        );
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let (width, height) = (9 + i as u32 % 5, 8 + i as u32 % 7);
        let paint =
            |x: u32, y: u32| image::Rgb([20 * x as u8, 18 * y as u8, (37 * i) as u8 ^ x as u8]);
        image::RgbImage::from_fn(width, height, paint)
            .save(path)
            .unwrap();
    }
}

fn samples(folder: &Path) -> Samples {
    Samples::labelled(ImageFolder::open(folder).unwrap(), "net", 2, None).unwrap()
}

fn data(count: usize) -> (tempfile::TempDir, Samples) {
    let folder = tempfile::tempdir().unwrap();
    write_pictures(folder.path(), count);
    let samples = samples(folder.path());
    (folder, samples)
}

/// How a network of two classes takes pictures; `start` makes "x", [N, C, 8, 8], of its input.
fn intake(start: ModelBuilder, channels: u64, options: &PredictOptions) -> Intake {
    let weights = (0..channels * 2).map(|i| i as f32 - 3.0).collect();
    let built = start
        .param("w", Tensor::f32s(&[2, channels, 1, 1], weights))
        .op("Conv", &["x", "w"], "scores", [])
        .op("GlobalAveragePool", &["scores"], "means", [])
        .op("Flatten", &["means"], "logits", [])
        .output("logits");
    let source = Source::from(bcosc_onnx::encode(&built.proto()).unwrap());
    Predictor::open(source, options).unwrap().intake
}

fn with_inverse() -> Intake {
    let start = ModelBuilder::new(17).input("x", DataType::Float, "batch,6,8,8");
    intake(start, 6, &PredictOptions::default())
}

fn normalized() -> Intake {
    let options = PredictOptions {
        normalization: Some(Preset::Imagenet.normalization()),
        ..PredictOptions::default()
    };
    let start = ModelBuilder::new(17).input("x", DataType::Float, "batch,3,8,8");
    intake(start, 3, &options)
}

fn loader(samples: &Samples, options: LoaderOptions) -> Loader {
    Loader::new(samples.clone(), &with_inverse(), [8, 8], options).unwrap()
}

/// Everything that is random.
fn all_random() -> LoaderOptions {
    LoaderOptions {
        augmentation: Augmentation {
            trivial_augment: true,
            mixup_alpha: Some(0.4),
            ..Augmentation::random_resized_crop()
        },
        targets: Targets::Probabilities {
            classes: 2,
            on: 1.0,
            off: 0.5,
        },
        seed: 3,
        ..LoaderOptions::train(4)
    }
}

fn numbers(batch: &Batch) -> Numbers {
    let targets = batch.targets.as_ref().unwrap();
    let targets = match targets.dtype() {
        DataType::Int64 => targets
            .to_i64s()
            .unwrap()
            .into_iter()
            .map(|t| t as f64)
            .collect(),
        _ => targets.to_f64s().unwrap(),
    };
    (
        batch.samples.clone(),
        batch.images.to_f32s().unwrap(),
        targets,
    )
}

fn all(batches: Epoch) -> Vec<Numbers> {
    batches.map(|batch| numbers(&batch.unwrap())).collect()
}

fn message(error: Result<impl Sized, Error>) -> String {
    error.err().unwrap().to_string()
}

#[test]
fn batches_do_not_depend_on_workers_or_the_cache() {
    let (_folder, samples) = data(19);
    let expected: Vec<_> = {
        let made = loader(
            &samples,
            LoaderOptions {
                workers: 0,
                ..all_random()
            },
        );
        (0..3).map(|epoch| all(made.epoch(epoch))).collect()
    };
    assert_eq!(expected[0].len(), 4);
    assert_ne!(expected[0], expected[1]);
    for workers in [1, 2, 4, 9] {
        for cache in [0, 1500, LoaderOptions::CACHE] {
            let options = LoaderOptions {
                workers,
                cache,
                ..all_random()
            };
            let made = loader(&samples, options);
            for epoch in [2, 0, 1] {
                assert_eq!(
                    all(made.epoch(epoch as u64)),
                    expected[epoch],
                    "{workers} {cache}"
                );
            }
        }
    }
    let other = loader(
        &samples,
        LoaderOptions {
            seed: 4,
            ..all_random()
        },
    );
    assert_ne!(all(other.epoch(0)), expected[0]);
}

#[test]
fn an_epoch_resumes_at_any_batch() {
    let (_folder, samples) = data(19);
    let options = LoaderOptions {
        workers: 2,
        ..all_random()
    };
    let whole = all(loader(&samples, options).epoch(5));
    for first in 0..=whole.len() {
        let fresh = loader(&samples, options);
        assert_eq!(all(fresh.resume(5, first)), whole[first..]);
        let one = fresh.batch(5, first).unwrap();
        assert_eq!(one.as_ref().map(numbers).as_ref(), whole.get(first));
    }
}

#[test]
fn an_epoch_takes_every_picture_once() {
    let (_folder, samples) = data(19);
    let seen = |options, epoch| {
        let batches = all(loader(&samples, options).epoch(epoch));
        batches
            .into_iter()
            .flat_map(|(samples, ..)| samples)
            .collect::<Vec<_>>()
    };
    assert_eq!(seen(LoaderOptions::evaluation(4), 1), Vec::from_iter(0..19));
    let mut first = seen(LoaderOptions::train(4), 0);
    assert_ne!(first, seen(LoaderOptions::train(4), 1));
    assert_eq!(first.len(), 16);
    first.sort_unstable();
    first.dedup();
    assert_eq!(first.len(), 16);
}

/// Training goes on with the same numbers, whatever the version of the random generator.
#[test]
fn the_order_is_always_the_same() {
    let (_folder, samples) = data(8);
    let order = |epoch| {
        loader(&samples, LoaderOptions::train(8))
            .pipeline
            .order(epoch)
    };
    assert_eq!(order(0), [2, 5, 3, 7, 1, 6, 4, 0]);
    assert_eq!(order(1), [0, 5, 4, 2, 1, 7, 6, 3]);
}

#[test]
fn without_augmentation_a_batch_is_what_the_predictor_takes() {
    let (_folder, samples) = data(7);
    let numbers =
        |scale: f32| Tensor::f32s(&[1, 3, 1, 1], [0.4, 0.5, 0.6].map(|v| v * scale).to_vec());
    let bytes = ModelBuilder::new(17)
        .input("bytes", DataType::Float, "batch,3,8,8")
        .param("mean", numbers(255.0))
        .op("Sub", &["bytes", "mean"], "centred", [])
        .param("std", numbers(127.5))
        .op("Div", &["centred", "std"], "x", []);
    let last = ModelBuilder::new(17)
        .input("last", DataType::Float, "batch,8,8,6")
        .op(
            "Transpose",
            &["last"],
            "x",
            [Attribute::ints("perm", &[0, 3, 1, 2])],
        );
    let single = i64::from(DataType::Float.to_i32());
    let halves = ModelBuilder::new(17)
        .input("halves", DataType::Float16, "batch,3,8,8")
        .op("Cast", &["halves"], "x", [Attribute::int("to", single)]);
    let rgb = PredictOptions {
        input: Some(InputContract::Rgb),
        ..PredictOptions::default()
    };
    let grey = ModelBuilder::new(17).input("x", DataType::Float, "batch,2,8,8");
    let cropped = PredictOptions {
        crop: 0.7,
        ..PredictOptions::default()
    };
    for intake in [
        with_inverse(),
        normalized(),
        intake(bytes, 3, &PredictOptions::default()),
        intake(last, 6, &cropped),
        intake(halves, 3, &rgb),
        intake(grey, 2, &PredictOptions::default()),
    ] {
        let options = LoaderOptions::evaluation(4);
        let made = Loader::new(samples.clone(), &intake, [8, 8], options).unwrap();
        for batch in made.epoch(0) {
            let batch = batch.unwrap();
            let each = batch.samples.iter().map(|sample| {
                let image = intake.read(&samples.pictures[*sample]).unwrap();
                intake
                    .tensors(&image, None)
                    .unwrap()
                    .remove(&intake.name)
                    .unwrap()
            });
            let each: Vec<Tensor> = each.collect();
            assert_eq!(batch.images.dtype(), each[0].dtype());
            assert_eq!(batch.images.dims()[1..], each[0].dims()[1..]);
            let bytes: Vec<u8> = each.iter().flat_map(|t| t.bytes().unwrap()).collect();
            assert_eq!(batch.images.bytes().unwrap(), bytes);
        }
    }
}

#[test]
fn zeros_around_a_picture_are_black_for_both_halves() {
    let (_folder, samples) = data(8);
    let options = LoaderOptions {
        augmentation: Augmentation::shift(4),
        ..LoaderOptions::train(8)
    };
    let batch = loader(&samples, options).batch(0, 0).unwrap().unwrap();
    let images = batch.images.to_f32s().unwrap();
    let mut padded = 0;
    for image in images.chunks(6 * 64) {
        let (x, inverse) = image.split_at(3 * 64);
        assert!(x.iter().zip(inverse).all(|(x, y)| x + y == 1.0));
        padded += usize::from((0..3).all(|c| x[c * 64..][..8].iter().all(|x| *x == 0.0)));
    }
    // About half of all shifts go down.
    assert!((1..8).contains(&padded), "{padded}");
}

#[test]
fn targets_are_labels_or_numbers_of_each_class() {
    let (_folder, samples) = data(6);
    let labels = loader(&samples, LoaderOptions::evaluation(6))
        .batch(0, 0)
        .unwrap()
        .unwrap();
    assert_eq!(
        labels.targets.unwrap().to_i64s().unwrap(),
        [0, 0, 0, 1, 1, 1]
    );
    let targets = Targets::Probabilities {
        classes: 3,
        on: 1.0,
        off: 0.25,
    };
    let options = LoaderOptions {
        targets,
        ..LoaderOptions::evaluation(6)
    };
    let plain = loader(&samples, options)
        .batch(0, 0)
        .unwrap()
        .unwrap()
        .targets
        .unwrap();
    assert_eq!(plain.dims(), [6, 3]);
    assert_eq!(
        plain.to_f32s().unwrap()[6..12],
        [1.0, 0.25, 0.25, 0.25, 1.0, 0.25]
    );
    let mixed = LoaderOptions {
        augmentation: Augmentation {
            mixup_alpha: Some(1.0),
            ..Augmentation::NONE
        },
        ..options
    };
    let mixed = loader(&samples, mixed)
        .batch(0, 0)
        .unwrap()
        .unwrap()
        .targets
        .unwrap();
    let mixed = mixed.to_f32s().unwrap();
    for row in mixed.chunks(3) {
        assert!((row.iter().sum::<f32>() - 1.5).abs() < 1e-6, "{row:?}");
    }
    // The first dog is mixed with the last cat, and the first cat with the last dog by the same share.
    assert!(mixed[9] > 0.25 && mixed[9] < 1.0, "{mixed:?}");
    assert_eq!(mixed[9], mixed[1]);
    assert_eq!(mixed[3..6], [1.0, 0.25, 0.25]);
}

#[test]
fn a_teacher_gets_the_same_pictures() {
    let (_folder, samples) = data(8);
    let options = LoaderOptions {
        augmentation: Augmentation {
            mixup_alpha: Some(0.5),
            ..Augmentation::shift(2)
        },
        ..LoaderOptions::train(8)
    };
    let samples = samples.without_labels();
    let made = Loader::with_teacher(samples, &with_inverse(), &normalized(), [8, 8], options);
    let batch = made.unwrap().batch(0, 0).unwrap().unwrap();
    assert!(batch.targets.is_none());
    let (x, normalized) = (
        batch.images.to_f32s().unwrap(),
        batch.teacher_images.unwrap().to_f32s().unwrap(),
    );
    let preset = Preset::Imagenet.normalization();
    for (image, normalized) in x.chunks(6 * 64).zip(normalized.chunks(3 * 64)) {
        for (i, (x, n)) in image.iter().zip(normalized).enumerate() {
            let expected = (f64::from(*x) - preset.mean[i / 64]) / preset.std[i / 64];
            assert!((f64::from(*n) - expected).abs() < 1e-5);
        }
    }
}

#[test]
fn an_unreadable_picture_is_named_or_skipped() {
    let (folder, samples) = data(10);
    let broken = folder.path().join("cat/04.png");
    fs::write(&broken, b"nothing").unwrap();
    let number = samples
        .pictures
        .iter()
        .position(|path| *path == broken)
        .unwrap();
    let options = LoaderOptions {
        workers: 2,
        ..LoaderOptions::train(2)
    };

    let made = loader(&samples, options);
    let mut epoch = made.epoch(0);
    let error = epoch.find_map(Result::err).unwrap().to_string();
    assert!(error.contains("04.png"), "{error}");
    assert!(epoch.next().is_none());

    let options = LoaderOptions {
        unreadable: Unreadable::Skip,
        ..options
    };
    let made = loader(&samples, options);
    let skipping = all(made.epoch(0));
    let seen: Vec<usize> = skipping
        .iter()
        .flat_map(|(samples, ..)| samples.clone())
        .collect();
    let expected = made
        .pipeline
        .order(0)
        .into_iter()
        .map(|n| if n == number { n + 1 } else { n });
    assert_eq!(seen, Vec::from_iter(expected));
    assert_eq!(made.skipped().len(), 1);
    assert_eq!(made.skipped()[0].path, broken);

    let evaluation = LoaderOptions {
        unreadable: Unreadable::Skip,
        ..LoaderOptions::evaluation(1)
    };
    let seen = all(loader(&samples, evaluation).epoch(0))
        .into_iter()
        .flat_map(|(samples, ..)| samples);
    assert_eq!(
        Vec::from_iter(seen),
        Vec::from_iter((0..10).filter(|n| *n != number))
    );

    for path in &samples.pictures {
        fs::write(path, b"nothing").unwrap();
    }
    let error = message(loader(&samples, options).batch(0, 0));
    assert!(error.contains("none of the 10 pictures"), "{error}");
}

#[test]
fn decoded_pictures_stay_in_memory() {
    let (folder, samples) = data(8);
    let made = loader(
        &samples,
        LoaderOptions {
            workers: 2,
            ..all_random()
        },
    );
    let expected = all(made.epoch(0));
    drop(folder);
    assert_eq!(all(made.epoch(0)), expected);
    assert!(made.epoch(1).all(|batch| batch.is_ok()));
}

#[test]
fn few_batches_are_made_ahead_and_dropping_stops_workers() {
    let (_folder, samples) = data(30);
    let made = loader(
        &samples,
        LoaderOptions {
            prefetch_factor: 2,
            ..LoaderOptions::train(1)
        },
    );
    let mut epoch = made.epoch(0);
    assert!(epoch.next().unwrap().is_ok());
    std::thread::sleep(Duration::from_millis(200));
    let one = 3 * 8 * 8;
    assert!(made.pipeline.cache.used.load(Ordering::Relaxed) <= 3 * one);
    drop(epoch);
    assert_eq!(Arc::strong_count(&made.pipeline), 1);
    drop(made.epoch(1));
    assert_eq!(Arc::strong_count(&made.pipeline), 1);
}

#[test]
fn options_out_of_range_are_refused() {
    let (_folder, samples) = data(6);
    let train = LoaderOptions::train(4);
    let with = |augmentation| LoaderOptions {
        augmentation,
        ..train
    };
    let crop = |crop| {
        with(Augmentation {
            crop,
            ..Augmentation::NONE
        })
    };
    let shift = |pixels, padding| crop(Crop::Shift { pixels, padding });
    let mixup = |alpha| {
        with(Augmentation {
            mixup_alpha: Some(alpha),
            ..Augmentation::NONE
        })
    };
    let three = Targets::Probabilities {
        classes: 1,
        on: 1.0,
        off: 0.0,
    };
    for (options, expected) in [
        (LoaderOptions::train(7), "use at most 6"),
        (LoaderOptions::train(0), "at least 1"),
        (
            LoaderOptions {
                prefetch_factor: 0,
                ..train
            },
            "1 batch ahead",
        ),
        (
            LoaderOptions {
                targets: three,
                ..train
            },
            "a picture has class 1",
        ),
        (mixup(0.2), "a number for each class"),
        (
            LoaderOptions {
                targets: Targets::default(),
                ..mixup(f64::NAN)
            },
            "mixup",
        ),
        (shift(9, Padding::Zeros), "at most 8"),
        (shift(8, Padding::Reflect), "at most 7"),
        (
            crop(Crop::RandomResized {
                scale: [0.0, 1.0],
                ratio: [1.0; 2],
            }),
            "of the area",
        ),
        (
            crop(Crop::RandomResized {
                scale: [0.5, 1.0],
                ratio: [2.0, 1.0],
            }),
            "aspect ratios",
        ),
        (
            with(Augmentation {
                flip: 1.5,
                ..Augmentation::NONE
            }),
            "between 0 and 1",
        ),
    ] {
        let error = message(Loader::new(
            samples.clone(),
            &with_inverse(),
            [8, 8],
            options,
        ));
        assert!(error.contains(expected), "{error}");
    }
    let unlabelled = samples.clone().without_labels();
    let error = message(Loader::new(
        unlabelled,
        &with_inverse(),
        [8, 8],
        mixup(-1.0),
    ));
    assert!(error.contains("alpha of mixup is -1"), "{error}");
    let error = message(Loader::new(samples.clone(), &with_inverse(), [8, 9], train));
    assert!(error.contains("does not take pictures of 8 x 9"), "{error}");
    assert!(
        Loader::new(
            samples,
            &with_inverse(),
            [8, 8],
            LoaderOptions::evaluation(7)
        )
        .is_ok()
    );
}
