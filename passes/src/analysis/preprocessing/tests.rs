use bcosc_ir::{Attribute, ModelBuilder, Tensor, Tensors};

use super::*;
use crate::testing::{Array, Layers, inferred, outputs};

fn numbers(dims: &[u64], x: &[f32]) -> Tensor {
    Tensor::f32s(dims, x.to_vec())
}

/// Bytes [N, H, W, C] through a cast, a transposition and a normalisation, into a convolution.
fn bytes() -> ModelBuilder {
    ModelBuilder::new(17)
        .input("pixels", DataType::Uint8, "batch,4,4,3")
        .op("Cast", &["pixels"], "f", [Attribute::int("to", 1)])
        .op(
            "Transpose",
            &["f"],
            "t",
            [Attribute::ints("perm", &[0, 3, 1, 2])],
        )
        .param("white", numbers(&[], &[255.0]))
        .op("Div", &["t", "white"], "d", [])
        .param("mean", numbers(&[1, 3, 1, 1], &[0.5, 0.25, 0.75]))
        .op("Sub", &["d", "mean"], "s", [])
        .param("std", numbers(&[3, 1, 1], &[0.25, 0.5, 0.2]))
        .op("Div", &["s", "std"], "x", [])
        .conv("x", "y", &[2, 3, 3, 3], vec![])
        .output("y")
}

fn found(builder: ModelBuilder) -> (Model, Option<Preprocessing>) {
    let model = inferred(builder);
    let image = model.graph.inputs()[0];
    let found = Preprocessing::of(&model.graph, image);
    (model, found)
}

fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    assert!(
        found
            .iter()
            .zip(expected)
            .all(|(a, b)| (a - b).abs() < 1e-6),
        "{found:?}"
    );
}

#[test]
fn bytes_with_channels_last() {
    let (before, preprocessing) = found(bytes());
    let Some(preprocessing) = preprocessing else {
        panic!("not recognised")
    };
    assert!(preprocessing.channels_last);
    assert_eq!(preprocessing.white, 255.0);
    assert_close(&preprocessing.normalization.mean, &[0.5, 0.25, 0.75]);
    assert_close(&preprocessing.normalization.std, &[0.25, 0.5, 0.2]);
    let mut peeled = before.clone();
    assert!(preprocessing.remove(&mut peeled).is_ok());
    assert_eq!(peeled.graph.op_count(), 1);
    let image = peeled.graph.inputs()[0];
    let declared = peeled.graph.value_type(image).map(|t| t.to_string());
    assert_eq!(declared.as_deref(), Some("float[batch,3,4,4]"));
    // The same image: bytes to the one, normalised channels to the other.
    let byte = |h: usize, w: usize, c: usize| (37 * h + 11 * w + 83 * c + 5) % 256;
    let raw: Vec<u8> = (0..48)
        .map(|i| byte(i / 12, i / 3 % 4, i % 3) as u8)
        .collect();
    let raw = Tensor::from_bytes(DataType::Uint8, &[1, 4, 4, 3], raw.into());
    let Normalization { mean, std } = &preprocessing.normalization;
    let normalised = Array::from_fn(&[1, 3, 4, 4], |at| {
        (byte(at[2], at[3], at[1]) as f64 / 255.0 - mean[at[1]]) / std[at[1]]
    });
    let given = |tensor: Tensor| Tensors::from([("pixels".to_owned(), tensor)]);
    let expected = outputs(&before, &given(raw)).remove(0);
    let peeled = outputs(&peeled, &given(normalised.tensor(DataType::Float)));
    peeled[0].assert_close(&expected, 1e-5);
}

#[test]
fn floats_in_the_unit_interval_scaled_and_shifted() {
    let builder = ModelBuilder::new(17)
        .input("x", DataType::Float, "batch,3,4,4")
        .param("scale", numbers(&[3, 1, 1], &[4.0, 2.0, 5.0]))
        .op("Mul", &["scale", "x"], "s", [])
        .param("shift", numbers(&[3, 1, 1], &[-2.0, -0.5, -3.75]))
        .op("Add", &["s", "shift"], "n", [])
        .conv("n", "y", &[2, 3, 1, 1], vec![])
        .output("y");
    let Some(preprocessing) = found(builder).1 else {
        panic!("not recognised")
    };
    assert_eq!(
        (preprocessing.white, preprocessing.channels_last),
        (1.0, false)
    );
    assert_close(&preprocessing.normalization.mean, &[0.5, 0.25, 0.75]);
    assert_close(&preprocessing.normalization.std, &[0.25, 0.5, 0.2]);
}

#[test]
fn bytes_that_are_only_cast_count_to_255() {
    let builder = ModelBuilder::new(17)
        .input("x", DataType::Uint8, "batch,3,4,4")
        .op("Cast", &["x"], "f", [Attribute::int("to", 1)])
        .conv("f", "y", &[2, 3, 1, 1], vec![])
        .output("y");
    let Some(preprocessing) = found(builder).1 else {
        panic!("not recognised")
    };
    assert_eq!(preprocessing.white, 255.0);
    assert_close(&preprocessing.normalization.std, &[1.0 / 255.0; 3]);
}

#[test]
fn a_large_mean_without_a_scale_counts_to_255() {
    let builder = ModelBuilder::new(17)
        .input("x", DataType::Float, "batch,3,4,4")
        .param("mean", numbers(&[3, 1, 1], &[103.9, 116.8, 123.7]))
        .op("Sub", &["x", "mean"], "n", [])
        .conv("n", "y", &[2, 3, 1, 1], vec![])
        .output("y");
    let Some(preprocessing) = found(builder).1 else {
        panic!("not recognised")
    };
    assert_eq!(preprocessing.white, 255.0);
    assert_close(
        &preprocessing.normalization.mean,
        &[103.9 / 255.0, 116.8 / 255.0, 123.7 / 255.0],
    );
}

#[test]
fn a_normalised_image_that_is_put_out_stays() {
    let builder = ModelBuilder::new(17)
        .input("x", DataType::Float, "batch,3,4,4")
        .param("s", numbers(&[], &[0.5]))
        .op("Mul", &["x", "s"], "n", [])
        .conv("n", "y", &[2, 3, 1, 1], vec![])
        .output("y");
    let read_on = builder.output("x");
    assert_eq!(found(read_on).1, None);
}

#[test]
fn what_cannot_be_undone_is_none() {
    let start = || ModelBuilder::new(17).input("x", DataType::Float, "batch,3,4,4");
    let end =
        |builder: ModelBuilder| found(builder.conv("n", "y", &[2, 3, 1, 1], vec![]).output("y")).1;
    assert_eq!(end(start().op("Relu", &["x"], "n", [])), None);
    let negative = start()
        .param("s", numbers(&[], &[-1.0]))
        .op("Mul", &["x", "s"], "n", []);
    assert_eq!(end(negative), None);
    let along_the_width =
        start()
            .param("s", numbers(&[4], &[0.5; 4]))
            .op("Mul", &["x", "s"], "n", []);
    assert_eq!(end(along_the_width), None);
    let reciprocal = start()
        .param("s", numbers(&[], &[1.0]))
        .op("Div", &["s", "x"], "n", []);
    assert_eq!(end(reciprocal), None);
}
