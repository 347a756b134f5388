//! The register of operators.

use bcosc_ir::ops::{self, Arity, Formal, Literal, NEWEST, OLDEST, Trait};
use bcosc_ir::{Attribute, Op};
use proptest::prelude::*;

fn op(name: &str) -> Op {
    Op::new("", name)
}

#[test]
fn operators_are_in_order_and_each_is_found() {
    let names: Vec<&str> = ops::all().map(|operator| operator.name).collect();
    assert!(names.is_sorted_by(|a, b| a < b));
    for name in names {
        assert_eq!(ops::find(name).map(|found| found.name), Some(name));
    }
}

#[test]
fn forms_are_in_order_and_begin_at_a_change() {
    for operator in ops::all() {
        let name = operator.name;
        let (versions, forms) = (operator.since_versions, operator.schemas());
        assert!(versions.is_sorted_by(|a, b| a < b), "{name}");
        assert!(forms.is_sorted_by(|a, b| a.since < b.since), "{name}");
        assert!(versions.iter().all(|v| (1..=NEWEST).contains(v)), "{name}");
        assert!(forms.iter().all(|f| versions.contains(&f.since)), "{name}");
        let superseded = forms.get(1).is_some_and(|second| second.since <= OLDEST);
        assert!(!superseded, "{name} has a form that no model uses");
    }
}

#[test]
fn inputs_and_outputs_are_declared_as_onnx_has_them() {
    for operator in ops::all() {
        for form in operator.schemas() {
            for formals in [
                form.inputs().collect::<Vec<_>>(),
                form.outputs().collect::<Vec<_>>(),
            ] {
                let variadic = formals.iter().position(|f| f.arity == Arity::Variadic);
                assert!(
                    variadic.is_none_or(|at| at + 1 == formals.len()),
                    "{}",
                    operator.name
                );
            }
        }
    }
    let formal = |name, arity| Formal { name, arity };
    let inputs = |name, opset| -> Vec<Formal> {
        let found = ops::find(name).map(|operator| operator.schema(opset));
        found.map(|f| f.inputs().collect()).unwrap_or_default()
    };
    let (a, b) = (formal("A", Arity::Single), formal("B", Arity::Single));
    assert_eq!(inputs("Gemm", 9), [a, b, formal("C", Arity::Single)]);
    assert_eq!(inputs("Gemm", 11), [a, b, formal("C", Arity::Optional)]);
    assert_eq!(inputs("Concat", 13), [formal("inputs", Arity::Variadic)]);
}

#[test]
fn a_form_holds_until_the_next_one() {
    let axes = |name, opset| {
        let form = ops::find(name).map(|operator| operator.schema(opset));
        form.map(|f| (f.attribute("axes").is_some(), f.input("axes")))
    };
    assert_eq!(axes("ReduceSum", 12), Some((true, None)));
    assert_eq!(axes("ReduceSum", 13), Some((false, Some(1))));
    assert_eq!(axes("ReduceMean", 17), Some((true, None)));
    assert_eq!(axes("ReduceMean", 18), Some((false, Some(1))));
    // Opsets that no model has.
    assert_eq!(axes("ReduceMean", i64::MAX), Some((false, Some(1))));
    assert_eq!(axes("ReduceMean", i64::MIN), Some((true, None)));
}

#[test]
fn deprecated_forms_are_known_as_such() {
    let deprecated = ops::all().filter(|operator| operator.newest().deprecated);
    let names: Vec<&str> = deprecated.map(|operator| operator.name).collect();
    assert_eq!(names, ["Scatter", "Upsample"]);
}

#[test]
fn an_attribute_that_is_left_out_has_its_default() {
    assert_eq!(op("LeakyRelu").get("alpha"), Some(0.01_f32));
    assert_eq!(op("Gemm").get("transB"), Some(false));
    assert_eq!(op("Concat").get::<i64>("axis"), None);
    assert_eq!(op("Conv").get("auto_pad"), Some("NOTSET"));
    let axes: Option<&[i64]> = Some(&[0, 2, 3]);
    assert_eq!(op("MeanVarianceNormalization").get("axes"), axes);
    assert_eq!(op("BatchNormalization").get("epsilon"), Some(1e-5_f32));
    // Only one form of it has this attribute.
    assert_eq!(op("BatchNormalization").get("spatial"), Some(1_i64));
}

#[test]
fn an_attribute_that_is_there_counts_if_it_has_the_type() {
    let given = op("LeakyRelu").with_float("alpha", 0.5);
    assert_eq!(given.get("alpha"), Some(0.5_f32));
    assert_eq!(given.get::<i64>("alpha"), None);
    assert_eq!(given.get_at("alpha", 16), Some(0.5_f32));
    let custom = Op::new("com.acme", "LeakyRelu");
    assert_eq!(custom.get::<f32>("alpha"), None);
    assert_eq!(custom.with_float("alpha", 0.5).get("alpha"), Some(0.5_f32));
    let empty = op("Conv").with(Attribute::ints("pads", &[]));
    let nothing: Option<&[i64]> = Some(&[]);
    assert_eq!(empty.get("pads"), nothing);
    assert_eq!(empty.get::<i64>("pads"), None);
}

#[test]
fn a_default_that_changed_needs_the_opset() {
    let mut changed = Vec::new();
    for operator in ops::all() {
        for form in operator.schemas() {
            for attribute in form.attributes.iter().filter(|a| a.default.is_some()) {
                if operator.default(attribute.name).is_none() {
                    changed.push((operator.name, attribute.name));
                }
            }
        }
    }
    changed.dedup();
    let axis = |name| (name, "axis");
    assert_eq!(
        changed,
        [
            ("GridSample", "mode"),
            axis("Hardmax"),
            axis("LogSoftmax"),
            axis("Softmax"),
        ]
    );
    assert_eq!(op("Softmax").get::<i64>("axis"), None);
    assert_eq!(op("Softmax").get_at("axis", 12), Some(1_i64));
    assert_eq!(op("Softmax").get_at("axis", 13), Some(-1_i64));
}

#[test]
fn defaults_have_the_type_of_their_attribute() {
    use ops::AttributeKind as Kind;
    for operator in ops::all() {
        for attribute in operator.schemas().iter().flat_map(|form| form.attributes) {
            let fits = match attribute.default {
                None => true,
                Some(Literal::Float(_)) => attribute.kind == Kind::Float,
                Some(Literal::Int(_)) => attribute.kind == Kind::Int,
                Some(Literal::String(_)) => attribute.kind == Kind::String,
                Some(Literal::Ints(_)) => attribute.kind == Kind::Ints,
                Some(Literal::Strings(_)) => attribute.kind == Kind::Strings,
            };
            let one = !(attribute.required && attribute.default.is_some());
            assert!(fits && one, "{} of {}", attribute.name, operator.name);
        }
    }
}

#[test]
fn traits_are_of_standard_operators() {
    assert!(op("Reshape").has(Trait::View));
    assert!(op("Reshape").has_any(&[Trait::Norm, Trait::View]));
    assert!(!Op::new("com.acme", "Reshape").has(Trait::View));
    assert!(!op("Reshape").has(Trait::Norm));
    let views: Vec<&str> = ops::having(Trait::View).collect();
    assert_eq!(views, ["Flatten", "Reshape", "Squeeze", "Unsqueeze"]);
}

/// A name, often of an operator.
fn names() -> impl Strategy<Value = String> {
    let known: Vec<String> = ops::all().map(|o| o.name.to_owned()).collect();
    prop_oneof![".*", prop::sample::select(known)]
}

proptest! {
    #[test]
    fn nothing_that_is_asked_for_panics(
        name in names(),
        domain in prop_oneof![Just(String::new()), ".*"],
        attribute in prop_oneof![".*", Just("axis".to_owned()), Just("axes".to_owned())],
        opset in any::<i64>(),
    ) {
        let op = Op::new(&domain, &name);
        let known = op.operator().map(|operator| operator.name);
        prop_assert_eq!(known, ops::find(&name).filter(|_| op.domain().is_empty()).map(|o| o.name));
        if let Some(operator) = op.operator() {
            let form = operator.schema(opset);
            prop_assert!(form.since <= opset || form.since == operator.schemas()[0].since);
            prop_assert_eq!(form.input(&attribute).is_some(), form.inputs().any(|i| i.name == attribute));
        }
        let _ = (op.get::<i64>(&attribute), op.get_at::<f32>(&attribute, opset));
        let _ = (op.get::<&[i64]>(&attribute), op.get_at::<&str>(&attribute, opset));
        let _ = (op.get::<bool>(&attribute), op.has(Trait::Norm));
    }
}
