use bcosc_ir::{Attribute, DataType, ModelBuilder, Tensors};

use super::*;
use crate::bcos::layers::BCOS;
use crate::testing::{Layers, after, exponent, image, outputs, text};

#[test]
fn a_window_over_groups() {
    let group = vec![Attribute::int("group", 2)];
    let before = image("batch,4,6,8").conv("x", "y", &[6, 2, 3, 3], group);
    let lowered = after(&[&BCOS, &LOWER], &before.typed("y"), &exponent(2.0));
    insta::assert_snapshot!(text(&lowered), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 17]
    >
    main (float[batch,4,6,8] x) => (y)
    <
       float[6,2,3,3] "y.w" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, ... ae8cafe7},
       float[2,2,1,1] "y.patch_norm.ones" = {1.0, 1.0, 1.0, 1.0},
       float[2,1,3,3] "y.patch_norm.ones_2" = {1.0, 1.0, 1.0, 1.0, ... 66a1a092},
       float "y.patch_norm.epsilon" = {1e-6},
       float[6,1,1,1] "y.bcos.ones" = {1.0, 1.0, 1.0, 1.0, 1.0, 1.0}
    >
    {
       "y.before" = Conv <group = 2> (x, "y.w")
       ["y.patch_norm.squares"] "y.patch_norm.squares" = Mul (x, x)  # from y
       ["y.patch_norm.channel_sum"] "y.patch_norm.channel_sum" = Conv <kernel_shape = [1, 1], group = 2> ("y.patch_norm.squares", "y.patch_norm.ones")  # from y
       ["y.patch_norm.window_sum"] "y.patch_norm.window_sum" = Conv <kernel_shape = [3, 3], group = 2> ("y.patch_norm.channel_sum", "y.patch_norm.ones_2")  # from y
       ["y.patch_norm.squared_norm"] "y.patch_norm.squared_norm" = Add ("y.patch_norm.window_sum", "y.patch_norm.epsilon")  # from y
       ["y.patch_norm.norm"] "y.patch_norm.norm" = Sqrt ("y.patch_norm.squared_norm")  # from y
       ["y.bcos.group_norm"] "y.bcos.group_norm" = Conv <kernel_shape = [1, 1], group = 2> ("y.patch_norm.norm", "y.bcos.ones")  # from y
       ["y.bcos.abs"] "y.bcos.abs" = Abs ("y.before")  # from y
       ["y.bcos.cosine"] "y.bcos.cosine" = Div ("y.bcos.abs", "y.bcos.group_norm")  # from y
       ["y.bcos.scaled"] y = Mul ("y.before", "y.bcos.cosine")  # from y
    }
    "#);
}

#[test]
fn a_single_cell_with_another_exponent() {
    let strides = vec![Attribute::ints("strides", &[2, 2])];
    let before = image("batch,4,6,8").conv("x", "y", &[6, 4, 1, 1], strides);
    let lowered = after(&[&BCOS, &LOWER], &before.typed("y"), &exponent(1.5));
    insta::assert_snapshot!(text(&lowered), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 17]
    >
    main (float[batch,4,6,8] x) => (y)
    <
       float[6,4,1,1] "y.w" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, ... 542994cb},
       float[1,4,1,1] "y.patch_norm.ones" = {1.0, 1.0, 1.0, 1.0},
       float "y.patch_norm.epsilon" = {1e-6},
       float "y.bcos.epsilon" = {1e-6},
       float "y.bcos.exponent" = {0.5}
    >
    {
       "y.before" = Conv <strides = [2, 2]> (x, "y.w")
       ["y.patch_norm.squares"] "y.patch_norm.squares" = Mul (x, x)  # from y
       ["y.patch_norm.channel_sum"] "y.patch_norm.channel_sum" = Conv <kernel_shape = [1, 1], strides = [2, 2]> ("y.patch_norm.squares", "y.patch_norm.ones")  # from y
       ["y.patch_norm.squared_norm"] "y.patch_norm.squared_norm" = Add ("y.patch_norm.channel_sum", "y.patch_norm.epsilon")  # from y
       ["y.patch_norm.norm"] "y.patch_norm.norm" = Sqrt ("y.patch_norm.squared_norm")  # from y
       ["y.bcos.abs"] "y.bcos.abs" = Abs ("y.before")  # from y
       ["y.bcos.cosine"] "y.bcos.cosine" = Div ("y.bcos.abs", "y.patch_norm.norm")  # from y
       ["y.bcos.add"] "y.bcos.add" = Add ("y.bcos.cosine", "y.bcos.epsilon")  # from y
       ["y.bcos.factor"] "y.bcos.factor" = Pow ("y.bcos.add", "y.bcos.exponent")  # from y
       ["y.bcos.scaled"] y = Mul ("y.before", "y.bcos.factor")  # from y
    }
    "#);
}

#[test]
fn reductions_follow_the_opset() {
    for (opset, attribute) in [(13, true), (18, false)] {
        let before = ModelBuilder::new(opset)
            .input("x", DataType::Float, "batch,4")
            .matmul("x", "y", &[4, 3])
            .typed("y");
        let lowered = after(&[&BCOS, &LOWER], &before, &exponent(2.0));
        let ops = lowered.graph.ops().into_iter();
        let mut norms = ops.filter_map(|id| lowered.graph.op(id));
        let norm = norms.find(|op| op.is("ReduceL2"));
        assert!(norm.is_some_and(|op| op.ints("axes").is_some() == attribute));
    }
}

#[test]
fn half_precision_is_summed_in_single() {
    // Each square is beyond the largest half-precision number.
    let dtype = DataType::Float16;
    let halves = |dims: &[u64], x: f64| {
        let count = dims.iter().product::<u64>() as usize;
        weights::tensor(dtype, dims, &vec![x; count])
    };
    let convolution = ModelBuilder::new(17)
        .input("x", dtype, "1,64,2,2")
        .param("w", halves(&[1, 64, 1, 1], 1.0 / 64.0))
        .op("Conv", &["x", "w"], "y", [])
        .typed("y");
    let product = ModelBuilder::new(17)
        .input("x", dtype, "1,64")
        .param("w", halves(&[64, 1], 1.0 / 64.0))
        .op("MatMul", &["x", "w"], "y", [])
        .typed("y");
    for (before, dims) in [(convolution, &[1, 64, 2, 2][..]), (product, &[1, 64])] {
        let lowered = after(&[&BCOS, &LOWER], &before, &exponent(2.0));
        let inputs = Tensors::from([("x".to_owned(), halves(dims, 512.0))]);
        // w.x = 512, ||x|| = 8 * 512.
        for y in &outputs(&lowered, &inputs)[0].data {
            assert!((y - 512.0 / 8.0).abs() < 0.1, "{y}");
        }
    }
}

#[test]
fn zeros_stay_zeros() {
    for dtype in [DataType::Float16, DataType::Float, DataType::Double] {
        for b in [2.0, 1.5] {
            let before = ModelBuilder::new(13)
                .input("x", dtype, "1,2")
                .param("w", weights::tensor(dtype, &[2, 2], &[0.5, 1.0, -1.0, 2.0]))
                .op("MatMul", &["x", "w"], "y", [])
                .typed("y");
            let lowered = after(&[&BCOS, &LOWER], &before, &exponent(b));
            let zeros = weights::tensor(dtype, &[1, 2], &[0.0, 0.0]);
            let inputs = Tensors::from([("x".to_owned(), zeros)]);
            let found = outputs(&lowered, &inputs);
            assert_eq!(found[0].data, [0.0, 0.0], "{dtype}, B = {b}");
        }
    }
}

#[test]
fn windows_of_one_input_share_the_sum_over_channels() {
    let before = image("batch,4,6,8")
        .conv("x", "a", &[6, 4, 3, 3], vec![])
        .conv("x", "b", &[6, 4, 5, 5], vec![])
        .output("a")
        .typed("b");
    let lowered = after(&[&BCOS, &LOWER], &before, &exponent(2.0));
    let ops = lowered.graph.ops().into_iter();
    let names = ops
        .filter_map(|id| lowered.graph.op(id))
        .map(|op| op.name());
    assert_eq!(names.filter(|n| n.ends_with("channel_sum")).count(), 1);
}

#[test]
fn a_norm_that_nothing_uses_goes() {
    // The first layer's norm shares its sums with the second, and is not used any more.
    let before = image("batch,4,6,8")
        .conv("x", "a", &[6, 4, 3, 3], vec![])
        .conv("x", "b", &[6, 4, 5, 5], vec![])
        .output("a")
        .typed("b");
    let mut marked = after(&[&BCOS], &before, &exponent(2.0));
    let kept = marked.graph.outputs()[1].value;
    marked.graph.set_outputs(&[(kept, "b".to_owned())]);
    let lowered = after(&[&LOWER], &marked, &exponent(2.0));
    assert!(lowered.graph.value_named("a.norm").is_none());
}
