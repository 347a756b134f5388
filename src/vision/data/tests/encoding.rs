//! What models and their losses get.

use bcosc_ir::Attribute;
use bcosc_passes::InputContract;

use super::*;

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
fn a_share_of_a_picture_is_so_many_pixels() {
    let (_folder, samples) = data(8);
    let images = |distance| {
        let options = LoaderOptions {
            augmentation: Augmentation::shift_by(distance),
            ..LoaderOptions::train(8)
        };
        let batch = loader(&samples, options).batch(0, 0).unwrap().unwrap();
        batch.images.to_f32s().unwrap()
    };
    let half = images(Distance::Share(0.5));
    assert_eq!(half, images(Distance::Pixels(4)));
    assert_ne!(half, images(Distance::Pixels(1)));
    // Never none at all.
    assert_eq!(images(Distance::Share(0.01)), images(Distance::Pixels(1)));
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
