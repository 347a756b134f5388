//! Proofs on small networks, and the samples they are made with.

use bcosc_engine::{
    Encoding, ProofError, ProofFigures, Samples, Sensitivity, default_engine, nudged, run_all,
};
use bcosc_ir::{Attribute, DataType, Model, ModelBuilder, Tensor, Tensors};
use bcosc_testing::{input, weight};

const RTOL: f64 = 1e-4;

fn prove(
    reference: &Model,
    candidate: &Model,
    reference_inputs: &[Tensors],
    candidate_inputs: &[Tensors],
    rtol: f64,
) -> Result<ProofFigures, ProofError> {
    let engine = default_engine();
    bcosc_engine::prove(
        engine,
        reference,
        candidate,
        reference_inputs,
        candidate_inputs,
        rtol,
    )
}

/// A small network on pictures: convolution, relu, global pool, linear, all times `gain`.
fn network(gain: f32, channels: u64) -> ModelBuilder {
    let first = weight(1, &[4, 3, 3, 3]).to_f32s().unwrap();
    let doubled =
        |kernel: &[f32]| [kernel, &kernel.iter().map(|w| -w).collect::<Vec<_>>()].concat();
    let first = match channels {
        6 => first
            .chunks(27)
            .flat_map(doubled)
            .map(|w| w / 2.0)
            .collect(),
        _ => first,
    };
    ModelBuilder::new(13)
        .param("w", Tensor::f32s(&[4, channels, 3, 3], first))
        .param("v", weight(2, &[4, 5]))
        .param("gain", Tensor::f32s(&[], vec![gain]))
        .op(
            "Conv",
            &["xn", "w"],
            "conv",
            [Attribute::ints("pads", &[1, 1, 1, 1])],
        )
        .op("Relu", &["conv"], "relu", [])
        .op("GlobalAveragePool", &["relu"], "pool", [])
        .op("Flatten", &["pool"], "flat", [])
        .op("MatMul", &["flat", "v"], "logits", [])
        .op("Mul", &["logits", "gain"], "y", [])
        .output("y")
}

fn plain(gain: f32) -> Model {
    network(gain, 3)
        .input("x", DataType::Float, "N,3,H,W")
        .op("Identity", &["x"], "xn", [])
        .finish()
        .unwrap()
}

fn samples() -> Samples {
    let shapes = [("x".to_owned(), vec![1, 3, 20, 24])].into();
    Samples {
        seed: 7,
        count: 3,
        shapes,
    }
}

fn proof(reference: &Model, candidate: &Model) -> Result<f64, ProofError> {
    let inputs = samples().draw(reference, &Encoding::Raw).unwrap();
    let figures = prove(reference, candidate, &inputs, &inputs, RTOL)?;
    assert_eq!((figures.samples, figures.outputs[0].0.as_str()), (3, "y"));
    Ok(figures.overall.max_relative)
}

#[test]
fn equal_models_agree_and_doubled_ones_do_not() {
    assert_eq!(proof(&plain(1.0), &plain(1.0)).unwrap(), 0.0);
    let Err(ProofError::Differs(figures)) = proof(&plain(1.0), &plain(2.0)) else {
        panic!("a doubled output passed");
    };
    assert!((figures.overall.max_relative - 1.0).abs() < 1e-6);
    assert!((figures.overall.cosine - 1.0).abs() < 1e-9);
    assert_eq!(figures.overall.top1, 1.0);
    for gain in [0.0, -1.0, 1.01, f32::NAN, f32::INFINITY] {
        let failed = proof(&plain(1.0), &plain(gain));
        assert!(matches!(failed, Err(ProofError::Differs(_))), "gain {gain}");
    }
    let nothing = proof(&plain(0.0), &plain(0.0));
    assert!(
        matches!(nothing, Err(ProofError::Differs(_))),
        "zeros proved something"
    );
}

#[test]
fn no_samples_prove_nothing() {
    let model = plain(1.0);
    assert!(matches!(
        prove(&model, &model, &[], &[], RTOL),
        Err(ProofError::Differs(_))
    ));
    let inputs = samples().draw(&model, &Encoding::Raw).unwrap();
    let uneven = prove(&model, &model, &inputs, &inputs[..1], RTOL);
    assert!(matches!(uneven, Err(ProofError::SampleCount { .. })));
}

#[test]
fn a_doubled_input_carries_the_same_pictures() {
    let mean = Tensor::f32s(&[1, 3, 1, 1], vec![0.485, 0.456, 0.406]);
    let std = Tensor::f32s(&[1, 3, 1, 1], vec![0.229, 0.224, 0.225]);
    // ((x, 1 - x) - (mean, 1 - mean)) / std is (xn, -xn).
    let both = |t: &Tensor, f: fn(f32) -> f32| {
        let values = t.to_f32s().unwrap();
        let inverse: Vec<f32> = values.iter().map(|v| f(*v)).collect();
        Tensor::f32s(&[1, 6, 1, 1], [values, inverse].concat())
    };
    let candidate = network(1.0, 6)
        .input("x", DataType::Float, "N,6,H,W")
        .param("mean", both(&mean, |m| 1.0 - m))
        .param("std", both(&std, |s| s))
        .op("Sub", &["x", "mean"], "centred", [])
        .op("Div", &["centred", "std"], "xn", [])
        .finish()
        .unwrap();
    let double = |t: &Tensor| t.to_f64s().unwrap();
    let encoding = Encoding::Normalized {
        mean: double(&mean),
        std: double(&std),
    };
    let reference = plain(1.0);
    let taken = samples().draw(&reference, &encoding).unwrap();
    let wide = Samples {
        shapes: [("x".to_owned(), vec![1, 6, 20, 24])].into(),
        ..samples()
    };
    let doubled = wide.draw(&candidate, &Encoding::WithInverse).unwrap();
    let figures = prove(&reference, &candidate, &taken, &doubled, 1e-5).unwrap();
    assert!(figures.overall.elements > 0);
    let wrong = wide.draw(&candidate, &Encoding::Raw).unwrap();
    assert!(prove(&reference, &candidate, &taken, &wrong, RTOL).is_err());
}

#[test]
fn an_output_of_another_shape_is_named() {
    let reference = input(13, "N,4")
        .op("Relu", &["x"], "y", [])
        .output("y")
        .finish()
        .unwrap();
    let candidate = input(13, "N,4")
        .op(
            "Transpose",
            &["x"],
            "other",
            [Attribute::ints("perm", &[1, 0])],
        )
        .output("other")
        .finish()
        .unwrap();
    let inputs = Samples::default().draw(&reference, &Encoding::Raw).unwrap();
    let error = prove(&reference, &candidate, &inputs, &inputs, RTOL).unwrap_err();
    assert_eq!(
        error.to_string(),
        "output `y`: the reference is float[1,4], the candidate float[4,1]"
    );
}

#[test]
fn outputs_depend_on_the_input_or_do_not() {
    let sensitivity = |model: &Model| {
        let drawn = samples().draw(model, &Encoding::Raw).unwrap();
        let outputs = run_all(default_engine(), model, &drawn).unwrap();
        Sensitivity::of(&outputs).unwrap()
    };
    let found = sensitivity(&plain(1.0));
    assert!(found.depends_on_input(), "{found:?}");
    assert_eq!(found.images, 4);
    for gain in [0.0, f32::NAN] {
        let found = sensitivity(&plain(gain));
        assert!(!found.depends_on_input(), "gain {gain}");
    }
}

#[test]
fn samples_are_seeded_distinct_and_alike_in_kind() {
    let model = plain(1.0);
    let draw = |seed: u64| {
        Samples { seed, ..samples() }
            .draw(&model, &Encoding::Raw)
            .unwrap()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    let images: Vec<Vec<f32>> = draw(1)
        .iter()
        .flat_map(|sample| {
            let pixels = sample["x"].to_f32s().unwrap();
            pixels
                .chunks(3 * 20 * 24)
                .map(<[f32]>::to_vec)
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(images.len(), 4);
    for (i, image) in images.iter().enumerate() {
        assert!(image.iter().all(|x| (0.0..=1.0).contains(x)));
        let mean = image.iter().sum::<f32>() / image.len() as f32;
        let variance = image.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / image.len() as f32;
        assert!((0.01..0.2).contains(&variance), "{variance}");
        for other in &images[..i] {
            let apart = image
                .iter()
                .zip(other)
                .map(|(a, b)| (a - b).abs())
                .sum::<f32>();
            assert!(apart / image.len() as f32 > 0.02);
        }
    }
}

#[test]
fn inputs_of_all_kinds_are_drawn() {
    let model = ModelBuilder::new(13)
        .input("tokens_mask", DataType::Float, "N,L")
        .input("tokens", DataType::Int64, "N,L")
        .input("flag", DataType::Bool, "2")
        .input("image", DataType::Float, "?,3,8,?")
        .op("Identity", &["image"], "y", [])
        .output("y")
        .finish()
        .unwrap();
    let shapes = [("tokens".to_owned(), vec![1, 5])].into();
    let drawn = Samples {
        shapes,
        ..Samples::default()
    }
    .draw(&model, &Encoding::Raw)
    .unwrap();
    let dims = |sample: &Tensors, name: &str| sample[name].dims();
    // `tokens_mask` comes first and names L.
    assert_eq!(dims(&drawn[0], "tokens_mask"), [1, 16]);
    assert_eq!(dims(&drawn[1], "tokens"), [2, 16]);
    assert_eq!(dims(&drawn[1], "image"), [2, 3, 8, 224]);
    assert!(
        drawn[0]["tokens"]
            .to_i64s()
            .unwrap()
            .iter()
            .all(|t| (0..10).contains(t))
    );
    let normal = drawn[1]["tokens_mask"].to_f32s().unwrap();
    assert!(normal.iter().any(|x| *x < 0.0) && normal.iter().any(|x| *x > 0.0));
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let model = plain(1.0);
    let draw = |dims: &[u64], encoding: &Encoding| {
        let shapes = [("x".to_owned(), dims.to_vec())].into();
        Samples {
            shapes,
            ..Samples::default()
        }
        .draw(&model, encoding)
        .map(|_| ())
        .map_err(|e| e.to_string())
    };
    let raw = Encoding::Raw;
    assert_eq!(
        draw(&[1, 3, 8], &raw).unwrap_err(),
        "input `x`: it is float[N,3,H,W], not [1, 3, 8]"
    );
    assert_eq!(
        draw(&[1, 4, 8, 8], &raw).unwrap_err(),
        "input `x`: dimension 1 is 3, not 4"
    );
    assert!(
        draw(&[1, 3, 1 << 40, 8], &raw)
            .unwrap_err()
            .contains("too large")
    );
    assert!(
        draw(&[1, 3, 8, 8], &Encoding::WithInverse)
            .unwrap_err()
            .contains("even number")
    );
    let two = Encoding::Normalized {
        mean: vec![0.5; 2],
        std: vec![1.0],
    };
    assert!(
        draw(&[1, 3, 8, 8], &two)
            .unwrap_err()
            .contains("3 channels")
    );
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let model = plain(1.0);
    let inputs = samples().draw(&model, &Encoding::Raw).unwrap();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let figures = prove(&model, &plain(1.00001), &inputs, &inputs, RTOL).unwrap();
            (figures, run_all(default_engine(), &model, &inputs).unwrap())
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn integer_outputs_are_compared_too() {
    let argmax = |axis: i64| {
        let attributes = vec![Attribute::int("axis", axis), Attribute::int("keepdims", 0)];
        input(13, "5,5")
            .op("ArgMax", &["x"], "y", attributes)
            .output("y")
            .finish()
            .unwrap()
    };
    let inputs = Samples::default().draw(&argmax(0), &Encoding::Raw).unwrap();
    assert!(prove(&argmax(0), &argmax(0), &inputs, &inputs, RTOL).is_ok());
    assert!(prove(&argmax(0), &argmax(1), &inputs, &inputs, RTOL).is_err());
}

#[test]
fn labels_of_zero_agree_and_scores_of_zero_show_nothing() {
    let label = || {
        let attributes = vec![Attribute::int("axis", 1), Attribute::int("keepdims", 0)];
        input(13, "N,1")
            .op("ArgMax", &["x"], "label", attributes)
            .output("label")
            .finish()
            .unwrap()
    };
    let inputs = Samples::default().draw(&label(), &Encoding::Raw).unwrap();
    assert!(prove(&label(), &label(), &inputs, &inputs, RTOL).is_ok());
    let model = plain(0.0);
    let inputs = samples().draw(&model, &Encoding::Raw).unwrap();
    let error = prove(&model, &model, &inputs, &inputs, RTOL).unwrap_err();
    assert_eq!(error.to_string(), "output `y` is all zeros in both models");
    let error = prove(&model, &plain(1.0), &inputs, &inputs, RTOL).unwrap_err();
    assert!(error.to_string().contains("relative inf"), "{error}");
}

#[test]
fn bytes_are_pictures_in_either_layout() {
    let draw = |dims: &str| {
        let model = ModelBuilder::new(17)
            .input("x", DataType::Uint8, dims)
            .op("Identity", &["x"], "y", [])
            .output("y")
            .finish()
            .unwrap();
        let samples = Samples::default().draw(&model, &Encoding::Raw).unwrap();
        let pixels = &samples[0]["x"];
        (pixels.dims(), pixels.bytes().unwrap().to_vec())
    };
    let (first_dims, first) = draw("N,3,8,6");
    let (last_dims, last) = draw("N,8,6,3");
    assert_eq!(
        (first_dims, last_dims),
        (vec![1, 3, 8, 6], vec![1, 8, 6, 3])
    );
    let (low, high) = (first.iter().min().unwrap(), first.iter().max().unwrap());
    assert!(high - low > 100, "{low}..{high}");
    for (i, pixel) in last.iter().enumerate() {
        assert_eq!(*pixel, first[i % 3 * 48 + i / 3]);
    }
}

#[test]
fn nudged_inputs_are_a_rounding_away() {
    let sample = |x: Tensor| Tensors::from([("x".to_owned(), x)]);
    let whole = sample(Tensor::i64s(&[2], vec![1, 2]));
    let float = sample(Tensor::f32s(&[2], vec![1.0, -2.0]));
    let moved = nudged(&[whole.clone(), float]).unwrap();
    assert_eq!(moved[0]["x"].to_i64s().unwrap(), [1, 2]);
    let epsilon = f32::EPSILON;
    let expected = [1.0 + epsilon, -2.0 * (1.0 - epsilon)];
    assert_eq!(moved[1]["x"].to_f32s().unwrap(), expected);
}
