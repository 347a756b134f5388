mod attention;
mod places;
mod resize;
mod whole;

use bcosc_ir::{Attribute, DataType, ModelBuilder, Tensor};

use super::testing::{Law, backward, graph, holds, holds_in_single};
use crate::testing::{infer, model, weight};
use crate::{PassError, Reason};

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

/// Norms compute in single precision unless told otherwise.
fn in_double() -> Attribute {
    Attribute::int("stash_type", DataType::Double.to_i32().into())
}

const SIZED: &str = "batch,4,9,8";
const OPEN: &str = "batch,4,height,width";

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
            let builder = graph(size)
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
    ] {
        let attributes = vec![
            Attribute::string("auto_pad", auto),
            ints("strides", &[stride, stride]),
        ];
        let builder = graph(size).param("w", weight(0, &[6, 4, 4, 2])).op(
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
    let line = graph("batch,4,11").param("w", weight(0, &[6, 4, 3]));
    let strided = vec![ints("strides", &[2])];
    holds(
        "line",
        Law::Affine,
        line.op("Conv", &["x", "w"], "y", strided),
    );
    let space = graph("batch,2,5,6,7").param("w", weight(0, &[3, 2, 2, 3, 2]));
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
        let builder = graph(SIZED).param("w", weight(0, &dims)).op(
            "ConvTranspose",
            &["x", "w"],
            "y",
            attributes,
        );
        holds("ConvTranspose", Law::Affine, builder);
    }
}

#[test]
fn matrix_products() {
    let right = graph("batch,5,4").param("w", weight(0, &[4, 3]));
    holds(
        "right",
        Law::Affine,
        right.op("MatMul", &["x", "w"], "y", []),
    );
    let left = graph("batch,5,4").param("w", weight(0, &[3, 5]));
    holds("left", Law::Affine, left.op("MatMul", &["w", "x"], "y", []));
    let repeated = graph("batch,1,5,4").param("w", weight(0, &[2, 4, 3]));
    holds(
        "repeated",
        Law::Affine,
        repeated.op("MatMul", &["x", "w"], "y", []),
    );
    let einsum = graph("batch,5,4").param("w", weight(0, &[4, 3, 2]));
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
            let builder = graph(shape).param("w", weight(0, &dims));
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
    let added = graph("1,4")
        .param("w", weight(0, &[4, 4]))
        .param("a", weight(1, &[1, 4]))
        .op("Add", &["x", "a"], "c", [])
        .param("left", weight(2, &[2, 4]));
    let beta = [Attribute::float("beta", 0.5)];
    let added = added.op("Gemm", &["left", "w", "c"], "y", beta);
    holds_in_single("Gemm addend", Law::Affine, added, SCALED_IN_SINGLE);
    // softmax(x x^T) x: the first factor is held fixed.
    let attention = graph("batch,5,4")
        .op("Transpose", &["x"], "t", [ints("perm", &[0, 2, 1])])
        .op("MatMul", &["x", "t"], "scores", [])
        .op("Softmax", &["scores"], "p", [Attribute::int("axis", -1)])
        .op("MatMul", &["p", "x"], "y", []);
    holds("attention", Law::Dynamic, attention);
}

#[test]
fn elements() {
    for op in ["Add", "Sub", "Mul", "Div"] {
        for dims in [&[1, 4, 1, 1][..], &[8], &[2, 1, 4, 9, 8]] {
            let builder = graph(SIZED)
                .param("c", weight(0, dims))
                .op(op, &["x", "c"], "y", []);
            holds(op, Law::Affine, builder);
        }
    }
    let repeated = graph("batch,4,1,1").param("c", weight(0, &[1, 4, 3, 2]));
    holds(
        "repeated",
        Law::Affine,
        repeated.op("Mul", &["c", "x"], "y", []),
    );
    let twice = graph(OPEN)
        .op("Neg", &["x"], "n", [])
        .param("three", Tensor::f32s(&[], vec![3.0]))
        .op("Mul", &["x", "three"], "m", [])
        .op("Sub", &["n", "m"], "d", [])
        .op("Sum", &["x", "d", "d"], "y", []);
    holds("twice", Law::Affine, twice);
    let scaled = graph(OPEN)
        .op("Exp", &["x"], "g", [])
        .op("Mul", &["g", "x"], "m", [])
        .op("Abs", &["x"], "a", [])
        .op("Div", &["m", "a"], "y", []);
    holds("factors", Law::Dynamic, scaled);
    let chosen = graph(OPEN)
        .param("zero", Tensor::f32s(&[], vec![0.0]))
        .op("Greater", &["x", "zero"], "c", [])
        .op("Neg", &["x"], "n", [])
        .op("Where", &["c", "x", "n"], "y", []);
    holds("Where", Law::Piecewise, chosen);
}

#[test]
fn gates() {
    let plain = [
        ("Relu", Law::Piecewise),
        ("Elu", Law::Dynamic),
        ("Selu", Law::Dynamic),
        ("Celu", Law::Dynamic),
        ("Softsign", Law::Dynamic),
        ("Tanh", Law::Dynamic),
        ("ThresholdedRelu", Law::Dynamic),
    ];
    for (op, law) in plain {
        holds(op, law, graph(OPEN).op(op, &["x"], "y", []));
    }
    for op in ["HardSwish", "LeakyRelu"] {
        let builder = graph(OPEN).op(op, &["x"], "y", []);
        holds_in_single(op, Law::Dynamic, builder, NOT_IN_DOUBLE);
    }
    let slope = graph(SIZED).param("slope", weight(0, &[4, 1, 1]));
    holds(
        "PRelu",
        Law::Piecewise,
        slope.op("PRelu", &["x", "slope"], "y", []),
    );
    let clip = graph(OPEN)
        .param("low", Tensor::f32s(&[], vec![-0.5]))
        .param("high", Tensor::f32s(&[], vec![0.25]))
        .op("Clip", &["x", "low", "high"], "y", []);
    holds("Clip", Law::Dynamic, clip);
    let power = graph(OPEN).param("e", Tensor::f32s(&[], vec![3.0]));
    holds("Pow", Law::Dynamic, power.op("Pow", &["x", "e"], "y", []));
    for approximate in ["none", "tanh"] {
        let attribute = vec![Attribute::string("approximate", approximate)];
        let builder = ModelBuilder::new(20).input("x", DataType::Float, OPEN);
        let builder = builder.op("Gelu", &["x"], "y", attribute);
        holds_in_single(approximate, Law::Dynamic, builder, NOT_IN_DOUBLE);
    }
}

#[test]
fn a_gate_is_finite_at_zero() {
    for op in [
        "Relu",
        "Elu",
        "Selu",
        "Celu",
        "HardSwish",
        "Softsign",
        "Tanh",
    ] {
        let (_, both) = backward(op, model(graph("2").op(op, &["x"], "y", []).output("y")));
        let zeros = Tensor::f32s(&[2], vec![0.0; 2]);
        let ones = Tensor::f32s(&[2], vec![1.0; 2]);
        let inputs = [("x".to_owned(), zeros), ("s".to_owned(), ones)].into();
        let found = bcosc_ir::Interpreter::run(&bcosc_engine::Tract, &both, &inputs);
        let dx = found.ok().and_then(|mut o| o.remove("dx")?.to_f32s().ok());
        assert!(
            dx.is_some_and(|dx| dx.iter().all(|x| x.is_finite())),
            "{op}"
        );
    }
}

#[test]
fn norms() {
    let batch = graph(SIZED)
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
    let layer = graph("batch,5,8").param("scale", weight(0, &[8])).op(
        "LayerNormalization",
        &["x", "scale"],
        "y",
        [in_double()],
    );
    holds("layer", Law::Dynamic, layer);
    let instance = graph(SIZED)
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
        let builder = graph(size).op("AveragePool", &["x"], "y", attributes);
        holds(&format!("{what} {size}"), Law::Affine, builder);
    }
    for size in [SIZED, OPEN] {
        for pads in [[0; 4], [1, 1, 0, 1]] {
            let attributes = vec![
                ints("kernel_shape", &[3, 3]),
                ints("strides", &[2, 1]),
                ints("pads", &pads),
            ];
            let builder = graph(size).op("MaxPool", &["x"], "y", attributes);
            holds(&format!("max {size}"), Law::Piecewise, builder);
        }
        let global = graph(size).op("GlobalAveragePool", &["x"], "y", []);
        holds("global average", Law::Affine, global);
        let axes = || graph(size).param("axes", list(&[-1, 2]));
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
    let most = graph(OPEN)
        .op("Neg", &["x"], "n", [])
        .op("Max", &["x", "n"], "y", []);
    holds("Max", Law::Piecewise, most);
}

#[test]
fn moves() {
    let cases: Vec<(&str, &str, Vec<Tensor>, Vec<Attribute>)> = vec![
        ("Reshape", SIZED, vec![list(&[0, 2, -1])], vec![]),
        ("Reshape", OPEN, vec![list(&[0, 4, -1])], vec![]),
        ("Flatten", SIZED, vec![], vec![]),
        ("Transpose", OPEN, vec![], vec![ints("perm", &[0, 2, 3, 1])]),
        ("Unsqueeze", OPEN, vec![list(&[1])], vec![]),
        ("Expand", "batch,4,1", vec![list(&[1, 4, 3])], vec![]),
        ("Tile", SIZED, vec![list(&[1, 2, 1, 3])], vec![]),
        ("Pad", OPEN, vec![list(&[0, 1, 2, 0, 0, 0, 1, 3])], vec![]),
        (
            "Gather",
            SIZED,
            vec![list(&[2, 0])],
            vec![Attribute::int("axis", 1)],
        ),
        (
            "Gather",
            SIZED,
            vec![list(&[1, 1, 3])],
            vec![Attribute::int("axis", 1)],
        ),
        (
            "Gather",
            OPEN,
            vec![Tensor::i64s(&[], vec![0])],
            vec![Attribute::int("axis", 2)],
        ),
        (
            "Gather",
            OPEN,
            vec![Tensor::i64s(&[], vec![-1])],
            vec![Attribute::int("axis", 2)],
        ),
    ];
    for (op, size, operands, attributes) in cases {
        let mut builder = graph(size);
        let names = ["a", "b", "c", "d"];
        let mut inputs = vec!["x"];
        for (name, tensor) in names.iter().zip(operands) {
            builder = builder.param(name, tensor);
            inputs.push(name);
        }
        holds(op, Law::Affine, builder.op(op, &inputs, "y", attributes));
    }
    for (size, [starts, ends, axes, steps]) in [
        (SIZED, [[1, -5], [-2, 7], [2, 3], [1, 1]]),
        (SIZED, [[0, 1], [9, 8], [2, 3], [2, 3]]),
        (OPEN, [[1, -3], [4, 99], [2, 3], [1, 1]]),
    ] {
        let builder = graph(size)
            .param("starts", list(&starts))
            .param("ends", list(&ends))
            .param("axes", list(&axes))
            .param("steps", list(&steps))
            .op("Slice", &["x", "starts", "ends", "axes", "steps"], "y", []);
        holds("Slice", Law::Affine, builder);
    }
    let computed = graph("batch,4")
        .op("Shape", &["x"], "shape", [])
        .param("other", list(&[0, 0]))
        .op("Min", &["shape", "other"], "places", [])
        .op("Gather", &["x", "places"], "y", []);
    holds("Gather at computed places", Law::Affine, computed);
    let blocks = vec![
        Attribute::string("coordinate_transformation_mode", "asymmetric"),
        Attribute::string("nearest_mode", "floor"),
    ];
    let enlarged = graph(SIZED)
        .param("scales", Tensor::f32s(&[4], vec![1.0, 1.0, 2.0, 3.0]))
        .op("Resize", &["x", "", "scales"], "y", blocks);
    holds("Resize", Law::Affine, enlarged);
    let axis = || [Attribute::int("axis", 1)];
    let parts = graph(OPEN)
        .param("sizes", list(&[1, 3]))
        .param("c", weight(0, &[1]))
        .op("Split", &["x", "sizes"], "a,b", axis())
        .op("Mul", &["b", "c"], "m", [])
        .op("Concat", &["m", "b"], "y", axis());
    holds("Split and Concat", Law::Affine, parts);
    let rows = graph(OPEN).op("Neg", &["x"], "n", []).op(
        "Concat",
        &["x", "n"],
        "y",
        [Attribute::int("axis", 2)],
    );
    holds("Concat of open sizes", Law::Affine, rows);
}

#[test]
fn an_operator_without_a_rule_is_named() {
    let builder = graph(SIZED).op("OneHot", &["x", "axis"], "y", []);
    let mut found = model(
        builder
            .param("axis", Tensor::i64s(&[], vec![1]))
            .output("y"),
    );
    infer(&mut found);
    let (x, y) = (found.graph.inputs()[0], found.graph.outputs()[0].value);
    let error = super::cotangent(&mut found, y, y, x).err();
    let Some(PassError::Unsupported {
        node, op, reason, ..
    }) = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(
        (node.as_str(), op.as_str(), reason),
        ("y", "OneHot", Reason::NoDerivative)
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
        holds(op, law, graph(size).op(op, &["x"], "y", attributes));
    }
    for (op, law) in [("Min", Law::Piecewise), ("Mean", Law::Affine)] {
        let builder = graph(OPEN)
            .param("c", Tensor::f32s(&[], vec![-3.0]))
            .op("Mul", &["x", "c"], "m", [])
            .op(op, &["x", "m"], "y", []);
        holds(op, law, builder);
    }
    let least = graph(OPEN).param("axes", list(&[1]));
    let least = least.op("ReduceMin", &["x", "axes"], "y", []);
    holds("ReduceMin", Law::Piecewise, least);
    let newer = |opset| ModelBuilder::new(opset).input("x", DataType::Float, SIZED);
    let swish = newer(24).op("Swish", &["x"], "y", []);
    holds_in_single("Swish", Law::Dynamic, swish, NOT_IN_DOUBLE);
    let rms = newer(23).param("scale", weight(0, &[8]));
    let rms = rms.op("RMSNormalization", &["x", "scale"], "y", []);
    holds_in_single("RMSNormalization", Law::Dynamic, rms, NORM_IN_SINGLE);
    // One scale a group, and later one a channel.
    for (opset, scales) in [(18, 2), (21, 4)] {
        let groups = [Attribute::int("num_groups", 2)];
        let builder = newer(opset)
            .param("scale", weight(0, &[scales]))
            .param("bias", Tensor::f32s(&[scales], vec![0.0; scales as usize]))
            .op("GroupNormalization", &["x", "scale", "bias"], "y", groups);
        holds_in_single("GroupNormalization", Law::Dynamic, builder, NORM_IN_SINGLE);
    }
}
