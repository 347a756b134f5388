use bcosc_ir::{Attribute, Model, ModelBuilder};

use super::*;
use crate::testing::{Layers, image, infer, inferred};

fn verdict(builder: ModelBuilder) -> Verdict {
    let model = inferred(builder);
    Linearity::of(&model.graph).verdicts().remove(0)
}

fn classes(model: &Model) -> Vec<(String, Class)> {
    let graph = &model.graph;
    let classes = Linearity::of(graph).classes().into_iter();
    classes
        .map(|(id, class)| (graph.value_name(graph.output(id, 0)).to_owned(), class))
        .collect()
}

fn assert_linear(builder: ModelBuilder) {
    let found = verdict(builder);
    assert!(found.is_complete(), "{found:?}");
}

fn assert_broken_by(builder: ModelBuilder, node: &str) {
    let found = verdict(builder);
    assert!(!found.dynamic_linear);
    assert_eq!(found.broken_by, [node]);
}

#[test]
fn convolutions_gates_and_pools_are_dynamic_linear() {
    assert_linear(
        image("batch,2,6,6")
            .conv("x", "a", &[3, 2, 3, 3], vec![])
            .op("Relu", &["a"], "b", [])
            .op("GlobalAveragePool", &["b"], "c", [])
            .op("Flatten", &["c"], "d", [])
            .matmul("d", "y", &[3, 4])
            .output("y"),
    );
}

#[test]
fn one_unmarked_operator_in_place_of_a_gate_breaks_it() {
    let with = |activation: &str| {
        image("batch,2,6,6")
            .conv("x", "a", &[3, 2, 3, 3], vec![])
            .op(activation, &["a"], "b", [])
            .conv("b", "y", &[3, 3, 1, 1], vec![])
            .output("y")
    };
    for gate in ["Relu", "HardSwish", "LeakyRelu", "Identity", "Tanh"] {
        assert_linear(with(gate));
    }
    for other in ["Sigmoid", "Exp", "Softplus", "Abs"] {
        assert_broken_by(with(other), "b");
    }
}

#[test]
fn constants_are_named_with_the_node_that_adds_them() {
    let found = verdict(
        image("batch,2,6,6")
            .biased_conv("x", "a", &[3, 2, 3, 3], vec![])
            .norm("a", "b", 3)
            .output("b"),
    );
    assert!(found.dynamic_linear && !found.is_complete());
    let constants: Vec<&str> = found
        .constants
        .iter()
        .map(|c| c.constant.as_str())
        .collect();
    assert_eq!(constants, ["a.b", "b.beta", "b.mean"]);
    assert_eq!(found.constants[0].node, "a");
}

#[test]
fn a_decomposed_gelu_is_a_gate() {
    let number = |x: f32| bcosc_ir::Tensor::f32s(&[], vec![x]);
    let builder = image("batch,4")
        .matmul("x", "a", &[4, 4])
        .param("root", number(std::f32::consts::SQRT_2))
        .op("Div", &["a", "root"], "tilted", [])
        .op("Erf", &["tilted"], "erf", [])
        .param("one", number(1.0))
        .op("Add", &["erf", "one"], "twice", [])
        .op("Mul", &["a", "twice"], "z", [])
        .param("half", number(0.5))
        .op("Mul", &["z", "half"], "y", [])
        .output("y");
    let built = inferred(builder);
    let found = classes(&built);
    let class = |name: &str| found.iter().find(|(n, _)| n == name).map(|(_, c)| *c);
    assert_eq!(class("z"), Some(Class::Gate));
    assert_eq!(class("erf"), Some(Class::Factor));
    assert_eq!(class("y"), Some(Class::Linear));
    assert!(Linearity::of(&built.graph).verdicts()[0].is_complete());
}

#[test]
fn attention_weights_are_held_fixed_and_values_are_not() {
    let builder = image("batch,5,4")
        .matmul("x", "q", &[4, 4])
        .matmul("x", "k", &[4, 4])
        .matmul("x", "v", &[4, 4])
        .op(
            "Transpose",
            &["k"],
            "kt",
            [Attribute::ints("perm", &[0, 2, 1])],
        )
        .op("MatMul", &["q", "kt"], "scores", [])
        .op(
            "Softmax",
            &["scores"],
            "weights",
            [Attribute::int("axis", -1)],
        )
        .op("MatMul", &["weights", "v"], "y", [])
        .output("y");
    let built = inferred(builder);
    let found = classes(&built);
    let class = |name: &str| found.iter().find(|(n, _)| n == name).map(|(_, c)| *c);
    assert_eq!(class("y"), Some(Class::Attention));
    assert_eq!(class("v"), Some(Class::Linear));
    assert_eq!(class("q"), Some(Class::Factor));
    assert!(Linearity::of(&built.graph).verdicts()[0].is_complete());
}

/// Which operands of the product y are held fixed.
fn held_fixed(builder: ModelBuilder) -> [bool; 2] {
    let built = inferred(builder.output("y"));
    let graph = &built.graph;
    let node = graph.value_named("y").map(|y| y.node).unwrap();
    let analysis = Linearity::of(graph);
    [0, 1].map(|slot| analysis.is_detached(node, slot))
}

#[test]
fn a_scale_for_each_channel_is_no_layer() {
    // One branch has gone through a sigmoid linear unit more than the other, whatever scales it.
    let gated = |dims: &[u64], attributes: Vec<Attribute>| {
        held_fixed(
            image("batch,4,5,5")
                .conv("x", "a", &[4, 4, 1, 1], vec![])
                .conv("x", "b", &[4, 4, 1, 1], vec![])
                .op("HardSwish", &["b"], "bent", [])
                .conv("bent", "gate", dims, attributes)
                .op("Mul", &["a", "gate"], "y", []),
        )
    };
    let depthwise = || Attribute::int("group", 4);
    assert_eq!(gated(&[4, 1, 1, 1], vec![depthwise()]), [false, true]);
    let padded = Attribute::ints("pads", &[1, 1, 1, 1]);
    let window = gated(&[4, 1, 3, 3], vec![depthwise(), padded]);
    assert_eq!(window, [false, false]);
}

#[test]
fn what_is_a_map_of_the_other_factor_is_its_gate() {
    // However many gates the other went through.
    let image = || {
        image("batch,4,5,5")
            .conv("x", "a", &[4, 4, 1, 1], vec![])
            .op("HardSwish", &["a"], "once", [])
            .op("HardSwish", &["once"], "bent", [])
    };
    let window = || image().conv("bent", "gate", &[4, 4, 1, 1], vec![]);
    let left = window().op("Mul", &["gate", "bent"], "y", []);
    assert_eq!(held_fixed(left), [true, false]);
    let right = window().op("Mul", &["bent", "gate"], "y", []);
    assert_eq!(held_fixed(right), [false, true]);
}

#[test]
fn what_takes_sizes_or_a_gate_from_the_other_factor_is_no_map_of_it() {
    // A gate in [0, 1] of one half of the channels, and what is computed from the other.
    let halves = |size: &str| {
        image(size)
            .op("Split", &["x"], "left, right", [Attribute::int("axis", 1)])
            .conv("left", "a", &[4, 2, 1, 1], vec![])
            .conv("right", "b", &[4, 2, 1, 1], vec![])
            .param("low", bcosc_ir::Tensor::f32s(&[], vec![0.0]))
            .param("high", bcosc_ir::Tensor::f32s(&[], vec![1.0]))
            .op("Clip", &["b", "low", "high"], "gate", [])
    };
    let sized = halves("batch,4,height,width")
        .op("Shape", &["gate"], "sizes", [])
        .op("Resize", &["a", "", "", "sizes"], "value", [])
        .op("Mul", &["value", "gate"], "y", []);
    assert_eq!(held_fixed(sized), [false, true]);
    let gated = halves("batch,4,5,5")
        .op("Mul", &["a", "gate"], "once", [])
        .conv("once", "value", &[4, 4, 1, 1], vec![])
        .op("Mul", &["value", "gate"], "y", []);
    assert_eq!(held_fixed(gated), [false, true]);
}

#[test]
fn what_is_the_same_for_many_elements_is_their_gate() {
    // However many gates these went through.
    let built = image("batch,4,5,5")
        .conv("x", "a", &[4, 4, 1, 1], vec![])
        .op("HardSwish", &["a"], "bent", [])
        .op("GlobalAveragePool", &["x"], "pooled", [])
        .conv("pooled", "gate", &[4, 4, 1, 1], vec![]);
    let product = built.op("Mul", &["bent", "gate"], "y", []);
    assert_eq!(held_fixed(product), [false, true]);
}

#[test]
fn a_product_of_two_linear_values_is_linear_in_neither() {
    let gated = |activation: &str| {
        image("batch,4")
            .matmul("x", "a", &[4, 4])
            .matmul("x", "b", &[4, 4])
            .op(activation, &["b"], "c", [])
            .op("Mul", &["a", "c"], "y", [])
            .output("y")
    };
    assert_linear(gated("HardSwish"));
    assert_linear(gated("Sigmoid"));
    assert_broken_by(gated("Neg"), "y");
}

#[test]
fn a_b_cos_layer_in_standard_operators_is_dynamic_linear() {
    use crate::bcos::layers::BCOS;
    use crate::bcos::lower::LOWER;
    use crate::testing::{after, exponent};
    let before = image("batch,4,6,6")
        .conv("x", "y", &[6, 4, 3, 3], vec![])
        .typed("y");
    for b in [2.0, 1.5] {
        let mut lowered = after(&[&BCOS as &crate::Pass, &LOWER], &before, &exponent(b));
        infer(&mut lowered);
        assert!(Linearity::of(&lowered.graph).verdicts()[0].is_complete());
    }
}

#[test]
fn what_is_computed_from_sizes_is_a_constant() {
    let found = verdict(
        image("batch,4")
            .op("Shape", &["x"], "shape", [])
            .op("ConstantOfShape", &["shape"], "y", [])
            .output("y"),
    );
    assert!(!found.dynamic_linear);
    assert_eq!(found.broken_by, ["y"]);
}

/// An explanation is one of the image: what other inputs add is constant, by their names.
#[test]
fn other_inputs_add_constants() {
    let two = |second: &str| {
        image("batch,2,6,6")
            .input("meta", bcosc_ir::DataType::Float, "batch,5")
            .op("GlobalAveragePool", &["x"], "pooled", [])
            .op("Flatten", &["pooled"], "flat", [])
            .matmul("meta", "deep", &[5, 5])
            .op(
                "Concat",
                &["flat", second],
                "both",
                [Attribute::int("axis", 1)],
            )
            .matmul("both", "y", &[7, 4])
            .output("y")
    };
    for second in ["meta", "deep"] {
        let found = verdict(two(second));
        assert!(found.dynamic_linear);
        let constants: Vec<&str> = found
            .constants
            .iter()
            .map(|c| c.constant.as_str())
            .collect();
        assert_eq!(constants, ["meta"]);
    }
    let alone = image("batch,2,6,6")
        .input("meta", bcosc_ir::DataType::Float, "batch,5")
        .matmul("meta", "y", &[5, 4])
        .op("Relu", &["x"], "z", [])
        .output("y")
        .output("z");
    assert_broken_by(alone, "y");
}
