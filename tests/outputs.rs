//! Models with several outputs.

use bcosc::{Error, Options, convert};
use bcosc_ir::{Attribute, DataType, ModelBuilder};
use bcosc_testing::Layers;

/// Logits of four classes, and an auxiliary head that is not a floating-point classifier.
fn two_heads() -> Vec<u8> {
    let model = ModelBuilder::new(17)
        .input("image", DataType::Float, "batch,3,8,8")
        .conv("image", "features", &[6, 3, 3, 3], [])
        .op("Relu", &["features"], "hidden", [])
        .op("GlobalAveragePool", &["hidden"], "pooled", [])
        .op("Flatten", &["pooled"], "flat", [])
        .matmul("flat", "logits", &[6, 4])
        .op("ArgMax", &["logits"], "class", [Attribute::int("axis", 1)])
        .output_as("logits", DataType::Float, "batch,4")
        .output_as("class", DataType::Int64, "batch,1")
        .output_as("hidden", DataType::Float, "batch,6,6,6")
        .finish()
        .unwrap();
    bcosc_ir::onnx::encode(&model.to_proto()).unwrap().to_vec()
}

fn names(options: &Options) -> Result<Vec<String>, Error> {
    let converted = convert(two_heads(), options)?;
    let outputs = converted.model.graph.outputs().iter();
    Ok(outputs
        .filter_map(|output| output.info.name.clone())
        .collect())
}

#[test]
fn all_outputs_stay_unless_some_are_chosen() {
    assert_eq!(
        names(&Options::default()).unwrap(),
        ["logits", "class", "hidden"]
    );
    let chosen = |outputs: &[&str]| Options {
        outputs: outputs.iter().map(|name| (*name).to_owned()).collect(),
        ..Options::default()
    };
    assert_eq!(names(&chosen(&["logits"])).unwrap(), ["logits"]);
    assert_eq!(
        names(&chosen(&["hidden", "logits", "hidden"])).unwrap(),
        ["hidden", "logits"]
    );
    let error = names(&chosen(&["boxes"])).unwrap_err().to_string();
    assert_eq!(
        error,
        "model in memory: there is no output `boxes`; the outputs are `logits`, `class`, `hidden`"
    );
}

#[test]
fn verdicts_name_what_is_no_number_to_explain() {
    let converted = convert(two_heads(), &Options::default()).unwrap();
    let verdicts = &converted.report.linearity;
    let linear: Vec<bool> = verdicts.iter().map(|v| v.dynamic_linear).collect();
    assert_eq!(linear, [true, false, true]);
    assert_eq!(verdicts[1].broken_by.len(), 1);
}
