//! Facts about graphs, as inferred by tract.

use bcosc_engine::default_interpreter;
use bcosc_ir::{Attribute, DataType, Dim, Facts, Interpreter, Model, ModelBuilder, Tensor};
use bcosc_testing::{input, weight};

const LIMIT: u64 = 1 << 12;

fn facts(model: &Model) -> Facts {
    default_interpreter().facts(model, LIMIT).unwrap()
}

fn shape_of(facts: &Facts, value: &str) -> Vec<String> {
    let shape = facts.types[value].shape.as_ref().unwrap();
    shape.iter().map(Dim::to_string).collect()
}

fn symbolic(facts: &Facts, value: &str) -> Vec<String> {
    let sizes = facts.symbolic[value].iter();
    sizes.map(Dim::to_string).collect()
}

#[test]
fn shapes_follow_a_symbolic_batch_through_shape_arithmetic() {
    let model = input(13, "N,3,8,8")
        .param("w", weight(1, &[4, 3, 3, 3]))
        .param("zero", Tensor::i64s(&[], vec![0]))
        .param("axis", Tensor::i64_vec(&[0]))
        .param("rest", Tensor::i64_vec(&[-1]))
        .op(
            "Conv",
            &["x", "w"],
            "conv",
            [
                Attribute::ints("strides", &[2, 2]),
                Attribute::ints("pads", &[1, 1, 1, 1]),
            ],
        )
        .op("Shape", &["conv"], "shape", [])
        .op("Gather", &["shape", "zero"], "batch", [])
        .op("Unsqueeze", &["batch", "axis"], "batch1", [])
        .op(
            "Concat",
            &["batch1", "rest"],
            "target",
            [Attribute::int("axis", 0)],
        )
        .op("Reshape", &["conv", "target"], "flat", [])
        .output("flat")
        .finish()
        .unwrap();
    let facts = facts(&model);
    assert_eq!(shape_of(&facts, "conv"), ["N", "4", "4", "4"]);
    assert_eq!(shape_of(&facts, "flat"), ["N", "64"]);
    assert_eq!(facts.types["flat"].dtype, DataType::Float);
    assert_eq!(facts.types["shape"].dtype, DataType::Int64);
    assert_eq!(symbolic(&facts, "shape"), ["N", "4", "4", "4"]);
    assert_eq!(symbolic(&facts, "batch"), ["N"]);
    // The -1 of a reshape is no size.
    assert_eq!(symbolic(&facts, "target"), ["N", "?"]);
    assert!(facts.constants.is_empty());
}

#[test]
fn attention_has_the_heads_of_the_queries_and_the_channels_of_the_values() {
    let model = ModelBuilder::new(23)
        .input("q", DataType::Float, "N,4,T,2")
        .input("k", DataType::Float, "N,2,S,2")
        .input("v", DataType::Float, "N,2,S,3")
        .op("Attention", &["q", "k", "v"], "y", [])
        .output("y")
        .finish()
        .unwrap();
    assert_eq!(shape_of(&facts(&model), "y"), ["N", "4", "T", "3"]);
    for (queries, keys, channels) in [(8, 8, "6"), (16, 8, "12")] {
        let model = ModelBuilder::new(23)
            .input("q", DataType::Float, &format!("N,T,{queries}"))
            .input("k", DataType::Float, &format!("N,S,{keys}"))
            .input("v", DataType::Float, "N,S,6")
            .op(
                "Attention",
                &["q", "k", "v"],
                "y",
                [
                    Attribute::int("q_num_heads", 4),
                    Attribute::int("kv_num_heads", 2),
                ],
            )
            .output("y")
            .finish()
            .unwrap();
        assert_eq!(shape_of(&facts(&model), "y"), ["N", "T", channels]);
    }
}

#[test]
fn transposed_convolutions_keep_the_sizes_that_are_known() {
    let shape_behind = |x: &str, w: &[u64], attributes: Vec<Attribute>| {
        let model = input(18, x)
            .param("w", weight(1, w))
            .op("ConvTranspose", &["x", "w"], "y", attributes)
            .output("y")
            .finish()
            .unwrap();
        // The order of terms is tract's affair.
        let in_order = |size: String| {
            let mut terms: Vec<&str> = size.split('+').collect();
            terms.sort_unstable();
            terms.join("+")
        };
        let shape = shape_of(&facts(&model), "y");
        shape.into_iter().map(in_order).collect::<Vec<_>>()
    };
    let plane = |attributes| shape_behind("N,4,5,W", &[4, 3, 3, 2], attributes);
    assert_eq!(plane(vec![]), ["N", "3", "7", "1+W"]);
    let padded = vec![
        Attribute::ints("strides", &[2, 3]),
        Attribute::ints("pads", &[1, 0, 1, 1]),
        Attribute::ints("output_padding", &[1, 0]),
    ];
    assert_eq!(plane(padded), ["N", "3", "10", "-2+3*W"]);
    let same = |stride| {
        vec![
            Attribute::string("auto_pad", "SAME_UPPER"),
            Attribute::ints("strides", &[stride, 1]),
        ]
    };
    assert_eq!(plane(same(2)), ["N", "3", "10", "W"]);
    let grouped = vec![
        Attribute::int("group", 2),
        Attribute::ints("output_shape", &[9, 8]),
    ];
    assert_eq!(plane(grouped), ["N", "6", "9", "8"]);
    let line = shape_behind("N,4,5", &[4, 3, 3], vec![Attribute::ints("strides", &[2])]);
    assert_eq!(line, ["N", "3", "11"]);
    let space = shape_behind("N,4,D,5,6", &[4, 3, 2, 2, 2], vec![]);
    assert_eq!(space, ["N", "3", "1+D", "6", "7"]);
}

#[test]
fn arithmetic_on_sizes_is_carried_out() {
    let model = input(18, "N,C,H,8")
        .param("one", Tensor::i64_vec(&[1]))
        .param("two", Tensor::i64_vec(&[2]))
        .param("three", Tensor::i64_vec(&[3]))
        .param("ten", Tensor::i64s(&[], vec![10]))
        .param("axis", Tensor::i64_vec(&[0]))
        .op("Shape", &["x"], "shape", [])
        .op("Slice", &["shape", "one", "three"], "ch", [])
        .op(
            "Gather",
            &["shape", "two"],
            "h",
            [Attribute::int("axis", 0)],
        )
        .op("Squeeze", &["h", "axis"], "h0", [])
        .op("Mul", &["h0", "ten"], "mul", [])
        .op("Add", &["mul", "ten"], "add", [])
        .op("Sub", &["add", "h0"], "sub", [])
        .op("Div", &["h0", "ten"], "div", [])
        .op("Cast", &["sub"], "cast", [Attribute::int("to", 7)])
        .op("Shape", &["x"], "part", [Attribute::int("start", 3)])
        .op("Size", &["x"], "size", [])
        .output("cast")
        .finish()
        .unwrap();
    let facts = facts(&model);
    assert_eq!(symbolic(&facts, "ch"), ["C", "H"]);
    assert_eq!(symbolic(&facts, "h0"), ["H"]);
    assert_eq!(symbolic(&facts, "mul"), ["10*H"]);
    assert_eq!(symbolic(&facts, "sub"), ["10+9*H"]);
    assert_eq!(symbolic(&facts, "cast"), ["10+9*H"]);
    assert_eq!(symbolic(&facts, "div"), ["(H)/10"]);
    assert_eq!(facts.constants["part"], Tensor::i64_vec(&[8]));
    assert_eq!(facts.types["size"].rank(), Some(0));
}

#[test]
fn what_does_not_depend_on_inputs_is_evaluated() {
    let model = input(18, "N,4")
        .param("shape", Tensor::i64_vec(&[2, 3]))
        .op(
            "Constant",
            &[],
            "c",
            [Attribute::tensor("value", Tensor::f32s(&[], vec![2.5]))],
        )
        .op("Expand", &["c", "shape"], "expanded", [])
        .op(
            "Constant",
            &[],
            "n",
            [Attribute::ints("value_ints", &[1, 2, 3])],
        )
        .op("CastLike", &["n", "x"], "cast", [])
        .op("Mul", &["expanded", "cast"], "product", [])
        .op("Cast", &["product"], "ints", [Attribute::int("to", 6)])
        .op("Greater", &["product", "c"], "bool", [])
        .op("Identity", &["x"], "y", [])
        .output("y")
        .finish()
        .unwrap();
    let facts = facts(&model);
    assert_eq!(
        facts.constants["expanded"],
        Tensor::f32s(&[2, 3], vec![2.5; 6])
    );
    assert_eq!(
        facts.constants["cast"],
        Tensor::f32s(&[3], vec![1.0, 2.0, 3.0])
    );
    let product = vec![2.5, 5.0, 7.5, 2.5, 5.0, 7.5];
    assert_eq!(facts.constants["product"], Tensor::f32s(&[2, 3], product));
    assert_eq!(
        facts.constants["ints"].to_i64s().unwrap(),
        [2, 5, 7, 2, 5, 7]
    );
    assert_eq!(facts.constants["ints"].dtype(), DataType::Int32);
    assert_eq!(
        facts.constants["bool"].to_i64s().unwrap(),
        [0, 1, 1, 0, 1, 1]
    );
    assert_eq!(facts.constants["bool"].dtype(), DataType::Bool);
    assert!(!facts.constants.contains_key("y"));
}

#[test]
fn large_constants_have_a_type_only() {
    let model = input(13, "N,64")
        .param("w", weight(1, &[64, 64]))
        .param("tiny", weight(2, &[2, 64]))
        .param("huge", Tensor::i64_vec(&[1 << 30, 1 << 20]))
        .op("Transpose", &["w"], "wt", [])
        .op("Transpose", &["tiny"], "tinyt", [])
        .op("ConstantOfShape", &["huge"], "bomb", [])
        .op("MatMul", &["x", "wt"], "y", [])
        .output("y")
        .finish()
        .unwrap();
    let facts = facts(&model);
    assert_eq!(shape_of(&facts, "wt"), ["64", "64"]);
    assert!(!facts.constants.contains_key("wt"));
    assert!(facts.constants.contains_key("tinyt"));
    assert_eq!(
        shape_of(&facts, "bomb"),
        [(1u64 << 30).to_string(), (1u64 << 20).to_string()]
    );
    assert!(!facts.constants.contains_key("bomb"));
    assert_eq!(shape_of(&facts, "y"), ["N", "64"]);
    let told_all = default_interpreter().facts(&model, 1 << 20).unwrap();
    let transposed = told_all.constants["wt"].to_f32s().unwrap();
    assert_eq!(transposed[1], weight(1, &[64, 64]).to_f32s().unwrap()[64]);
}

#[test]
fn an_unknown_operator_leaves_a_hole_that_declarations_fill() {
    let net = |declare: bool| {
        let net = input(13, "N,4")
            .op("Relu", &["x"], "a", [])
            .op("com.example::Mystery", &["a"], "b", [])
            .op("Relu", &["b"], "c", [])
            .output("c");
        if declare {
            net.value("b", DataType::Float, "N,7")
        } else {
            net
        }
    };
    let blind = facts(&net(false).finish().unwrap());
    assert_eq!(shape_of(&blind, "a"), ["N", "4"]);
    assert!(!blind.types.contains_key("c"));
    let told = facts(&net(true).finish().unwrap());
    assert_eq!(shape_of(&told, "c"), ["N", "7"]);
}

#[test]
fn a_node_that_makes_no_sense_leaves_the_rest_known() {
    let model = input(13, "N,4")
        .param("w", weight(1, &[5, 3]))
        .op("MatMul", &["x", "w"], "wrong", [])
        .op(
            "MaxPool",
            &["x"],
            "panics",
            [Attribute::ints("kernel_shape", &[0])],
        )
        .op("Relu", &["x"], "right", [])
        .output("right")
        .finish()
        .unwrap();
    assert_eq!(shape_of(&facts(&model), "right"), ["N", "4"]);
}

#[test]
fn unnamed_sizes_get_names_of_their_own() {
    let model = input(13, "?,4")
        .input("y", DataType::Float, "?,4")
        .input("z", DataType::Float, "dim,4")
        .op("Concat", &["x", "y"], "joined", [Attribute::int("axis", 0)])
        .op("Relu", &["x"], "kept", [])
        .output("joined")
        .finish()
        .unwrap();
    let facts = facts(&model);
    let firsts = ["x", "y", "z"].map(|value| shape_of(&facts, value)[0].clone());
    assert_eq!(firsts[2], "dim");
    assert!(
        firsts[0] != firsts[1] && firsts[0] != "dim" && firsts[1] != "dim",
        "{firsts:?}"
    );
    assert_eq!(shape_of(&facts, "kept")[0], firsts[0]);
}

#[test]
fn half_precision_types_are_told_apart() {
    let model = |dtype: DataType| {
        let weight = Tensor::floats(dtype, &[1], &[0.1]).unwrap();
        ModelBuilder::new(13)
            .input("x", dtype, "N,4")
            .param("w", weight)
            .op("Mul", &["x", "w"], "y", [])
            .op(
                "Cast",
                &["y"],
                "z",
                [Attribute::int("to", dtype.to_i32().into())],
            )
            .output("z")
            .finish()
            .unwrap()
    };
    for dtype in [DataType::Float16, DataType::Bfloat16, DataType::Double] {
        let facts = facts(&model(dtype));
        assert_eq!(facts.types["y"].dtype, dtype);
        assert_eq!(facts.types["z"].dtype, dtype);
    }
}

#[test]
fn facts_are_the_same_every_time() {
    let model = input(13, "?,?,?")
        .op("Shape", &["x"], "s", [])
        .op("Relu", &["x"], "y", [])
        .output("y")
        .finish()
        .unwrap();
    let (first, second) = (facts(&model), facts(&model));
    assert_eq!(first.types, second.types);
    assert_eq!(first.symbolic, second.symbolic);
}

#[test]
fn an_open_size_may_be_one() {
    let model = input(17, "batch,n")
        .op("Shape", &["x"], "shape", [])
        .param("one", Tensor::i64_vec(&[1]))
        .param("minus_one", Tensor::i64_vec(&[-1]))
        .op("Equal", &["shape", "one"], "is_one", [])
        .op("Equal", &["shape", "minus_one"], "is_minus_one", [])
        .output("is_one")
        .output("is_minus_one")
        .finish()
        .unwrap();
    let constants = facts(&model).constants;
    assert!(!constants.contains_key("is_one"), "{constants:?}");
    assert_eq!(constants["is_minus_one"].to_i64s().unwrap(), [0, 0]);
}

#[test]
fn images_without_channels_have_no_result() {
    let window = || [Attribute::ints("kernel_shape", &[1])];
    let norm = ["x", "one", "one", "one", "one"];
    for sizes in ["", "3"] {
        let model = input(18, sizes)
            .param("one", weight(1, &[1]))
            .param("w", weight(1, &[1, 1, 1]))
            .op("BatchNormalization", &norm, "norm", [])
            .op("Conv", &["x", "w"], "conv", [])
            .op("ConvTranspose", &["x", "w"], "transposed", [])
            .op("MaxPool", &["x"], "max", window())
            .op("AveragePool", &["x"], "average", window())
            .op("GlobalAveragePool", &["x"], "global", [])
            .op("Neg", &["x"], "y", [])
            .output("y")
            .finish()
            .unwrap();
        let facts = facts(&model);
        let known = |value: &&str| facts.types.get(*value).is_some_and(|t| t.rank().is_some());
        assert!(known(&"y"));
        let others = ["norm", "conv", "transposed", "max", "average", "global"];
        let found: Vec<_> = others.into_iter().filter(known).collect();
        assert_eq!(found, Vec::<&str>::new(), "{sizes}");
    }
}
