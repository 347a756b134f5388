//! Batches of small pictures.

mod encoding;
mod failures;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bcosc_ir::{DataType, ModelBuilder, Tensor};

use super::*;
use crate::{Intake, PredictOptions, Predictor, Preset, Source};

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
