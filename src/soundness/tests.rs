use bcosc_ir::{Attribute, DataType, ModelBuilder};
use bcosc_testing::{image, model};

use super::*;

const FLOATS: [DataType; 4] = [
    DataType::Float,
    DataType::Double,
    DataType::Float16,
    DataType::Bfloat16,
];

fn refusal(builder: ModelBuilder) -> Option<String> {
    let model = model(builder);
    let found = check(&model, "net").and_then(|()| check_weights(&model, "net"));
    found.err().map(|e| e.to_string())
}

fn floats(dtype: DataType, numbers: &[f64]) -> Tensor {
    Tensor::floats(dtype, &[numbers.len() as u64], numbers).unwrap()
}

#[test]
fn every_precision_is_read() {
    for dtype in FLOATS {
        let found = |numbers: &[f64]| worst(&floats(dtype, numbers));
        assert_eq!(found(&[1.0, -3.0, 0.0, -0.0, 6e4]), None, "{dtype}");
        assert_eq!(found(&[1.0, f64::NEG_INFINITY]), Some(Broken::Infinite));
        assert_eq!(found(&[f64::INFINITY, f64::NAN]), Some(Broken::NotANumber));
    }
    let ids = Tensor::i64s(&[2], vec![-1, i64::MAX]);
    assert_eq!(worst(&ids), None);
}

#[test]
fn large_weights_are_read_to_the_end() {
    let mut numbers = vec![0.5f32; CHUNK];
    numbers[CHUNK - 1] = f32::NAN;
    let tensor = Tensor::f32s(&[CHUNK as u64], numbers);
    assert_eq!(worst(&tensor), Some(Broken::NotANumber));
}

fn with_bias(numbers: [f32; 2]) -> ModelBuilder {
    image("batch,3")
        .param("weight", bcosc_testing::weight(1, &[3, 2]))
        .param("bias", Tensor::f32s(&[2], numbers.to_vec()))
        .op("Gemm", &["x", "weight", "bias"], "y", [])
        .output("y")
}

#[test]
fn a_weight_that_is_no_number_is_named() {
    assert_eq!(refusal(with_bias([0.0, 1.0])), None);
    let nan = refusal(with_bias([0.0, f32::NAN])).unwrap();
    assert!(nan.contains("\"bias\" has NaN elements"), "{nan}");
    let infinite = refusal(with_bias([f32::INFINITY, 0.0])).unwrap();
    assert!(
        infinite.contains("\"bias\" has infinite elements"),
        "{infinite}"
    );
}

#[test]
fn infinities_may_mask_and_bound() {
    let bounded = image("batch,3")
        .param("low", Tensor::f32s(&[], vec![f32::NEG_INFINITY]))
        .op("Clip", &["x", "low"], "a", [])
        .param(
            "mask",
            Tensor::f32s(&[3], vec![0.0, f32::NEG_INFINITY, 0.0]),
        )
        .op("Add", &["a", "mask"], "y", [])
        .output("y");
    assert_eq!(refusal(bounded), None);
    let through_views = image("batch,3")
        .param("w", Tensor::f32s(&[1, 3], vec![1.0, f32::INFINITY, 0.0]))
        .op("Transpose", &["w"], "t", [])
        .op("MatMul", &["x", "t"], "y", [])
        .output("y");
    assert!(refusal(through_views).unwrap().contains("\"w\""));
}

fn norm(variance: f32, attributes: Vec<Attribute>, outputs: &str) -> ModelBuilder {
    let mut builder = image("batch,1,4,4");
    for name in ["scale", "shift", "mean"] {
        builder = builder.param(name, Tensor::f32s(&[1], vec![1.0]));
    }
    builder
        .param("variance", Tensor::f32s(&[1], vec![variance]))
        .op(
            "BatchNormalization",
            &["x", "scale", "shift", "mean", "variance"],
            outputs,
            attributes,
        )
        .output("y")
}

#[test]
fn negative_variances_are_refused() {
    assert_eq!(refusal(norm(0.0, vec![], "y")), None);
    // Rounding of a variance of zero, which epsilon makes good.
    assert_eq!(refusal(norm(-1e-9, vec![], "y")), None);
    let negative = refusal(norm(-0.5, vec![], "y")).unwrap();
    assert!(
        negative.contains("\"variance\" has negative elements"),
        "{negative}"
    );
}

#[test]
fn training_mode_is_refused() {
    let training = || vec![Attribute::int("training_mode", 1)];
    let found = refusal(norm(1.0, training(), "y,m,v")).unwrap();
    assert_eq!(
        found,
        "net: BatchNormalization node \"y\" was exported in training mode; export the model after .eval()"
    );
    assert_eq!(refusal(norm(1.0, vec![], "y,m,v")), None);
    let used = norm(1.0, vec![], "y,m,v").output("m");
    assert!(refusal(used).is_some());
    let dropout = |mode: u8, ratio: f32| {
        let mode = Tensor::from_bytes(DataType::Bool, &[], vec![mode].into());
        image("batch,3")
            .param("ratio", Tensor::f32s(&[], vec![ratio]))
            .param("mode", mode)
            .op("Dropout", &["x", "ratio", "mode"], "y", [])
            .output("y")
    };
    assert!(refusal(dropout(1, 0.5)).unwrap().contains("Dropout node"));
    assert_eq!(refusal(dropout(0, 0.5)), None);
    assert_eq!(refusal(dropout(1, 0.0)), None);
}

/// Standardised weights are written as norms in training mode.
#[test]
fn norms_of_weights_are_constants() {
    let builder = norm(1.0, vec![], "z")
        .param("w", bcosc_testing::weight(1, &[1, 1, 4, 4]))
        .op(
            "BatchNormalization",
            &["w", "scale", "shift", "mean", "variance"],
            "y,m,v",
            [Attribute::int("training_mode", 1)],
        );
    assert_eq!(refusal(builder), None);
}

#[test]
fn a_size_of_zero_names_the_remedy() {
    let found = refusal(image("0,3,h").op("Relu", &["x"], "y", []).output("y")).unwrap();
    assert!(found.contains("--input-shapes x:N,3,h"), "{found}");
}
