//! Messages of failed proofs.

use bcosc::{Error, Options, convert};
use bcosc_ir::{DataType, ModelBuilder, Tensor};
use bcosc_testing::{Layers, noise};

/// A network whose layer feeds a sine: about one turn of it at B = 1, and `scale` turns at B = 2.
fn winding(scale: f32) -> Vec<u8> {
    let steep = noise(1, 16 * 27).into_iter().map(|w| w as f32 * scale);
    let model = ModelBuilder::new(17)
        .input("image", DataType::Float, "batch,3,8,8")
        .param("w", Tensor::f32s(&[16, 3, 3, 3], steep.collect()))
        .op("Conv", &["image", "w"], "features", [])
        .param("slow", Tensor::f32s(&[], vec![1.0 / scale]))
        .op("Mul", &["features", "slow"], "angle", [])
        .op("Sin", &["angle"], "gate", [])
        .op("Mul", &["features", "gate"], "gated", [])
        .op("GlobalAveragePool", &["gated"], "pooled", [])
        .op("Flatten", &["pooled"], "flat", [])
        .matmul("flat", "logits", &[16, 4])
        .output_as("logits", DataType::Float, "batch,4")
        .finish()
        .unwrap();
    bcosc_ir::onnx::encode(&model.to_proto()).unwrap().to_vec()
}

#[test]
fn a_network_that_amplifies_rounding_is_told_from_a_wrong_deploy_form() {
    let mut options = Options::default();
    options.settings.deploy = true;
    let steady = convert(winding(1.0), &options).unwrap();
    assert!(steady.report.proof.unwrap().deployed.is_some());
    let error = convert(winding(1e5), &options).err().unwrap();
    assert!(matches!(error, Error::Proof(_)), "{error}");
    let said = error.to_string();
    assert!(said.contains("the deploy form"), "{said}");
    assert!(said.contains("numerically unstable"), "{said}");
}
