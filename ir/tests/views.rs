//! Typed views: what an operator means, whichever opset wrote it.

use bcosc_ir::views::{
    AxesOp, BatchNorm, Conv, Padding, Pool, PoolKind, Window, reduce, squeeze, unsqueeze,
};
use bcosc_ir::{Attribute, Model, NodeId, Op, Operand, Patch, Tensor};
use bcosc_testing::{input, model};

/// A model of one operator on an image.
fn one(opset: i64, dims: &str, op: &str, inputs: &[&str], attributes: Vec<Attribute>) -> Model {
    let builder = input(opset, dims)
        .param("w", Tensor::f32s(&[4, 2, 3, 1], vec![0.5; 24]))
        .param("c", Tensor::f32s(&[4], vec![0.5; 4]))
        .param("axes", Tensor::i64_vec(&[-1, 2]));
    model(builder.op(op, inputs, "y", attributes).output("y"))
}

fn first(model: &Model) -> NodeId {
    model.graph.ops()[0]
}

fn ints(name: &str, values: &[i64]) -> Attribute {
    Attribute::ints(name, values)
}

fn conv(attributes: Vec<Attribute>) -> Option<Conv> {
    let model = one(17, "n,4,8,8", "Conv", &["x", "w"], attributes);
    Conv::of(&model.graph, first(&model))
}

#[test]
fn a_convolution_has_defaults() {
    let Some(found) = conv(vec![Attribute::int("group", 2)]) else {
        panic!("no view")
    };
    assert_eq!(
        (found.in_channels(), found.out_channels(), found.group),
        (4, 4, 2)
    );
    assert_eq!(found.window.kernel, [3, 1]);
    assert_eq!(found.window.strides, [1, 1]);
    assert_eq!(found.window.dilations, [1, 1]);
    assert_eq!(found.window.padding, Padding::Explicit(vec![0; 4]));
    assert_eq!(found.bias, None);
}

#[test]
fn padding_is_read_in_every_spelling() {
    let padding = |attributes| conv(attributes).map(|c| c.window.padding);
    let auto = |how| {
        vec![
            Attribute::string("auto_pad", how),
            ints("pads", &[9, 9, 9, 9]),
        ]
    };
    let pads = vec![ints("pads", &[1, 2, 3, 4])];
    assert_eq!(padding(pads), Some(Padding::Explicit(vec![1, 2, 3, 4])));
    assert_eq!(padding(auto("NOTSET")), Some(Padding::Explicit(vec![9; 4])));
    assert_eq!(padding(auto("VALID")), Some(Padding::Explicit(vec![0; 4])));
    assert_eq!(padding(auto("SAME_UPPER")), Some(Padding::SameUpper));
    assert_eq!(padding(auto("SAME_LOWER")), Some(Padding::SameLower));
    assert_eq!(padding(auto("SAME")), None);
    assert_eq!(padding(vec![ints("pads", &[1, 2])]), None);
    assert_eq!(padding(vec![ints("strides", &[1])]), None);
    assert_eq!(padding(vec![ints("dilations", &[1, 1, 1])]), None);
}

#[test]
fn groups_divide_the_units() {
    for group in [0, -1, 3, i64::MAX] {
        assert_eq!(conv(vec![Attribute::int("group", group)]), None, "{group}");
    }
}

#[test]
fn a_window_is_written_as_it_was_read() {
    let attributes = vec![
        ints("strides", &[2, 1]),
        ints("dilations", &[1, 3]),
        ints("pads", &[1, 0, 0, 1]),
    ];
    let window = conv(attributes).map(|c| c.window);
    let Some(window) = window else {
        panic!("no view")
    };
    let op = window.write(Op::new("", "Conv"));
    assert_eq!(Window::of(&op, window.kernel.clone()), Some(window));
    let plain = Window::pointwise(2);
    let op = plain.write(Op::new("", "Conv").with(ints("pads", &[1; 4])));
    assert_eq!(op.attributes().len(), 1);
    assert!(plain.is_pointwise() && plain.is_single_cell() && !plain.is_padded());
    let same = Window {
        padding: Padding::SameLower,
        ..Window::pointwise(2)
    };
    let op = same.write(Op::new("", "Conv"));
    assert_eq!(op.get("auto_pad"), Some("SAME_LOWER"));
    let padded = Window {
        padding: Padding::Explicit(vec![1, 0, 0, 0]),
        ..Window::pointwise(2)
    };
    assert!(!padded.is_single_cell() && padded.is_padded());
}

fn is_global(
    opset: i64,
    dims: &str,
    op: &str,
    inputs: &[&str],
    attributes: Vec<Attribute>,
) -> bool {
    let model = one(opset, dims, op, inputs, attributes);
    Pool::is_global_average(&model.graph, first(&model))
}

#[test]
fn global_averages_are_seen_in_every_form() {
    let image = "n,4,6,8";
    assert!(is_global(17, image, "GlobalAveragePool", &["x"], vec![]));
    for axes in [[2, 3], [3, 2], [-2, -1], [2, -1]] {
        assert!(is_global(
            17,
            image,
            "ReduceMean",
            &["x"],
            vec![ints("axes", &axes)]
        ));
    }
    assert!(is_global(18, image, "ReduceMean", &["x", "axes"], vec![]));
    let whole = vec![ints("kernel_shape", &[6, 8])];
    assert!(is_global(17, image, "AveragePool", &["x"], whole));
}

#[test]
fn other_averages_are_not_global() {
    let image = "n,4,6,8";
    for axes in [&[2][..], &[1, 2, 3], &[2, 3, 3], &[0, 1], &[]] {
        assert!(!is_global(
            17,
            image,
            "ReduceMean",
            &["x"],
            vec![ints("axes", axes)]
        ));
    }
    assert!(!is_global(17, image, "ReduceMean", &["x"], vec![]));
    assert!(!is_global(
        17,
        "n,4",
        "ReduceMean",
        &["x"],
        vec![ints("axes", &[])]
    ));
    assert!(!is_global(17, image, "GlobalMaxPool", &["x"], vec![]));
    let window =
        |kernel: &[i64], more: Vec<Attribute>| [vec![ints("kernel_shape", kernel)], more].concat();
    assert!(!is_global(
        17,
        image,
        "AveragePool",
        &["x"],
        window(&[5, 8], vec![])
    ));
    let padded = window(&[6, 8], vec![ints("pads", &[0, 0, 1, 0])]);
    assert!(!is_global(17, image, "AveragePool", &["x"], padded));
    let same = window(&[6, 8], vec![Attribute::string("auto_pad", "SAME_UPPER")]);
    assert!(!is_global(17, image, "AveragePool", &["x"], same));
    assert!(!is_global(
        17,
        "n,4,h,w",
        "AveragePool",
        &["x"],
        window(&[6, 8], vec![])
    ));
    assert!(!is_global(
        17,
        image,
        "MaxPool",
        &["x"],
        window(&[6, 8], vec![])
    ));
}

#[test]
fn pools_say_what_they_compute() {
    let kind = |op: &str, attributes| {
        let model = one(17, "n,4,6,8", op, &["x"], attributes);
        Pool::of(&model.graph, first(&model)).map(|pool| (pool.kind, pool.ceil_mode))
    };
    let kernel = || ints("kernel_shape", &[2, 2]);
    let average = |count_padding| PoolKind::Average { count_padding };
    assert_eq!(
        kind("MaxPool", vec![kernel()]),
        Some((PoolKind::Max, false))
    );
    assert_eq!(
        kind("AveragePool", vec![kernel()]),
        Some((average(false), false))
    );
    let counted = vec![
        kernel(),
        Attribute::int("count_include_pad", 1),
        Attribute::int("ceil_mode", 1),
    ];
    assert_eq!(kind("AveragePool", counted), Some((average(true), true)));
    assert_eq!(kind("AveragePool", vec![]), None);
    assert_eq!(kind("LpPool", vec![kernel()]), None);
}

#[test]
fn norms_are_seen_in_inference_only() {
    let inputs = ["x", "c", "c", "c", "c"];
    let norm = |inputs: &[&str], attributes| {
        let model = one(8, "n,4,6,8", "BatchNormalization", inputs, attributes);
        BatchNorm::of(&model.graph, first(&model)).is_some()
    };
    assert!(norm(&inputs, vec![]));
    assert!(!norm(&inputs[..4], vec![]));
    assert!(!norm(&inputs, vec![Attribute::int("spatial", 0)]));
    assert!(!norm(&inputs, vec![Attribute::int("training_mode", 1)]));
    let statistics = model(
        input(8, "n,4,6,8")
            .param("c", Tensor::f32s(&[4], vec![0.5; 4]))
            .op("BatchNormalization", &inputs, "y,mean", [])
            .output("y")
            .output("mean"),
    );
    assert_eq!(BatchNorm::of(&statistics.graph, first(&statistics)), None);
}

#[test]
fn axes_are_an_attribute_or_an_input() {
    let forms = |opset: i64| {
        let mut model = model(
            input(opset, "n,1,6")
                .op("Relu", &["x"], "y", [])
                .output("y"),
        );
        let relu = first(&model);
        let y = model.graph.output(relu, 0);
        let mut patch = Patch::at(relu);
        let sum = reduce(&mut patch, opset, AxesOp::ReduceSum, Operand::Old(y), &[1]);
        let mean = reduce(&mut patch, opset, AxesOp::ReduceMean, sum, &[1]);
        let flat = squeeze(&mut patch, opset, mean, &[1]);
        let back = unsqueeze(&mut patch, opset, flat, &[1]);
        patch.replace(y, back);
        if let Err(error) = model.graph.apply(patch) {
            panic!("{error}");
        }
        let ops = model.graph.ops().into_iter().skip(1);
        let by_attribute = ops.map(|id| {
            let attribute = model
                .graph
                .op(id)
                .and_then(|op| op.attribute("axes"))
                .is_some();
            assert_ne!(attribute, model.graph.input(id, 1).is_some());
            attribute
        });
        by_attribute.collect::<Vec<bool>>()
    };
    assert_eq!(forms(11), [true, true, true, true]);
    assert_eq!(forms(13), [false, true, false, false]);
    assert_eq!(forms(18), [false, false, false, false]);
}
