//! What tract tells the compiler about graphs.

mod common;

use bcosc_engine::default_interpreter;
use bcosc_ir::onnx::proto::AttributeProto;
use bcosc_ir::{DataType, Dim, Facts, Interpreter, Model, ModelBuilder, Tensor};
use common::{Net, held, int, ints, shape, spread, text};

const LIMIT: u64 = 1 << 12;

fn facts(model: &Model) -> Facts {
    default_interpreter().facts(model, LIMIT).unwrap()
}

fn shape_of(facts: &Facts, value: &str) -> Vec<String> {
    let shape = facts.types[value].shape.as_ref().unwrap();
    shape.iter().map(Dim::to_string).collect()
}

#[test]
fn shapes_follow_a_symbolic_batch_through_shape_arithmetic() {
    let model = Net::new(13)
        .input("x", &["N", "3", "8", "8"])
        .weight("w", spread(&[4, 3, 3, 3], 1))
        .weight("zero", Tensor::i64s(&[], vec![0]))
        .weight("axis", Tensor::i64_vec(&[0]))
        .weight("rest", Tensor::i64_vec(&[-1]))
        .node_with(
            "Conv",
            &["x", "w"],
            "conv",
            vec![ints("strides", &[2, 2]), ints("pads", &[1, 1, 1, 1])],
        )
        .node("Shape", &["conv"], "shape")
        .node("Gather", &["shape", "zero"], "batch")
        .node("Unsqueeze", &["batch", "axis"], "batch1")
        .node_with(
            "Concat",
            &["batch1", "rest"],
            "target",
            vec![int("axis", 0)],
        )
        .node("Reshape", &["conv", "target"], "flat")
        .output("flat")
        .model();
    let facts = facts(&model);
    assert_eq!(shape_of(&facts, "conv"), ["N", "4", "4", "4"]);
    assert_eq!(shape_of(&facts, "flat"), ["N", "64"]);
    assert_eq!(facts.types["flat"].dtype, DataType::Float);
    assert_eq!(facts.types["shape"].dtype, DataType::Int64);
    assert_eq!(facts.symbolic["shape"], shape(&["N", "4", "4", "4"]));
    assert_eq!(facts.symbolic["batch"], shape(&["N"]));
    // The -1 of a reshape is not a size.
    assert_eq!(facts.symbolic["target"], shape(&["N", "?"]));
    assert!(facts.constants.is_empty());
}

#[test]
fn attention_has_the_heads_of_the_queries_and_the_channels_of_the_values() {
    let model = Net::new(23)
        .input("q", &["N", "4", "T", "2"])
        .input("k", &["N", "2", "S", "2"])
        .input("v", &["N", "2", "S", "3"])
        .node("Attention", &["q", "k", "v"], "y")
        .output("y")
        .model();
    assert_eq!(shape_of(&facts(&model), "y"), ["N", "4", "T", "3"]);
    for (queries, keys, channels) in [("8", "8", "6"), ("16", "8", "12")] {
        let model = Net::new(23)
            .input("q", &["N", "T", queries])
            .input("k", &["N", "S", keys])
            .input("v", &["N", "S", "6"])
            .node_with(
                "Attention",
                &["q", "k", "v"],
                "y",
                vec![int("q_num_heads", 4), int("kv_num_heads", 2)],
            )
            .output("y")
            .model();
        assert_eq!(shape_of(&facts(&model), "y"), ["N", "T", channels]);
    }
}

#[test]
fn transposed_convolutions_keep_the_sizes_that_are_known() {
    let shape_behind = |x: &[&str], w: &[u64], attributes: Vec<AttributeProto>| {
        let model = Net::new(18)
            .input("x", x)
            .weight("w", spread(w, 1))
            .node_with("ConvTranspose", &["x", "w"], "y", attributes)
            .output("y")
            .model();
        // The order of terms is tract's affair.
        let in_order = |size: String| {
            let mut terms: Vec<&str> = size.split('+').collect();
            terms.sort_unstable();
            terms.join("+")
        };
        let shape = shape_of(&facts(&model), "y");
        shape.into_iter().map(in_order).collect::<Vec<_>>()
    };
    let plane = |attributes| shape_behind(&["N", "4", "5", "W"], &[4, 3, 3, 2], attributes);
    assert_eq!(plane(vec![]), ["N", "3", "7", "1+W"]);
    let padded = vec![
        ints("strides", &[2, 3]),
        ints("pads", &[1, 0, 1, 1]),
        ints("output_padding", &[1, 0]),
    ];
    assert_eq!(plane(padded), ["N", "3", "10", "-2+3*W"]);
    let same = |stride| {
        vec![
            text("auto_pad", "SAME_UPPER"),
            ints("strides", &[stride, 1]),
        ]
    };
    assert_eq!(plane(same(2)), ["N", "3", "10", "W"]);
    let grouped = vec![int("group", 2), ints("output_shape", &[9, 8])];
    assert_eq!(plane(grouped), ["N", "6", "9", "8"]);
    let line = shape_behind(&["N", "4", "5"], &[4, 3, 3], vec![ints("strides", &[2])]);
    assert_eq!(line, ["N", "3", "11"]);
    let space = shape_behind(&["N", "4", "D", "5", "6"], &[4, 3, 2, 2, 2], vec![]);
    assert_eq!(space, ["N", "3", "1+D", "6", "7"]);
}

#[test]
fn arithmetic_on_sizes_is_carried_out() {
    let model = Net::new(18)
        .input("x", &["N", "C", "H", "8"])
        .weight("one", Tensor::i64_vec(&[1]))
        .weight("two", Tensor::i64_vec(&[2]))
        .weight("three", Tensor::i64_vec(&[3]))
        .weight("ten", Tensor::i64s(&[], vec![10]))
        .weight("axis", Tensor::i64_vec(&[0]))
        .node("Shape", &["x"], "shape")
        .node("Slice", &["shape", "one", "three"], "ch")
        .node_with("Gather", &["shape", "two"], "h", vec![int("axis", 0)])
        .node("Squeeze", &["h", "axis"], "h0")
        .node("Mul", &["h0", "ten"], "mul")
        .node("Add", &["mul", "ten"], "add")
        .node("Sub", &["add", "h0"], "sub")
        .node("Div", &["h0", "ten"], "div")
        .node_with("Cast", &["sub"], "cast", vec![int("to", 7)])
        .node_with("Shape", &["x"], "part", vec![int("start", 3)])
        .node("Size", &["x"], "size")
        .output("cast")
        .model();
    let facts = facts(&model);
    let symbolic = |value: &str| {
        facts.symbolic[value]
            .iter()
            .map(Dim::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(symbolic("ch"), ["C", "H"]);
    assert_eq!(symbolic("h0"), ["H"]);
    assert_eq!(symbolic("mul"), ["10*H"]);
    assert_eq!(symbolic("sub"), ["10+9*H"]);
    assert_eq!(symbolic("cast"), ["10+9*H"]);
    assert_eq!(symbolic("div"), ["(H)/10"]);
    assert_eq!(facts.constants["part"], Tensor::i64_vec(&[8]));
    assert_eq!(facts.types["size"].rank(), Some(0));
}

#[test]
fn what_does_not_depend_on_inputs_is_evaluated() {
    let model = Net::new(18)
        .input("x", &["N", "4"])
        .weight("shape", Tensor::i64_vec(&[2, 3]))
        .node_with(
            "Constant",
            &[],
            "c",
            vec![held("value", Tensor::f32s(&[], vec![2.5]))],
        )
        .node("Expand", &["c", "shape"], "expanded")
        .node_with("Constant", &[], "n", vec![ints("value_ints", &[1, 2, 3])])
        .node("CastLike", &["n", "x"], "cast")
        .node("Mul", &["expanded", "cast"], "product")
        .node_with("Cast", &["product"], "ints", vec![int("to", 6)])
        .node("Greater", &["product", "c"], "bool")
        .node("Identity", &["x"], "y")
        .output("y")
        .model();
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
    let model = Net::new(13)
        .input("x", &["N", "64"])
        .weight("w", spread(&[64, 64], 1))
        .weight("tiny", spread(&[2, 64], 2))
        .weight("huge", Tensor::i64_vec(&[1 << 30, 1 << 20]))
        .node("Transpose", &["w"], "wt")
        .node("Transpose", &["tiny"], "tinyt")
        .node("ConstantOfShape", &["huge"], "bomb")
        .node("MatMul", &["x", "wt"], "y")
        .output("y")
        .model();
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
    assert_eq!(transposed[1], spread(&[64, 64], 1).to_f32s().unwrap()[64]);
}

#[test]
fn an_unknown_operator_leaves_a_hole_that_declarations_fill() {
    let net = |declare: bool| {
        let net = Net::new(13)
            .input("x", &["N", "4"])
            .node("Relu", &["x"], "a")
            .node("com.example.Mystery", &["a"], "b")
            .node("Relu", &["b"], "c")
            .output("c");
        if declare {
            net.value_info("b", &["N", "7"])
        } else {
            net
        }
    };
    let blind = facts(&net(false).model());
    assert_eq!(shape_of(&blind, "a"), ["N", "4"]);
    assert!(!blind.types.contains_key("c"));
    let told = facts(&net(true).model());
    assert_eq!(shape_of(&told, "c"), ["N", "7"]);
}

#[test]
fn a_node_that_makes_no_sense_leaves_the_rest_known() {
    let model = Net::new(13)
        .input("x", &["N", "4"])
        .weight("w", spread(&[5, 3], 1))
        .node("MatMul", &["x", "w"], "wrong")
        .node_with(
            "MaxPool",
            &["x"],
            "panics",
            vec![ints("kernel_shape", &[0])],
        )
        .node("Relu", &["x"], "right")
        .output("right")
        .model();
    assert_eq!(shape_of(&facts(&model), "right"), ["N", "4"]);
}

#[test]
fn unnamed_sizes_get_names_of_their_own() {
    let model = Net::new(13)
        .input("x", &["?", "4"])
        .input("y", &["?", "4"])
        .input("z", &["dim", "4"])
        .node_with("Concat", &["x", "y"], "joined", vec![int("axis", 0)])
        .node("Relu", &["x"], "kept")
        .output("joined")
        .model();
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
        Net::new(13)
            .typed_input("x", dtype, &["N", "4"])
            .weight("w", weight)
            .node("Mul", &["x", "w"], "y")
            .node_with("Cast", &["y"], "z", vec![int("to", dtype.to_i32().into())])
            .output("z")
            .model()
    };
    for dtype in [DataType::Float16, DataType::Bfloat16, DataType::Double] {
        let facts = facts(&model(dtype));
        assert_eq!(facts.types["y"].dtype, dtype);
        assert_eq!(facts.types["z"].dtype, dtype);
    }
}

#[test]
fn facts_are_the_same_every_time() {
    let model = Net::new(13)
        .input("x", &["?", "?", "?"])
        .node("Shape", &["x"], "s")
        .node("Relu", &["x"], "y")
        .output("y")
        .model();
    let (first, second) = (facts(&model), facts(&model));
    assert_eq!(first.types, second.types);
    assert_eq!(first.symbolic, second.symbolic);
}

#[test]
fn an_open_size_may_be_one() {
    let model = ModelBuilder::new(17)
        .input("x", DataType::Float, "batch,n")
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
