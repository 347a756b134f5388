//! What cannot be read, and options that are refused.

use super::*;
use crate::Error;

fn message(error: Result<impl Sized, Error>) -> String {
    error.err().unwrap().to_string()
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
    let shift_by = |distance, padding| crop(Crop::Shift { distance, padding });
    let shift = |pixels, padding| shift_by(Distance::Pixels(pixels), padding);
    let share = |share| shift_by(Distance::Share(share), Padding::Zeros);
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
        (share(f64::NAN), "a share of NaN"),
        (share(-0.5), "a share of -0.5"),
        (share(1.5), "a share of 1.5"),
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
    let uneven = Samples {
        labels: Some(vec![0; 5]),
        ..samples.clone()
    };
    let error = message(Loader::new(uneven, &with_inverse(), [8, 8], train));
    assert!(error.contains("not as many classes"), "{error}");
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
