use bcosc_ir::{Attribute, Tensor};

use super::{NOT_IN_DOUBLE, OPEN, SIZED};
use crate::testing::{Law, backward, holds, holds_in_single};
use bcosc_testing::{input, model, weight};

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
        holds(op, law, input(18, OPEN).op(op, &["x"], "y", []));
    }
    for op in ["HardSwish", "LeakyRelu"] {
        let builder = input(18, OPEN).op(op, &["x"], "y", []);
        holds_in_single(op, Law::Dynamic, builder, NOT_IN_DOUBLE);
    }
    let slope = input(18, SIZED).param("slope", weight(0, &[4, 1, 1]));
    holds(
        "PRelu",
        Law::Piecewise,
        slope.op("PRelu", &["x", "slope"], "y", []),
    );
    let clip = input(18, OPEN)
        .param("low", Tensor::f32s(&[], vec![-0.5]))
        .param("high", Tensor::f32s(&[], vec![0.25]))
        .op("Clip", &["x", "low", "high"], "y", []);
    holds("Clip", Law::Dynamic, clip);
    let power = input(18, OPEN).param("e", Tensor::f32s(&[], vec![3.0]));
    holds("Pow", Law::Dynamic, power.op("Pow", &["x", "e"], "y", []));
    for approximate in ["none", "tanh"] {
        let attribute = vec![Attribute::string("approximate", approximate)];
        let builder = input(20, OPEN);
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
        "LpNormalization",
    ] {
        let (_, both) = backward(
            op,
            model(input(18, "2").op(op, &["x"], "y", []).output("y")),
        );
        let zeros = Tensor::f32s(&[2], vec![0.0; 2]);
        let ones = Tensor::f32s(&[2], vec![1.0; 2]);
        let inputs = [("x".to_owned(), zeros), ("s".to_owned(), ones)].into();
        let found = bcosc_ir::Interpreter::run(bcosc_engine::default_interpreter(), &both, &inputs);
        let dx = found.ok().and_then(|mut o| o.remove("dx")?.to_f32s().ok());
        assert!(
            dx.is_some_and(|dx| dx.iter().all(|x| x.is_finite())),
            "{op}"
        );
    }
}
