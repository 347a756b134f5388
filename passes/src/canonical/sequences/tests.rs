use bcosc_ir::{Attribute, DataType, ModelBuilder};

use super::*;
use crate::testing::{apply, assert_same_function, model, reasons, refusal, text};

fn start(dims: &str) -> ModelBuilder {
    ModelBuilder::new(17)
        .input("x", DataType::Float, dims)
        .param("zero", Tensor::i64s(&[], vec![0]))
        .param("one", Tensor::i64s(&[], vec![1]))
        .param("last", Tensor::i64s(&[], vec![-1]))
}

fn cut(builder: ModelBuilder, split: &[&str], keepdims: i64) -> ModelBuilder {
    let attributes = [
        Attribute::int("axis", 1),
        Attribute::int("keepdims", keepdims),
    ];
    builder.op("SplitToSequence", split, "s", attributes)
}

fn take(builder: ModelBuilder, at: &str, name: &str) -> ModelBuilder {
    builder
        .op("SequenceAt", &["s", at], name, [])
        .output_as(name, DataType::Float, "?,?,?")
}

/// The engine has no sequences, so the expected graph is compared instead.
fn expect(before: ModelBuilder, expected: ModelBuilder) -> String {
    let mut after = model(before);
    let outcome = apply(&RESOLVE_SEQUENCES, &mut after);
    assert_eq!(outcome.skips, []);
    assert_same_function(&model(expected), &after, 0.0);
    text(&after)
}

/// The parts of `x` along axis 1, each from a start to an end.
fn slices(builder: ModelBuilder, parts: &[(&str, i64, i64)]) -> ModelBuilder {
    parts.iter().fold(
        builder.param("axis", Tensor::i64_vec(&[1])),
        |builder, &(name, start, end)| {
            let (from, to) = (format!("{name}.from"), format!("{name}.to"));
            builder
                .param(&from, Tensor::i64_vec(&[start]))
                .param(&to, Tensor::i64_vec(&[end]))
                .op("Slice", &["x", &from, &to, "axis"], name, [])
                .output_as(name, DataType::Float, "?,?,?")
        },
    )
}

#[test]
fn parts_of_given_lengths_become_a_split() {
    let start = || start("batch,6,2").param("lengths", Tensor::i64_vec(&[2, 3, 1]));
    let before = take(
        take(cut(start(), &["x", "lengths"], 1), "one", "a"),
        "last",
        "b",
    );
    insta::assert_snapshot!(expect(before, slices(start(), &[("a", 2, 5), ("b", 5, 6)])), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 17]
    >
    main (float[batch,6,2] x) => (float[?,?,?] a, float[?,?,?] b)
    <
       int64 zero = {0},
       int64[3] "s.lengths" = {2, 3, 1}
    >
    {
       ["s.split"] "s.split", a, b = Split <axis = 1> (x, "s.lengths")  # from s
    }
    "#);
}

#[test]
fn equal_parts_of_a_known_axis_become_a_split() {
    let start = || start("batch,5,2").param("length", Tensor::i64s(&[], vec![2]));
    let before = take(
        take(cut(start(), &["x", "length"], 1), "zero", "a"),
        "last",
        "b",
    );
    insta::assert_snapshot!(expect(before, slices(start(), &[("a", 0, 2), ("b", 4, 5)])), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 17]
    >
    main (float[batch,5,2] x) => (float[?,?,?] a, float[?,?,?] b)
    <
       int64 one = {1},
       int64[3] "s.lengths" = {2, 2, 1}
    >
    {
       ["s.split"] a, "s.split.1", b = Split <axis = 1> (x, "s.lengths")  # from s
    }
    "#);
}

#[test]
fn equal_parts_of_an_unknown_axis_become_slices() {
    let start = || start("1,n,2").param("length", Tensor::i64s(&[], vec![1]));
    let before = take(
        take(cut(start(), &["x", "length"], 1), "zero", "a"),
        "last",
        "b",
    );
    insta::assert_snapshot!(expect(before, slices(start(), &[("a", 0, 1), ("b", -1, i64::MAX)])), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 17]
    >
    main (float[1,n,2] x) => (float[?,?,?] a, float[?,?,?] b)
    <
       int64 one = {1},
       int64[1] "a.starts" = {0},
       int64[1] "a.ends" = {1},
       int64[1] "a.axes" = {1},
       int64[1] "b.starts" = {-1},
       int64[1] "b.ends" = {9223372036854775807},
       int64[1] "b.axes" = {1}
    >
    {
       ["a.slice"] a = Slice (x, "a.starts", "a.ends", "a.axes")  # from a
       ["b.slice"] b = Slice (x, "b.starts", "b.ends", "b.axes")  # from b
    }
    "#);
}

#[test]
fn parts_without_their_axis_are_gathered() {
    let before = take(cut(start("batch,3,2"), &["x"], 0), "last", "a");
    let gather = [Attribute::int("axis", 1)];
    let expected = start("batch,3,2").op("Gather", &["x", "last"], "a", gather);
    insta::assert_snapshot!(expect(before, expected.output_as("a", DataType::Float, "?,?")), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 17]
    >
    main (float[batch,3,2] x) => (float[?,?,?] a)
    <
       int64 zero = {0},
       int64 one = {1},
       int64 "a.index" = {-1}
    >
    {
       ["a.gather"] a = Gather <axis = 1> (x, "a.index")  # from a
    }
    "#);
}

#[test]
fn elements_of_a_list_are_read_themselves() {
    let list = start("batch,3,2")
        .op("Relu", &["x"], "r", [])
        .op("Neg", &["x"], "n", [])
        .op("SequenceConstruct", &["x", "r"], "c", [])
        .op("SequenceInsert", &["c", "n", "one"], "i", [])
        .op("SequenceErase", &["i", "zero"], "s", []);
    let before = take(list, "zero", "a")
        .op(
            "ConcatFromSequence",
            &["s"],
            "b",
            [Attribute::int("axis", 1), Attribute::int("new_axis", 1)],
        )
        .op("SequenceLength", &["s"], "l", [])
        .output_as("b", DataType::Float, "?,?,?,?")
        .output_as("l", DataType::Int64, "");
    let expected = start("batch,3,2")
        .param("axes", Tensor::i64_vec(&[1]))
        .param("two", Tensor::i64s(&[], vec![2]))
        .op("Neg", &["x"], "a", [])
        .op("Relu", &["x"], "r", [])
        .op("Unsqueeze", &["a", "axes"], "u", [])
        .op("Unsqueeze", &["r", "axes"], "v", [])
        .op("Concat", &["u", "v"], "b", [Attribute::int("axis", 1)])
        .op("Identity", &["two"], "l", [])
        .output_as("a", DataType::Float, "?,?,?")
        .output_as("b", DataType::Float, "?,?,?,?")
        .output_as("l", DataType::Int64, "");
    insta::assert_snapshot!(expect(before, expected), @r#"
    <
       ir_version: 10,
       opset_import: ["" : 17]
    >
    main (float[batch,3,2] x) => (float[?,?,?] a, float[?,?,?,?] b, int64 l)
    <
       int64 last = {-1},
       int64[1] "b.axes" = {1},
       int64[1] "b.axes_2" = {1},
       int64 "l.length" = {2}
    >
    {
       r = Relu (x)
       a = Neg (x)
       ["b.unsqueeze"] "b.unsqueeze" = Unsqueeze (a, "b.axes")  # from b
       ["b.unsqueeze_2"] "b.unsqueeze_2" = Unsqueeze (r, "b.axes_2")  # from b
       ["b.concat"] b = Concat <axis = 1> ("b.unsqueeze", "b.unsqueeze_2")  # from b
       ["l.length.identity"] l = Identity ("l.length")  # from l
    }
    "#);
}

#[test]
fn a_place_that_is_computed_stays() {
    let at = start("batch,3,2").input("i", DataType::Int64, "");
    let mut model = model(take(cut(at, &["x"], 1), "i", "a"));
    let outcome = apply(&RESOLVE_SEQUENCES, &mut model);
    assert_eq!(outcome.changes, []);
    assert_eq!(
        reasons(outcome),
        vec![Reason::NotConstant("i".to_owned()); 2]
    );
}

#[test]
fn counting_from_the_end_needs_the_number_of_parts() {
    let start = start("1,n,2").param("length", Tensor::i64s(&[], vec![2]));
    let model = model(take(cut(start, &["x", "length"], 1), "last", "a"));
    assert_eq!(
        refusal(RULES, &model, "SequenceAt"),
        Reason::UnknownShape("x".to_owned())
    );
}
