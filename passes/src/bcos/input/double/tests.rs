use bcosc_ir::{Attribute, DataType, ModelBuilder, Tensor, Tensors};

use super::*;
use crate::Settings;
use crate::testing::{
    Array, Layers, after, contract, declared, image, model, outputs, passed, text, weight,
};

fn settings(input: InputContract, absorb: bool, channels: usize) -> Settings {
    let mut settings = contract(input, absorb);
    if let Some(n) = &mut settings.normalization {
        n.mean = (0..channels).map(|c| 0.3 + 0.1 * c as f64).collect();
        n.std = (0..channels).map(|c| 0.2 + 0.05 * c as f64).collect();
    }
    settings
}

const CONTRACTS: [(InputContract, bool); 5] = [
    (InputContract::Same, false),
    (InputContract::AddInverse, false),
    (InputContract::AddInverse, true),
    (InputContract::Rgb, false),
    (InputContract::Rgb, true),
];

/// The converted model takes raw images x where the original takes normalised ones.
fn check(before: &Model, dims: &[usize], (input, absorb): (InputContract, bool)) -> Model {
    let channels = dims[1];
    let settings = settings(input, absorb, channels);
    let converted = after(&[&DOUBLE_INPUT], before, &settings);
    let noise = Array::noise(4, dims);
    let raw = Array {
        data: noise.data.iter().map(|x| x.abs() / 1.2).collect(),
        ..noise
    };
    let Some(Normalization { mean, std }) = &settings.normalization else {
        panic!("no normalisation")
    };
    let normalized = Array::from_fn(dims, |p| (raw.at(p) - mean[p[1]]) / std[p[1]]);
    let taken = match input {
        InputContract::Same => normalized.clone(),
        InputContract::Rgb => raw,
        InputContract::AddInverse => {
            let mut wide = dims.to_vec();
            wide[1] *= 2;
            Array::from_fn(&wide, |p| {
                let mut own = p.to_vec();
                own[1] %= channels;
                if p[1] < channels {
                    raw.at(&own)
                } else {
                    1.0 - raw.at(&own)
                }
            })
        }
    };
    let dtype = declared(before, "x").map_or(DataType::Float, |t| t.dtype);
    let feed = |x: &Array| Tensors::from([("x".to_owned(), x.tensor(dtype))]);
    let expected = outputs(before, &feed(&normalized));
    let found = outputs(&converted, &feed(&taken));
    let tolerance = if dtype == DataType::Double {
        1e-12
    } else {
        3e-6
    };
    for (found, expected) in found.iter().zip(&expected) {
        found.assert_close(expected, tolerance);
    }
    converted
}

fn check_all(before: &Model, dims: &[usize]) {
    for form in CONTRACTS {
        check(before, dims, form);
    }
}

fn refusal(before: &Model, settings: &Settings) -> PassError {
    match passed(&[&DOUBLE_INPUT], before, settings, None) {
        Ok((after, _)) => panic!("{}", text(&after)),
        Err(error) => error,
    }
}

fn reason(before: &Model, settings: &Settings) -> Reason {
    match refusal(before, settings) {
        PassError::Unsupported { reason, .. }
        | PassError::Input { reason, .. }
        | PassError::Model(reason) => reason,
        error => panic!("{error}"),
    }
}

fn pads() -> Vec<Attribute> {
    vec![Attribute::ints("pads", &[1, 0, 2, 1])]
}

#[test]
fn what_the_model_took_is_doubled_in_the_graph() {
    let before = image("batch,2,4,4").biased_conv("x", "y", &[1, 2, 1, 1], vec![]);
    let after = check(&before.typed("y"), &[2, 2, 4, 4], CONTRACTS[0]);
    insta::assert_snapshot!(text(&after), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 17]
    >
    main (float[batch,2,4,4] x) => (y)
    <
       float[1] "y.b" = {0.6823779},
       float[1,4,1,1] "y.weight" = {0.24393784, 0.32306564, -0.24393784, -0.32306564}
    >
    {
       ["y.neg"] "y.neg" = Neg (x)  # from y
       ["y.input"] "y.input" = Concat <axis = 1> (x, "y.neg")  # from y
       y = Conv ("y.input", "y.weight", "y.b")
    }
    "#);
}

#[test]
fn inverses_that_the_model_takes_are_normalised() {
    let before = image("batch,2,4,4").conv("x", "y", &[1, 2, 1, 1], vec![]);
    let after = check(&before.typed("y"), &[2, 2, 4, 4], CONTRACTS[1]);
    insta::assert_snapshot!(text(&after), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 17]
    >
    main (float[batch,4,4,4] x) => (y)
    <
       float[1,4,1,1] "y.mean" = {0.3, 0.4, 0.7, 0.6},
       float[1,4,1,1] "y.std" = {0.2, 0.25, 0.2, 0.25},
       float[1,4,1,1] "y.weight" = {0.24393784, 0.32306564, -0.24393784, -0.32306564}
    >
    {
       ["y.centred"] "y.centred" = Sub (x, "y.mean")  # from y
       ["y.normalized"] "y.normalized" = Div ("y.centred", "y.std")  # from y
       y = Conv ("y.normalized", "y.weight")
    }
    "#);
}

#[test]
fn weights_that_normalise_need_no_nodes() {
    let before = image("batch,2,4,4").conv("x", "y", &[1, 2, 1, 1], vec![]);
    let after = check(&before.typed("y"), &[2, 2, 4, 4], CONTRACTS[2]);
    insta::assert_snapshot!(text(&after), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 17]
    >
    main (float[batch,4,4,4] x) => (y)
    <
       float[1,4,1,1] "y.weight" = {1.7075648, 1.5507151, -0.7318135, -1.03381}
    >
    {
       y = Conv (x, "y.weight")
    }
    "#);
}

#[test]
fn convolutions_with_padding() {
    let before = image("batch,3,5,4").biased_conv("x", "y", &[4, 3, 3, 2], pads());
    check_all(&before.typed("y"), &[2, 3, 5, 4]);
    let before = image("batch,3,h,w").conv("x", "y", &[4, 3, 3, 2], pads());
    check_all(&before.typed("y"), &[2, 3, 5, 4]);
    let same = vec![Attribute::string("auto_pad", "SAME_UPPER")];
    let before = image("batch,2,7").conv("x", "y", &[4, 2, 4], same);
    check_all(&before.typed("y"), &[2, 2, 7]);
}

#[test]
fn one_channel() {
    let before = image("batch,1,5,4").conv("x", "y", &[4, 1, 3, 2], pads());
    check_all(&before.typed("y"), &[2, 1, 5, 4]);
}

#[test]
fn double_precision() {
    let w = crate::analysis::weights::tensor(DataType::Double, &[1, 2, 2], &[0.1, 0.2, -0.3, 0.7]);
    let before = ModelBuilder::new(17)
        .input("x", DataType::Double, "batch,2,4")
        .param("w", w)
        .op("Conv", &["x", "w"], "y", []);
    check_all(&before.typed("y"), &[2, 2, 4]);
}

#[test]
fn convolutions_with_groups() {
    for (dims, group) in [([6, 2, 3, 2], 2), ([8, 1, 3, 2], 4)] {
        let mut attributes = pads();
        attributes.push(Attribute::int("group", group));
        let before = image("batch,4,5,4").conv("x", "y", &dims, attributes);
        check_all(&before.typed("y"), &[2, 4, 5, 4]);
    }
}

#[test]
fn layers_that_share_the_input() {
    let group = vec![Attribute::int("group", 3)];
    let before = image("batch,3,5,4")
        .conv("x", "a", &[4, 3, 1, 1], vec![])
        .conv("x", "b", &[4, 3, 3, 3], vec![])
        .conv("x", "c", &[3, 1, 2, 2], group)
        .output("a")
        .output("b")
        .typed("c");
    check_all(&before, &[2, 3, 5, 4]);
    let same = check(&before, &[2, 3, 5, 4], CONTRACTS[0]);
    let ops = same.graph.ops().into_iter();
    let doubled = ops.filter(|&id| same.graph.op(id).is_some_and(|op| op.is("Neg")));
    assert_eq!(doubled.count(), 1);
}

#[test]
fn flattened_images() {
    let flat = || image("batch,3,5,4").op("Flatten", &["x"], "f", []);
    check_all(&flat().linear("f", "y", 60, 2).typed("y"), &[2, 3, 5, 4]);
    check_all(&flat().matmul("f", "y", &[60, 2]).typed("y"), &[2, 3, 5, 4]);
    let shaped = |shape: &[i64]| {
        image("batch,1,5,4")
            .param("shape", Tensor::i64_vec(shape))
            .op("Reshape", &["x", "shape"], "f", [])
    };
    check_all(
        &shaped(&[-1, 20]).matmul("f", "y", &[20, 2]).typed("y"),
        &[2, 1, 5, 4],
    );
    // Rows of an image as vectors: no flattening.
    check_all(
        &shaped(&[-1, 4]).matmul("f", "y", &[4, 2]).typed("y"),
        &[2, 1, 5, 4],
    );
}

/// Patches of 2x2 as vectors, in an order such as (p1 p2 c).
fn patches(order: [i64; 3]) -> Model {
    let mut perm = vec![0, 2, 4];
    perm.extend(order);
    image("batch,3,4,6")
        .param("split", Tensor::i64_vec(&[0, 3, 2, 2, 3, 2]))
        .op("Reshape", &["x", "split"], "s", [])
        .op("Transpose", &["s"], "t", [Attribute::ints("perm", &perm)])
        .param("join", Tensor::i64_vec(&[0, 6, 12]))
        .op("Reshape", &["t", "join"], "f", [])
        .matmul("f", "y", &[12, 2])
        .typed("y")
}

#[test]
fn patches_in_either_order() {
    check_all(&patches([3, 5, 1]), &[2, 3, 4, 6]);
    check_all(&patches([1, 3, 5]), &[2, 3, 4, 6]);
}

#[test]
fn vectors_without_an_image() {
    let before = image("batch,3").linear("x", "y", 3, 2).typed("y");
    check_all(&before, &[2, 3]);
    let before = image("batch,4,3").matmul("x", "y", &[3, 2]).typed("y");
    check(&before, &[2, 4, 3], CONTRACTS[0]);
    let raw = settings(InputContract::Rgb, false, 3);
    assert_eq!(reason(&before, &raw), Reason::FirstLayerForm);
}

#[test]
fn preprocessing_in_the_graph_is_for_the_same_input_only() {
    let before = image("batch,4,5,3")
        .op(
            "Transpose",
            &["x"],
            "t",
            [Attribute::ints("perm", &[0, 3, 1, 2])],
        )
        .param("scale", weight(1, &[3, 1, 1]))
        .op("Mul", &["t", "scale"], "m", [])
        .conv("m", "y", &[2, 3, 3, 3], vec![])
        .typed("y");
    check(&before, &[2, 4, 5, 3], CONTRACTS[0]);
    for (input, absorb) in &CONTRACTS[1..] {
        let reason = reason(&before, &settings(*input, *absorb, 3));
        assert!(
            matches!(reason, Reason::PreprocessingInGraph(_)),
            "{reason:?}"
        );
    }
}

#[test]
fn what_else_reads_a_raw_image_stands_in_the_way() {
    let conv = || image("batch,3,5,4").conv("x", "a", &[3, 3, 1, 1], vec![]);
    let skip = conv().op("Add", &["a", "x"], "y", []).typed("y");
    check(&skip, &[2, 3, 5, 4], CONTRACTS[0]);
    let raw = settings(InputContract::Rgb, false, 3);
    assert_eq!(
        reason(&skip, &raw),
        Reason::PreprocessingInGraph("y".to_owned())
    );
    let out = conv().output("a").typed("x");
    assert_eq!(
        reason(&out, &raw),
        Reason::PreprocessingInGraph("x".to_owned())
    );
    let flat = conv()
        .op("Flatten", &["x"], "f", [])
        .linear("f", "l", 60, 2)
        .op("Relu", &["f"], "r", [])
        .output("l")
        .output("a");
    assert_eq!(
        reason(&flat.typed("r"), &raw),
        Reason::PreprocessingInGraph("r".to_owned())
    );
}

#[test]
fn a_layer_may_read_the_input_twice() {
    let before = image("batch,3")
        .op("Relu", &["x"], "addend", [])
        .param("w", weight(1, &[3, 3]))
        .op("Gemm", &["x", "w", "addend"], "y", [])
        .typed("y");
    check(&before, &[2, 3], CONTRACTS[0]);
}

#[test]
fn a_shape_that_is_read_is_not_the_image() {
    // As exporters flatten features: the path of the shape leads past all layers.
    let before = image("batch,3,5,4")
        .op("Shape", &["x"], "shape", [])
        .param("zero", Tensor::i64_vec(&[0]))
        .op(
            "Gather",
            &["shape", "zero"],
            "n",
            [Attribute::int("axis", 0)],
        )
        .param("rest", Tensor::i64_vec(&[60]))
        .op("Concat", &["n", "rest"], "to", [Attribute::int("axis", 0)])
        .conv("x", "a", &[3, 3, 1, 1], vec![])
        .op("Reshape", &["a", "to"], "f", [])
        .linear("f", "y", 60, 2)
        .typed("y");
    let after = check(&before, &[2, 3, 5, 4], CONTRACTS[3]);
    let weights = after.graph.parameters().into_iter().filter_map(|(id, _)| {
        let found = after.graph.value_type(after.graph.output(id, 0))?;
        found.known_shape()
    });
    assert!(
        weights
            .filter(|dims| dims.len() == 2)
            .all(|dims| dims == [2, 60])
    );
}

#[test]
fn sizes_that_are_read_stay_those_of_the_image() {
    // All sizes; those from the end on; the batch alone, as torch.export writes it; their product; random numbers of the same
    // sizes, for which there is nothing to divide.
    for (op, attributes, divisor) in [
        ("Shape", vec![], Some(vec![1, 2, 1, 1])),
        (
            "Shape",
            vec![Attribute::int("start", -3)],
            Some(vec![2, 1, 1]),
        ),
        (
            "Shape",
            vec![Attribute::int("start", 0), Attribute::int("end", 1)],
            Some(vec![]),
        ),
        ("Size", vec![], Some(vec![2])),
        (
            "RandomNormalLike",
            vec![Attribute::float("seed", 1.0)],
            None,
        ),
    ] {
        let before = image("batch,3,5,4")
            .op(op, &["x"], "read", attributes)
            .op("Cast", &["read"], "cast", [Attribute::int("to", 1)])
            .op(
                "ReduceSum",
                &["cast"],
                "number",
                [Attribute::int("keepdims", 0)],
            )
            .conv("x", "a", &[3, 3, 1, 1], vec![])
            .op("Mul", &["a", "number"], "y", [])
            .typed("y");
        let Some(divisor) = divisor else {
            let wide = settings(InputContract::AddInverse, true, 3);
            let refused = Reason::PreprocessingInGraph("read".to_owned());
            assert_eq!(reason(&before, &wide), refused);
            continue;
        };
        let after = check(&before, &[2, 3, 5, 4], (InputContract::AddInverse, true));
        let found = after.graph.parameters().into_iter().filter_map(|(id, _)| {
            let tensor = after.graph.constant(after.graph.output(id, 0))?;
            tensor.to_i64s().ok().filter(|all| all.contains(&2))
        });
        assert_eq!(found.flatten().collect::<Vec<_>>(), divisor);
    }
}

#[test]
fn normalisations_must_fit() {
    let before = image("batch,3,5,4")
        .conv("x", "y", &[3, 3, 1, 1], vec![])
        .typed("y");
    let mut raw = contract(InputContract::AddInverse, true);
    raw.normalization = None;
    assert_eq!(reason(&before, &raw), Reason::NormalizationMissing);
    let with = |mean: &[f64], std: &[f64]| Settings {
        normalization: Some(Normalization {
            mean: mean.to_vec(),
            std: std.to_vec(),
        }),
        ..contract(InputContract::Rgb, true)
    };
    let given = |given| Reason::NormalizationLength { channels: 3, given };
    assert_eq!(reason(&before, &with(&[0.5], &[0.5; 3])), given(1));
    assert_eq!(reason(&before, &with(&[0.5; 3], &[])), given(0));
    for std in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let reason = reason(&before, &with(&[0.5; 3], &[std; 3]));
        assert_eq!(reason, Reason::NormalizationValue);
    }
}

#[test]
fn models_without_one_image_or_one_layer_are_refused() {
    let same = Settings::default();
    let two = image("batch,3,5,4")
        .input("z", DataType::Float, "batch,3,5,4")
        .conv("x", "y", &[3, 3, 1, 1], vec![]);
    let reason_of = |builder: ModelBuilder| reason(&model(builder.output("y")), &same);
    assert_eq!(reason_of(two), Reason::NoImageInput { inputs: 2 });
    let none = image("batch,3,5,4").op("Relu", &["x"], "y", []);
    assert_eq!(reason_of(none), Reason::NoLinearLayer);
    let left = image("batch,3,4")
        .param("w", weight(1, &[2, 3]))
        .op("MatMul", &["w", "x"], "y", []);
    assert_eq!(reason_of(left), Reason::FirstLayerForm);
    let empty = image("batch,3,4").conv("x", "y", &[0, 3, 1], vec![]);
    assert_eq!(reason_of(empty), Reason::Malformed);
    let empty = image("batch,0").matmul("x", "y", &[0, 2]);
    assert_eq!(reason_of(empty), Reason::FirstLayerForm);
    let flat = image("batch").conv("x", "y", &[2, 3, 1, 1], vec![]);
    assert_eq!(reason_of(flat), Reason::FirstLayerForm);
    let dynamic = image("batch,3,3").op("MatMul", &["x", "x"], "y", []);
    let error = refusal(&model(dynamic.output("y")), &same);
    assert_eq!(
        error.to_string(),
        "MatMul node \"y\" (opset 17): the weight is not a constant"
    );
}
