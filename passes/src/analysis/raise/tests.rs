use bcosc_ir::{Attribute, ModelBuilder, Tensor};

use super::*;
use crate::testing::{Layers, image, inferred};

fn raised(builder: ModelBuilder) -> (Vec<(Kind, String)>, Vec<String>) {
    let model = inferred(builder);
    let graph = &model.graph;
    let raised = Raised::of(graph);
    let composites = raised.composites.iter();
    let composites = composites.map(|c| (c.kind, graph.value_name(c.out).to_owned()));
    let left = raised.unrecognised.iter();
    let left = left.map(|u| graph.value_name(graph.output(u.node, 0)).to_owned());
    (composites.collect(), left.collect())
}

fn number(builder: ModelBuilder, name: &str, x: f32) -> ModelBuilder {
    builder.param(name, Tensor::f32s(&[], vec![x]))
}

fn mean(builder: ModelBuilder, x: &str, y: &str) -> ModelBuilder {
    let axes = vec![Attribute::ints("axes", &[-1])];
    builder.op("ReduceMean", &[x], y, axes)
}

/// A layer norm in single operators; `centre` is what the variance is taken of.
fn layer_norm(centre: &str) -> ModelBuilder {
    let builder = mean(image("batch,4").matmul("x", "a", &[4, 4]), "a", "mean");
    let builder = builder.op("Sub", &["a", "mean"], "c", []);
    let builder = number(builder, "two", 2.0).op("Pow", &[centre, "two"], "squares", []);
    let builder = mean(builder, "squares", "var");
    number(builder, "eps", 1e-5)
        .op("Add", &["var", "eps"], "power", [])
        .op("Sqrt", &["power"], "deviation", [])
        .op("Div", &["c", "deviation"], "y", [])
        .output("y")
}

/// Reading the formulas panics where one is malformed.
#[test]
fn the_library_has_an_entry_for_every_root() {
    let library = Library::standard();
    assert!(library.ending_in("Softmax").next().is_none());
    assert!(
        library
            .ending_in("Div")
            .any(|entry| entry.kind == Kind::LayerNorm)
    );
}

#[test]
fn a_decomposed_layer_norm() {
    assert_eq!(
        raised(layer_norm("c")),
        (vec![(Kind::LayerNorm, "y".to_owned())], vec![])
    );
}

#[test]
fn a_norm_with_the_power_of_something_else_is_none() {
    let (found, left) = raised(layer_norm("a"));
    assert_eq!(found, []);
    assert_eq!(left, ["deviation"]);
}

#[test]
fn what_stops_the_nearest_match_is_named() {
    let model = inferred(layer_norm("a"));
    let graph = &model.graph;
    let raised = Raised::of(graph);
    let nearest = raised.unrecognised[0].nearest;
    let nearest = nearest.map(|(kind, node)| (kind, graph.label(node)));
    assert_eq!(nearest, Some((Kind::LayerNorm, "a".to_owned())));
}

/// GELU as x * 0.5 * (1 + erf(x / root)), in an order of factors.
fn gelu(order: [&str; 3], root: f32) -> ModelBuilder {
    let builder = image("batch,4").matmul("x", "a", &[4, 4]);
    let builder = number(
        number(number(builder, "root", root), "one", 1.0),
        "half",
        0.5,
    );
    builder
        .op("Div", &["a", "root"], "tilted", [])
        .op("Erf", &["tilted"], "erf", [])
        .op("Add", &["one", "erf"], "twice", [])
        .op("Mul", &[order[0], order[1]], "m", [])
        .op("Mul", &["m", order[2]], "y", [])
        .output("y")
}

#[test]
fn a_gelu_with_factors_in_any_order() {
    let orders = [
        ["a", "half", "twice"],
        ["twice", "a", "half"],
        ["half", "twice", "a"],
    ];
    for order in orders {
        let (found, left) = raised(gelu(order, std::f32::consts::SQRT_2));
        assert_eq!(found, [(Kind::Gelu, "y".to_owned())], "{order:?}");
        assert_eq!(left, [""; 0]);
    }
}

#[test]
fn an_error_function_with_another_slope_is_no_gelu() {
    let (found, left) = raised(gelu(["a", "half", "twice"], 1.5));
    assert_eq!((found, left), (vec![], vec!["erf".to_owned()]));
}

#[test]
fn casts_and_identities_lie_between() {
    let builder = image("batch,4")
        .matmul("x", "a", &[4, 4])
        .op("Identity", &["a"], "same", [])
        .op("Sigmoid", &["same"], "s", [])
        .op("Identity", &["s"], "gate", [])
        .op("Mul", &["gate", "a"], "y", [])
        .output("y");
    assert_eq!(raised(builder).0, [(Kind::Silu, "y".to_owned())]);
}

#[test]
fn a_sigmoid_of_something_else_is_a_gate() {
    let builder = image("batch,2,4,4")
        .op("GlobalAveragePool", &["x"], "pooled", [])
        .conv("pooled", "votes", &[2, 2, 1, 1], vec![])
        .op("Sigmoid", &["votes"], "gate", [])
        .op("Mul", &["x", "gate"], "y", [])
        .output("y");
    assert_eq!(raised(builder).0, [(Kind::SigmoidGate, "y".to_owned())]);
}

#[test]
fn operators_stand_for_themselves() {
    let builder = image("batch,4")
        .matmul("x", "a", &[4, 4])
        .op("HardSwish", &["a"], "y", [])
        .output("y");
    assert_eq!(raised(builder).0, [(Kind::HardSwish, "y".to_owned())]);
}

#[test]
fn formulas_that_cannot_be_read_say_where() {
    let error = |text: &str| formula::read(text).map(|_| ()).map_err(|e| e.to_string());
    assert_eq!(
        error("a = Mul(x, "),
        Err("formula `a`: expected a name or a number at \"\"".to_owned())
    );
    assert_eq!(
        error("a = b(x)"),
        Err("formula `a`: undefined formula at \"\"".to_owned())
    );
    assert_eq!(
        error("a = Relu(x) Relu(x)"),
        Err("formula `a`: unexpected text at \"Relu(x)\"".to_owned())
    );
}
