use bcosc_ir::Attribute;

use super::{OPEN, SCALED_IN_SINGLE, SIZED, ints};
use crate::testing::{Law, holds, holds_in_single, refusal};
use bcosc_passes::Reason;
use bcosc_testing::{input, weight};

#[test]
fn convolutions() {
    let cases: Vec<(&str, [u64; 4], Vec<Attribute>)> = vec![
        ("plain", [6, 4, 3, 3], vec![]),
        ("padded", [6, 4, 3, 3], vec![ints("pads", &[1, 1, 1, 1])]),
        ("uneven", [6, 4, 3, 2], vec![ints("pads", &[2, 0, 1, 1])]),
        ("strides", [6, 4, 3, 3], vec![ints("strides", &[2, 3])]),
        (
            "strides and padding",
            [6, 4, 3, 3],
            vec![ints("strides", &[2, 2]), ints("pads", &[1, 1, 1, 1])],
        ),
        ("single cell", [6, 4, 1, 1], vec![ints("strides", &[2, 2])]),
        (
            "groups",
            [6, 2, 3, 3],
            vec![Attribute::int("group", 2), ints("strides", &[2, 2])],
        ),
        ("depthwise", [4, 1, 3, 3], vec![Attribute::int("group", 4)]),
        (
            "dilations",
            [6, 4, 2, 2],
            vec![ints("dilations", &[3, 2]), ints("strides", &[2, 1])],
        ),
    ];
    for (what, dims, attributes) in cases {
        for size in [SIZED, OPEN] {
            let builder = input(18, size)
                .param("w", weight(0, &dims))
                .param("b", weight(1, &dims[..1]))
                .op("Conv", &["x", "w", "b"], "y", attributes.clone());
            holds(&format!("{what} on {size}"), Law::Affine, builder);
        }
    }
    for (auto, stride, size) in [
        ("SAME_UPPER", 2, SIZED),
        ("SAME_LOWER", 2, SIZED),
        ("SAME_UPPER", 1, OPEN),
        ("SAME_UPPER", 2, OPEN),
        ("SAME_LOWER", 3, OPEN),
    ] {
        let attributes = vec![
            Attribute::string("auto_pad", auto),
            ints("strides", &[stride, stride]),
        ];
        let builder = input(18, size).param("w", weight(0, &[6, 4, 4, 2])).op(
            "Conv",
            &["x", "w"],
            "y",
            attributes,
        );
        holds(auto, Law::Affine, builder);
    }
}

#[test]
fn convolutions_of_other_ranks() {
    let line = input(18, "batch,4,11").param("w", weight(0, &[6, 4, 3]));
    let strided = vec![ints("strides", &[2])];
    holds(
        "line",
        Law::Affine,
        line.op("Conv", &["x", "w"], "y", strided),
    );
    let space = input(18, "batch,2,5,6,7").param("w", weight(0, &[3, 2, 2, 3, 2]));
    let strided = vec![ints("strides", &[2, 1, 3])];
    holds(
        "space",
        Law::Affine,
        space.op("Conv", &["x", "w"], "y", strided),
    );
}

#[test]
fn transposed_convolutions() {
    for (group, dims) in [(1, [4, 3, 3, 3]), (2, [4, 2, 3, 3])] {
        let attributes = vec![
            ints("strides", &[2, 2]),
            ints("pads", &[1, 1, 1, 1]),
            ints("output_padding", &[1, 1]),
            Attribute::int("group", group),
        ];
        let builder = input(18, SIZED).param("w", weight(0, &dims)).op(
            "ConvTranspose",
            &["x", "w"],
            "y",
            attributes,
        );
        holds("ConvTranspose", Law::Affine, builder);
    }
}

#[test]
fn borders_of_transposed_convolutions() {
    let auto_pad = |how: &str| Attribute::string("auto_pad", how);
    for how in ["SAME_UPPER", "SAME_LOWER"] {
        for (size, w, strides) in [
            (SIZED, &[4, 3, 4, 3][..], &[2, 2][..]),
            (OPEN, &[4, 3, 4, 3], &[2, 1]),
            ("batch,4,length", &[4, 3, 3], &[2]),
            ("batch,4,2,3,4", &[4, 3, 2, 3, 4], &[1, 2, 3]),
        ] {
            let builder = input(18, size).param("w", weight(0, w));
            let attributes = [auto_pad(how), ints("strides", strides)];
            let builder = builder.op("ConvTranspose", &["x", "w"], "y", attributes);
            holds(&format!("{how} {size}"), Law::Affine, builder);
        }
    }
    for (size, w, strides, shape) in [
        (SIZED, &[4, 3, 4, 3][..], &[2, 2][..], &[17, 15][..]),
        (SIZED, &[4, 3, 4, 3], &[2, 1], &[20, 7]),
        ("batch,4,7", &[4, 3, 3], &[2], &[14]),
        ("batch,4,2,3,4", &[4, 3, 2, 3, 4], &[1, 2, 3], &[2, 6, 10]),
    ] {
        for how in ["NOTSET", "SAME_UPPER"] {
            let builder = input(18, size).param("w", weight(0, w));
            let attributes = [
                auto_pad(how),
                ints("strides", strides),
                ints("output_shape", shape),
            ];
            let builder = builder.op("ConvTranspose", &["x", "w"], "y", attributes);
            holds(&format!("output_shape {how} {size}"), Law::Affine, builder);
        }
    }
    // More zeros at the end than the window steps.
    let attributes = [
        ints("strides", &[2, 2]),
        ints("dilations", &[3, 3]),
        ints("output_padding", &[2, 2]),
    ];
    let builder = input(18, SIZED).param("w", weight(0, &[4, 3, 2, 2]));
    let builder = builder.op("ConvTranspose", &["x", "w"], "y", attributes);
    holds("far", Law::Affine, builder);
    let gaps = input(18, SIZED).param("w", weight(0, &[4, 3, 1, 1]));
    let attributes = [auto_pad("SAME_UPPER"), ints("strides", &[2, 2])];
    let gaps = gaps.op("ConvTranspose", &["x", "w"], "y", attributes);
    let expected = Reason::NoBackwardRuleFor(
        "a ConvTranspose with auto_pad whose stride is larger than its window",
    );
    assert_eq!(refusal(gaps), expected);
}

#[test]
fn matrix_products() {
    let right = input(18, "batch,5,4").param("w", weight(0, &[4, 3]));
    holds(
        "right",
        Law::Affine,
        right.op("MatMul", &["x", "w"], "y", []),
    );
    let left = input(18, "batch,5,4").param("w", weight(0, &[3, 5]));
    holds("left", Law::Affine, left.op("MatMul", &["w", "x"], "y", []));
    let repeated = input(18, "batch,1,5,4").param("w", weight(0, &[2, 4, 3]));
    holds(
        "repeated",
        Law::Affine,
        repeated.op("MatMul", &["x", "w"], "y", []),
    );
    let einsum = input(18, "batch,5,4").param("w", weight(0, &[4, 3, 2]));
    let equation = vec![Attribute::string("equation", "nij,jkl->nkil")];
    holds(
        "einsum",
        Law::Affine,
        einsum.op("Einsum", &["x", "w"], "y", equation),
    );
    for (a, b, dims) in [
        (0, 0, [4, 3]),
        (0, 1, [3, 4]),
        (1, 0, [2, 3]),
        (1, 1, [3, 2]),
    ] {
        let shape = if a == 1 { "2,4" } else { "batch,4" };
        let gemm = |alpha: f32| {
            let attributes = [
                Attribute::int("transA", a),
                Attribute::int("transB", b),
                Attribute::float("alpha", alpha),
            ];
            let builder = input(18, shape).param("w", weight(0, &dims));
            let builder = builder.param("c", weight(1, &[3]));
            let operands = ["x", "w", "c"];
            // Without an addend there is nothing that is scaled in single precision.
            let count = if alpha == 1.0 { 2 } else { 3 };
            builder.op("Gemm", &operands[..count], "y", attributes)
        };
        let what = format!("Gemm {a} {b}");
        holds(&what, Law::Affine, gemm(1.0));
        holds_in_single(&what, Law::Affine, gemm(1.5), SCALED_IN_SINGLE);
    }
    let added = input(18, "1,4")
        .param("w", weight(0, &[4, 4]))
        .param("a", weight(1, &[1, 4]))
        .op("Add", &["x", "a"], "c", [])
        .param("left", weight(2, &[2, 4]));
    let beta = [Attribute::float("beta", 0.5)];
    let added = added.op("Gemm", &["left", "w", "c"], "y", beta);
    holds_in_single("Gemm addend", Law::Affine, added, SCALED_IN_SINGLE);
    // softmax(x x^T) x: the first factor is held fixed.
    let attention = input(18, "batch,5,4")
        .op("Transpose", &["x"], "t", [ints("perm", &[0, 2, 1])])
        .op("MatMul", &["x", "t"], "scores", [])
        .op("Softmax", &["scores"], "p", [Attribute::int("axis", -1)])
        .op("MatMul", &["p", "x"], "y", []);
    holds("attention", Law::Dynamic, attention);
}
