//! Comparison with torchvision: `fixtures/augment/generate.py` made the numbers.

use serde_json::Value;

use super::trivial::Operation;
use super::{Padding, crop};
use crate::vision::images::{Pixels, Region, resized};

fn reference() -> Value {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/fixtures/augment/reference.json"
    );
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn picture(channels: usize) -> Pixels {
    let (height, width) = (26, 40);
    let value = |i: usize| {
        let (y, x, c) = (i / channels / width, i / channels % width, i % channels);
        ((30 + 3 * x * (c + 1) + 5 * y + x * y / 7) % 190 + 20) as u8
    };
    Pixels {
        channels,
        height,
        width,
        data: (0..height * width * channels).map(value).collect(),
    }
}

fn adler32(data: &[u8]) -> u64 {
    let step = |(a, b): (u64, u64), value: &u8| {
        let a = (a + u64::from(*value)) % 65521;
        (a, (b + a) % 65521)
    };
    let (a, b) = data.iter().fold((1, 0), step);
    b << 16 | a
}

fn numbers(value: &Value) -> Vec<f64> {
    let items = value.as_array().unwrap().iter();
    items.map(|item| item.as_f64().unwrap()).collect()
}

fn region(value: &Value) -> Region {
    let [top, left, height, width] = numbers(value)[..] else {
        panic!("{value}");
    };
    Region {
        top: top as usize,
        left: left as usize,
        height: height as usize,
        width: width as usize,
    }
}

/// PyTorch rounds magnitudes differently from processor to processor.
fn check_magnitudes(operation: Operation, expected: &[f64]) {
    let own = match operation.magnitudes() {
        Some((own, signed)) => {
            let plus = own.iter().map(|m| f64::from(*m));
            let minus = plus.clone().map(|m| -m);
            let signs = if signed { 2 } else { 1 };
            plus.chain(minus).take(signs * own.len()).collect()
        }
        None => vec![0.0],
    };
    assert_eq!(own.len(), expected.len(), "{operation:?}");
    for (own, expected) in own.iter().zip(expected) {
        let distance = (own - expected).abs();
        assert!(
            distance <= 1e-6 * expected.abs(),
            "{operation:?} {own} {expected}"
        );
    }
}

#[test]
fn operations_of_trivial_augment_are_those_of_torchvision() {
    let reference = &reference()["trivial_augment"];
    assert_eq!(reference.as_object().unwrap().len(), Operation::ALL.len());
    let mut wrong = Vec::new();
    for operation in Operation::ALL {
        let expected = &reference[format!("{operation:?}")];
        let magnitudes = numbers(&expected["magnitudes"]);
        // They are of single precision, and read in double precision with errors.
        let magnitudes: Vec<f64> = magnitudes.iter().map(|m| f64::from(*m as f32)).collect();
        check_magnitudes(operation, &magnitudes);
        for (channels, sums) in [3, 1].into_iter().zip(expected["sums"].as_array().unwrap()) {
            for (magnitude, sum) in magnitudes.iter().zip(numbers(sums)) {
                let found = operation.apply(picture(channels), *magnitude);
                if adler32(&found.data) as f64 != sum {
                    wrong.push((operation, channels, *magnitude));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Pillow and `fast_image_resize` round weights to different numbers of bits.
#[test]
fn resized_regions_are_those_of_torchvision() {
    for case in reference()["crops"].as_array().unwrap() {
        let found = resized(&picture(3), region(&case["region"]), [9, 7]).unwrap();
        let expected = numbers(&case["pixels"]);
        assert_eq!(found.data.len(), expected.len());
        let pairs = found.data.iter().zip(expected);
        let distances: Vec<f64> = pairs.map(|(x, y)| (f64::from(*x) - y).abs()).collect();
        assert!(distances.iter().all(|d| *d <= 1.0), "{case}");
        let mean = distances.iter().sum::<f64>() / distances.len() as f64;
        assert!(mean <= 0.2, "{mean} {case}");
    }
}

#[test]
fn shifts_are_those_of_torchvision() {
    for case in reference()["shifts"].as_array().unwrap() {
        let padding = match case["padding"].as_str() {
            Some("zeros") => Padding::Zeros,
            _ => Padding::Reflect,
        };
        let [down, right] = ["down", "right"].map(|key| case[key].as_i64().unwrap());
        let found = crop::shifted(&picture(3), [down, right], padding);
        assert_eq!(
            adler32(&found.data),
            case["sum"].as_u64().unwrap(),
            "{case}"
        );
    }
}

#[test]
fn random_regions_are_those_of_torchvision() {
    let mut whole = 0;
    for case in reference()["regions"].as_array().unwrap() {
        let size = ["height", "width"].map(|key| case[key].as_u64().unwrap() as usize);
        let expected = region(&case["region"]);
        let draws = case["draws"].as_array().unwrap().iter().map(numbers);
        let mut fitting = draws.filter_map(|draw| crop::region_size(size, draw[0], draw[1]));
        match fitting.next() {
            Some(found) => assert_eq!(found, [expected.height, expected.width], "{case}"),
            None => {
                whole += 1;
                assert_eq!(crop::central_region(size, [3.0 / 4.0, 4.0 / 3.0]), expected);
            }
        }
    }
    assert!(whole > 2, "{whole}");
}

#[test]
fn mixup_is_that_of_torchvision() {
    for case in reference()["mixup"].as_array().unwrap() {
        let share = case["share"].as_f64().unwrap();
        let mut images = [0.1, 0.9, 0.35, -2.0, 7.0, 0.2_f32];
        crate::vision::data::mixup::mix(&mut images, 2, share);
        assert_eq!(images.map(f64::from).to_vec(), numbers(&case["images"]));
        let mut targets = [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0_f32];
        crate::vision::data::mixup::mix(&mut targets, 3, share);
        assert_eq!(targets.map(f64::from).to_vec(), numbers(&case["targets"]));
    }
}
