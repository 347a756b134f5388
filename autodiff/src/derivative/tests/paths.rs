//! What gradients flow through, and what they must not leave out.

use bcosc_ir::{Attribute, Model, Tensor, Value};
use bcosc_passes::{PassError, Reason};
use bcosc_testing::{inferred, input, weight};

use super::super::gradients;

/// The gradients of `y` with respect to inputs, for the cotangent `y`.
fn found(builder: bcosc_ir::ModelBuilder, wrt: &[&str]) -> Result<Vec<Option<Value>>, Reason> {
    let mut model: Model = inferred(builder.output("y"));
    let y = model.graph.outputs()[0].value;
    let wrt = wrt.iter().map(|name| model.graph.value_named(name));
    let wrt: Vec<Value> = wrt.map(Option::unwrap).collect();
    match gradients(&mut model, &[(y, y)], &wrt) {
        Ok(found) => Ok(found),
        Err(PassError::Unsupported { reason, .. } | PassError::Model(reason)) => Err(reason),
        Err(other) => panic!("{other}"),
    }
}

fn is_left_out(builder: bcosc_ir::ModelBuilder) {
    assert_eq!(found(builder, &["x"]), Ok(vec![None]));
}

#[test]
fn nothing_flows_through_steps() {
    for op in ["Ceil", "Floor", "Hardmax", "Round", "Sign"] {
        is_left_out(input(18, "2,3").op(op, &["x"], "y", []));
    }
    let cast = |to: i64| vec![Attribute::int("to", to)];
    for dtype in [bcosc_ir::DataType::Int64, bcosc_ir::DataType::Bool] {
        let integer = input(18, "2,3").op("Cast", &["x"], "i", cast(dtype.to_i32().into()));
        is_left_out(integer.op("Cast", &["i"], "y", cast(1)));
    }
    let compared = input(18, "2,3")
        .param("zero", Tensor::f32s(&[], vec![0.0]))
        .param("c", weight(0, &[2, 3]))
        .op("Greater", &["x", "zero"], "g", []);
    is_left_out(compared.op("Where", &["g", "c", "zero"], "y", []));
    let placed = input(18, "2,3").param("table", weight(0, &[3, 4])).op(
        "ArgMax",
        &["x"],
        "i",
        vec![Attribute::int("axis", 1)],
    );
    is_left_out(placed.op("Gather", &["table", "i"], "y", []));
    is_left_out(input(18, "3,3").op("EyeLike", &["x"], "y", []));
    let typed = input(19, "2,3").param("c", weight(0, &[2, 3]));
    is_left_out(typed.op("CastLike", &["c", "x"], "y", []));
    let sized = input(18, "batch,3")
        .param("c", weight(0, &[1, 3]))
        .op("Shape", &["x"], "s", []);
    is_left_out(sized.op("Expand", &["c", "s"], "y", []));
}

#[test]
fn an_operand_without_a_rule_is_refused() {
    let scales = input(18, "1,2,4,4").param("scales", Tensor::f32s(&[4], vec![1.0, 1.0, 2.0, 2.0]));
    let resized = scales.op("Resize", &["x", "", "scales"], "y", []);
    assert_eq!(
        found(resized, &["x", "scales"]),
        Err(Reason::NoBackwardRuleOf("scales".to_owned()))
    );
    let grid = input(18, "1,2,4,4").input("grid", bcosc_ir::DataType::Float, "1,3,3,2");
    let sampled = || grid.clone().op("GridSample", &["x", "grid"], "y", []);
    assert_eq!(
        found(sampled(), &["x", "grid"]),
        Err(Reason::NoBackwardRuleOf("grid".to_owned()))
    );
    assert!(matches!(found(sampled(), &["x"]), Ok(grads) if grads[0].is_some()));
}

#[test]
fn a_form_without_a_rule_is_refused() {
    let operands = |builder: bcosc_ir::ModelBuilder| {
        builder
            .param("i", Tensor::i64s(&[1, 3], vec![1, 0, 1]))
            .param("u", weight(0, &[1, 3]))
    };
    for reduction in ["mul", "max", "min"] {
        let attribute = vec![Attribute::string("reduction", reduction)];
        let builder = operands(input(18, "2,3"));
        let scattered = builder.op("ScatterElements", &["x", "i", "u"], "y", attribute);
        for wrt in ["x", "u"] {
            assert!(matches!(
                found(scattered.clone(), &[wrt]),
                Err(Reason::NoBackwardRuleFor(_))
            ));
        }
    }
    let training = input(18, "2,3")
        .param("ratio", Tensor::f32s(&[], vec![0.5]))
        .param(
            "training",
            Tensor::from_bytes(bcosc_ir::DataType::Bool, &[], vec![1].into()),
        )
        .op("Dropout", &["x", "ratio", "training"], "y", []);
    assert_eq!(found(training, &["x"]), Err(Reason::Training));
    let product = input(18, "2,3").op("Det", &["x"], "y", []);
    assert_eq!(found(product, &["x"]), Err(Reason::NoBackwardRule));
}

/// A statistic that something else reads is a path that the rule of the norm does not follow.
#[test]
fn a_second_output_that_is_used_is_refused() {
    let builder = input(18, "2,3")
        .param("g", weight(0, &[3]))
        .op("LayerNormalization", &["x", "g"], "n, mean", [])
        .op("Mul", &["n", "mean"], "y", []);
    assert_eq!(
        found(builder, &["x"]),
        Err(Reason::NoBackwardRuleFor("its second output"))
    );
}
