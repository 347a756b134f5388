mod activations;
mod attention;
mod grid_sample;
mod indexing;
mod layers;
mod padding;
mod resize;
mod structural;
mod whole;

use bcosc_ir::{Attribute, Tensor};

use crate::testing::{Law, holds, holds_in_single};
use bcosc_passes::{PassError, Reason};
use bcosc_testing::{infer, input, model, weight};

fn ints(name: &str, values: &[i64]) -> Attribute {
    Attribute::ints(name, values)
}

fn list(values: &[i64]) -> Tensor {
    Tensor::i64_vec(values)
}

/// Why a case runs in single precision only.
const NOT_IN_DOUBLE: &str = "tract does not compute it in double precision";
const SCALED_IN_SINGLE: &str = "tract multiplies by alpha and beta in single precision";
const NORM_IN_SINGLE: &str = "tract computes this norm in single precision whatever its input";

const SIZED: &str = "batch,4,9,8";
const OPEN: &str = "batch,4,height,width";

#[test]
fn elements() {
    for op in ["Add", "Sub", "Mul", "Div"] {
        for dims in [&[1, 4, 1, 1][..], &[8], &[2, 1, 4, 9, 8]] {
            let builder = input(18, SIZED)
                .param("c", weight(0, dims))
                .op(op, &["x", "c"], "y", []);
            holds(op, Law::Affine, builder);
        }
    }
    let repeated = input(18, "batch,4,1,1").param("c", weight(0, &[1, 4, 3, 2]));
    holds(
        "repeated",
        Law::Affine,
        repeated.op("Mul", &["c", "x"], "y", []),
    );
    let twice = input(18, OPEN)
        .op("Neg", &["x"], "n", [])
        .param("three", Tensor::f32s(&[], vec![3.0]))
        .op("Mul", &["x", "three"], "m", [])
        .op("Sub", &["n", "m"], "d", [])
        .op("Sum", &["x", "d", "d"], "y", []);
    holds("twice", Law::Affine, twice);
    let scaled = input(18, OPEN)
        .op("Exp", &["x"], "g", [])
        .op("Mul", &["g", "x"], "m", [])
        .op("Abs", &["x"], "a", [])
        .op("Div", &["m", "a"], "y", []);
    holds("factors", Law::Dynamic, scaled);
    let chosen = input(18, OPEN)
        .param("zero", Tensor::f32s(&[], vec![0.0]))
        .op("Greater", &["x", "zero"], "c", [])
        .op("Neg", &["x"], "n", [])
        .op("Where", &["c", "x", "n"], "y", []);
    holds("Where", Law::Piecewise, chosen);
}

#[test]
fn norms() {
    let batch = input(18, SIZED)
        .param("scale", weight(0, &[4]))
        .param("bias", weight(1, &[4]))
        .param("mean", weight(2, &[4]))
        .param("var", Tensor::f32s(&[4], vec![0.5, 1.0, 2.0, 3.0]))
        .op(
            "BatchNormalization",
            &["x", "scale", "bias", "mean", "var"],
            "y",
            [],
        );
    holds("batch", Law::Affine, batch);
    let layer = input(18, "batch,5,8").param("scale", weight(0, &[8])).op(
        "LayerNormalization",
        &["x", "scale"],
        "y",
        [],
    );
    holds("layer", Law::Dynamic, layer);
    let instance = input(18, SIZED)
        .param("scale", weight(0, &[4]))
        .param("bias", Tensor::f32s(&[4], vec![0.0; 4]))
        .op("InstanceNormalization", &["x", "scale", "bias"], "y", []);
    holds("instance", Law::Dynamic, instance);
}

#[test]
fn pools() {
    let average = |pads: &[i64], count: i64, ceil: i64| {
        vec![
            ints("kernel_shape", &[3, 2]),
            ints("strides", &[2, 2]),
            ints("pads", pads),
            Attribute::int("count_include_pad", count),
            Attribute::int("ceil_mode", ceil),
        ]
    };
    for (what, size, attributes) in [
        ("plain", OPEN, average(&[0; 4], 0, 0)),
        ("counted", OPEN, average(&[1, 1, 1, 1], 1, 0)),
        ("not counted", SIZED, average(&[1, 1, 1, 1], 0, 0)),
        ("not counted", OPEN, average(&[1, 1, 1, 1], 0, 0)),
        ("ceil", SIZED, average(&[1, 0, 1, 0], 0, 1)),
    ] {
        let builder = input(18, size).op("AveragePool", &["x"], "y", attributes);
        holds(&format!("{what} {size}"), Law::Affine, builder);
    }
    for size in [SIZED, OPEN] {
        for pads in [[0; 4], [1, 1, 0, 1]] {
            let attributes = vec![
                ints("kernel_shape", &[3, 3]),
                ints("strides", &[2, 1]),
                ints("pads", &pads),
            ];
            let builder = input(18, size).op("MaxPool", &["x"], "y", attributes);
            holds(&format!("max {size}"), Law::Piecewise, builder);
        }
        let global = input(18, size).op("GlobalAveragePool", &["x"], "y", []);
        holds("global average", Law::Affine, global);
        let axes = || input(18, size).param("axes", list(&[-1, 2]));
        let gone = vec![Attribute::int("keepdims", 0)];
        holds(
            "mean",
            Law::Affine,
            axes().op("ReduceMean", &["x", "axes"], "y", gone.clone()),
        );
        holds(
            "sum",
            Law::Affine,
            axes().op("ReduceSum", &["x", "axes"], "y", []),
        );
        holds(
            "largest",
            Law::Piecewise,
            axes().op("ReduceMax", &["x", "axes"], "y", gone),
        );
    }
    let most = input(18, OPEN)
        .op("Neg", &["x"], "n", [])
        .op("Max", &["x", "n"], "y", []);
    holds("Max", Law::Piecewise, most);
}

#[test]
fn an_operator_without_a_rule_is_named() {
    let builder = input(18, SIZED).op("OneHot", &["x", "axis"], "y", []);
    let mut found = model(
        builder
            .param("axis", Tensor::i64s(&[], vec![1]))
            .output("y"),
    );
    infer(&mut found);
    let (x, y) = (found.graph.inputs()[0], found.graph.outputs()[0].value);
    let error = crate::detached::cotangent(&mut found, y, y, x).err();
    let Some(PassError::Unsupported {
        node, op, reason, ..
    }) = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(
        (node.as_str(), op.as_str(), reason),
        ("y", "OneHot", Reason::NoBackwardRule)
    );
}

#[test]
fn what_few_networks_have() {
    let one: [(&str, &str, Law, Vec<Attribute>); 8] = [
        ("Mish", OPEN, Law::Dynamic, vec![]),
        (
            "Shrink",
            OPEN,
            Law::Dynamic,
            vec![Attribute::float("lambd", 0.3)],
        ),
        (
            "LpNormalization",
            OPEN,
            Law::Dynamic,
            vec![Attribute::int("axis", 1)],
        ),
        ("LRN", OPEN, Law::Dynamic, vec![Attribute::int("size", 3)]),
        ("GlobalMaxPool", OPEN, Law::Piecewise, vec![]),
        (
            "DepthToSpace",
            SIZED,
            Law::Affine,
            vec![Attribute::int("blocksize", 2)],
        ),
        (
            "DepthToSpace",
            "batch,8,3,5",
            Law::Affine,
            vec![
                Attribute::int("blocksize", 2),
                Attribute::string("mode", "CRD"),
            ],
        ),
        (
            "SpaceToDepth",
            "batch,3,4,6",
            Law::Affine,
            vec![Attribute::int("blocksize", 2)],
        ),
    ];
    for (op, size, law, attributes) in one {
        holds(op, law, input(18, size).op(op, &["x"], "y", attributes));
    }
    for (op, law) in [("Min", Law::Piecewise), ("Mean", Law::Affine)] {
        let builder = input(18, OPEN)
            .param("c", Tensor::f32s(&[], vec![-3.0]))
            .op("Mul", &["x", "c"], "m", [])
            .op(op, &["x", "m"], "y", []);
        holds(op, law, builder);
    }
    let least = input(18, OPEN).param("axes", list(&[1]));
    let least = least.op("ReduceMin", &["x", "axes"], "y", []);
    holds("ReduceMin", Law::Piecewise, least);
    let newer = |opset| input(opset, SIZED);
    let swish = newer(24).op("Swish", &["x"], "y", []);
    holds_in_single("Swish", Law::Dynamic, swish, NOT_IN_DOUBLE);
    let rms = newer(23).param("scale", weight(0, &[8]));
    let rms = rms.op("RMSNormalization", &["x", "scale"], "y", []);
    holds_in_single("RMSNormalization", Law::Dynamic, rms, NORM_IN_SINGLE);
    // One scale per group, and later one per channel.
    for (opset, scales) in [(18, 2), (21, 4)] {
        let groups = [Attribute::int("num_groups", 2)];
        let builder = newer(opset)
            .param("scale", weight(0, &[scales]))
            .param("bias", Tensor::f32s(&[scales], vec![0.0; scales as usize]))
            .op("GroupNormalization", &["x", "scale", "bias"], "y", groups);
        holds_in_single("GroupNormalization", Law::Dynamic, builder, NORM_IN_SINGLE);
    }
}
