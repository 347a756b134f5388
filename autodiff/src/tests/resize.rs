use bcosc_ir::onnx::proto::{AttributeProto, NodeProto};
use bcosc_ir::{Attribute, DataType, ModelBuilder, Tensor};

use super::{OPEN, SIZED, list};
use crate::testing::{Law, holds, holds_in_single, refusal};
use bcosc_passes::Reason;
use bcosc_testing::input;

/// Why cases run in single precision only.
const IN_SINGLE: &str = "tract resizes in single precision whatever its input";

fn mode(mode: &str, coordinates: &str) -> Vec<Attribute> {
    vec![
        Attribute::string("mode", mode),
        Attribute::string("coordinate_transformation_mode", coordinates),
    ]
}

const COORDINATES: [&str; 4] = [
    "half_pixel",
    "pytorch_half_pixel",
    "asymmetric",
    "align_corners",
];

#[test]
fn every_mode_by_scales() {
    for by in ["nearest", "linear", "cubic"] {
        for coordinates in COORDINATES {
            for size in [SIZED, OPEN] {
                let scales = Tensor::f32s(&[4], vec![1.0, 1.0, 2.0, 0.7]);
                let builder = input(18, size).param("scales", scales).op(
                    "Resize",
                    &["x", "", "scales"],
                    "y",
                    mode(by, coordinates),
                );
                // tract leaves open what comes of a fraction of a dynamic size.
                let builder = builder.value("y", DataType::Float, "batch,4,?,?");
                holds_in_single(
                    &format!("{by} {coordinates} {size}"),
                    Law::Affine,
                    builder,
                    IN_SINGLE,
                );
            }
        }
    }
}

#[test]
fn every_mode_by_sizes() {
    for by in ["nearest", "linear", "cubic"] {
        for coordinates in COORDINATES {
            let builder = input(18, "2,3,9,8")
                .param("sizes", list(&[2, 3, 6, 13]))
                .op(
                    "Resize",
                    &["x", "", "", "sizes"],
                    "y",
                    mode(by, coordinates),
                );
            holds_in_single(
                &format!("{by} {coordinates}"),
                Law::Affine,
                builder,
                IN_SINGLE,
            );
        }
    }
}

#[test]
fn sizes_of_some_axes() {
    let some = [Attribute::ints("axes", &[2, 3])];
    let builder = input(18, OPEN).param("sizes", list(&[5, 11])).op(
        "Resize",
        &["x", "", "", "sizes"],
        "y",
        mode("linear", "half_pixel").into_iter().chain(some),
    );
    holds_in_single("some axes", Law::Affine, builder, IN_SINGLE);
}

#[test]
fn a_filter_against_aliasing() {
    let filtered = [Attribute::int("antialias", 1)];
    let builder = input(18, SIZED).param("scales", Tensor::f32s(&[4], vec![1.0, 1.0, 0.5, 0.4]));
    let attributes = mode("linear", "half_pixel").into_iter().chain(filtered);
    let builder = builder.op("Resize", &["x", "", "scales"], "y", attributes);
    holds_in_single("antialias", Law::Affine, builder, IN_SINGLE);
}

#[test]
fn other_ranks() {
    for (size, scales) in [
        ("batch,3,5", vec![1.0, 1.0, 1.5]),
        ("batch,2,3,4,5", vec![1.0, 1.0, 2.0, 0.5, 1.5]),
    ] {
        let scales = Tensor::f32s(&[scales.len() as u64], scales);
        let builder = input(18, size).param("scales", scales).op(
            "Resize",
            &["x", "", "scales"],
            "y",
            mode("linear", "half_pixel"),
        );
        holds_in_single(size, Law::Affine, builder, IN_SINGLE);
    }
}

#[test]
fn blocks_of_open_sizes() {
    let builder = input(18, OPEN).param("scales", Tensor::f32s(&[4], vec![1.0, 1.0, 2.0, 3.0]));
    let rounding = [Attribute::string("nearest_mode", "floor")];
    let attributes = mode("nearest", "asymmetric").into_iter().chain(rounding);
    let builder = builder.op("Resize", &["x", "", "scales"], "y", attributes);
    holds("blocks", Law::Affine, builder);
}

#[test]
fn a_number_of_images_has_to_be_known_to_stay() {
    let builder = input(18, OPEN).param("sizes", list(&[2, 4, 5, 5])).op(
        "Resize",
        &["x", "", "", "sizes"],
        "y",
        mode("linear", "half_pixel"),
    );
    assert_eq!(refusal(builder), Reason::OpenSize("y".to_owned()));
}

/// An Upsample whose factors are an attribute.
fn upsampled(mode: &str) -> ModelBuilder {
    let scales = AttributeProto {
        name: Some("scales".to_owned()),
        floats: vec![1.0, 1.0, 2.0, 3.0],
        r#type: Some(6),
        ..AttributeProto::default()
    };
    let node = NodeProto {
        op_type: Some("Upsample".to_owned()),
        input: vec!["x".to_owned()],
        output: vec!["y".to_owned()],
        attribute: vec![Attribute::string("mode", mode).proto().clone(), scales],
        ..NodeProto::default()
    };
    let builder = input(8, OPEN);
    builder.node(node)
}

#[test]
fn factors_that_are_an_attribute() {
    holds_in_single("repeated", Law::Affine, upsampled("nearest"), IN_SINGLE);
    let reason = Reason::NeedsOpset {
        opset: 9,
        what: "the backward rule of an interpolating Upsample",
    };
    assert_eq!(refusal(upsampled("linear")), reason);
}

#[test]
fn a_crop_has_no_rule() {
    let builder = input(18, SIZED)
        .param(
            "roi",
            Tensor::f32s(&[8], vec![0.0, 0.0, 0.1, 0.1, 1.0, 1.0, 0.9, 0.9]),
        )
        .param("sizes", list(&[2, 4, 5, 5]))
        .op(
            "Resize",
            &["x", "roi", "", "sizes"],
            "y",
            mode("linear", "tf_crop_and_resize"),
        )
        .value("y", DataType::Float, "2,4,5,5");
    assert_eq!(refusal(builder), Reason::NoBackwardRule);
}
