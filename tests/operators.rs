//! Checks the operator tables of the stages against the register and one another, and generates
//! `docs/operators.md`.
//!
//! `BCOSC_UPDATE_DOCS=1 cargo test --test operators` updates that page.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use bcosc_autodiff::{derivative, detached};
use bcosc_ir::ops::{self, Arity, Operator, Schema, Trait};
use bcosc_passes::analysis::layers;
use bcosc_passes::analysis::linearity::{self, Rule};
use bcosc_passes::canonical::opset;

/// Linear operators without a backward rule, and why.
const WITHOUT_BACKWARD_RULE: &[(&str, &str)] = &[];

fn linearity() -> BTreeMap<&'static str, Rule> {
    linearity::operators().collect()
}

/// Whether an operator with a row of this rule can have a linear output.
fn is_linear(rule: Rule) -> bool {
    rule != Rule::ShapeOnly
}

#[test]
fn every_table_speaks_of_standard_operators() {
    let linearity = linearity::operators().map(|(name, _)| name);
    let opset = opset::changes().iter().map(|change| change.op);
    let backward = detached::operators().chain(derivative::operators());
    let backward = backward.chain(derivative::flat());
    for name in linearity.chain(backward).chain(opset) {
        assert!(
            ops::find(name).is_some(),
            "{name} is not a standard operator"
        );
    }
}

#[test]
fn linear_operators_have_backward_rules_and_no_others_do() {
    let backward: BTreeSet<&str> = detached::operators().collect();
    let linear: BTreeSet<&str> = linearity::operators()
        .filter(|(_, rule)| is_linear(*rule))
        .map(|(name, _)| name)
        .collect();
    let missing: Vec<&str> = linear.difference(&backward).copied().collect();
    let exempt: Vec<&str> = WITHOUT_BACKWARD_RULE
        .iter()
        .map(|(name, _)| *name)
        .collect();
    assert_eq!(
        missing, exempt,
        "in linearity/rules.rs, but not in autodiff/src/detached.rs or transpose.rs"
    );
    let idle: Vec<&str> = backward.difference(&linear).copied().collect();
    assert!(
        idle.is_empty(),
        "in autodiff/src/detached.rs or transpose.rs, but not in linearity/rules.rs: {idle:?}"
    );
}

#[test]
fn what_can_be_explained_can_be_trained() {
    let trained: BTreeSet<&str> = derivative::operators().collect();
    let explained: BTreeSet<&str> = detached::operators().collect();
    let missing: Vec<_> = explained.difference(&trained).collect();
    assert!(
        missing.is_empty(),
        "not in autodiff/src/derivative.rs: {missing:?}"
    );
    let flat = derivative::flat().filter(|name| trained.contains(name));
    assert_eq!(flat.count(), 0, "flat, with a derivative rule");
}

#[test]
fn linearity_agrees_with_the_traits() {
    let rules = linearity();
    for operator in ops::all() {
        let name = operator.name;
        let has = |wanted: Trait| ops::having(wanted).any(|n| n == name);
        assert!(
            !has(Trait::ShapeOnly) || has(Trait::Random) || rules.contains_key(name),
            "{name} is not in linearity/rules.rs"
        );
        let Some(rule) = rules.get(name).copied() else {
            continue;
        };
        let fits = |wanted: Trait, holds: bool| {
            assert!(
                !has(wanted) || holds,
                "{name}: {rule:?} in linearity/rules.rs, but {wanted:?} in ir/src/ops/traits.rs"
            );
        };
        fits(Trait::Structural, matches!(rule, Rule::Linear | Rule::Sum));
        fits(Trait::Cast, rule == Rule::Linear);
        fits(Trait::ShapeOnly, rule == Rule::ShapeOnly);
        fits(Trait::Norm, matches!(rule, Rule::Norm { .. }));
        fits(Trait::Weights, rule == Rule::Product);
        fits(Trait::Random, false);
        fits(Trait::Quantised, false);
        let gate = matches!(rule, Rule::Gate { .. });
        assert!(
            !gate || has(Trait::Elementwise),
            "{name}: a gate in linearity/rules.rs, but not Elementwise in ir/src/ops/traits.rs"
        );
    }
}

#[test]
fn layers_are_operators_with_weights() {
    for name in layers::OPERATORS {
        assert!(ops::having(Trait::Weights).any(|n| n == *name), "{name}");
    }
}

/// Whether a node of an old form may mean something else, or nothing, in the next one.
fn is_broken_by(old: &Schema, new: &Schema) -> bool {
    let lost = old.attributes.iter().any(|before| {
        let after = new.attribute(before.name);
        after.is_none_or(|after| after.default != before.default)
    });
    let needed = new.attributes.iter().any(|after| {
        let before = old.attribute(after.name);
        after.required && !before.is_some_and(|before| before.required)
    });
    let single = |form: &Schema| form.inputs().filter(|i| i.arity == Arity::Single).count();
    let fewer_outputs = new.outputs().count() < old.outputs().count();
    let replaced = new.deprecated != old.deprecated;
    lost || needed || fewer_outputs || replaced || single(new) > single(old)
}

#[test]
fn every_change_that_breaks_nodes_has_an_opset_rule() {
    let ruled: BTreeSet<(&str, i64)> = opset::changes().iter().map(|c| (c.op, c.since)).collect();
    for operator in ops::all() {
        for forms in operator.schemas().windows(2) {
            let change = (operator.name, forms[1].since);
            let broken = is_broken_by(&forms[0], &forms[1]);
            assert!(
                !broken || ruled.contains(&change),
                "not in canonical/opset/rules.rs: {change:?}"
            );
        }
    }
    for (name, since) in ruled {
        let known = ops::find(name).is_some_and(|o| o.since_versions.contains(&since));
        assert!(known, "{name} did not change at opset {since}");
    }
}

const HEAD: &str = "\
# Operators

Support for each standard ONNX operator. This page is generated: `BCOSC_UPDATE_DOCS=1 cargo test --test operators`
updates it.

**Opsets**: the versions of the operator. Models of opset OLDEST to NEWEST can be converted.

**Convert**:

| | |
|---|---|
| B-cos layer | converted to a B-cos layer if its weights are constant, except queries, keys and values of attention |
| stays linear | has weights, but no B-cos form |
| unbiased | its bias is removed, unless `--biases keep` or `carry` is given |
| averaged | replaced by an average pool, unless `--keep-max-pool` is given |
| removed | no effect in inference |
| kept | unchanged |
| refused | quantised: convert the floating-point model, and quantise afterwards |

**Raise opset** (`--opset`): *yes* if nodes of all older versions can be upgraded, else the newest opset to which they
can be upgraded.

**Explain**:

| | |
|---|---|
| linear | linear in its data input |
| product | linear in one operand; the other is held fixed, or is a weight |
| gate | a factor times its input; the factor is held fixed |
| norm | the standard deviation is held fixed |
| attention | linear in the values; attention weights are held fixed |
| factor | not linear; can be a factor of another value, such as a gate |
| shape | depends on shapes only |
| not yet | linear, but without a backward rule |
| constant | has no inputs |
| no | random or quantised |

**Train**: *yes* if it has a derivative with respect to its floating-point operands, *zero* if nothing flows through it (its slope
is 0, or its output is not floating point), else *no*.

**Deploy** (`--deploy`): *fast form* if B-cos layers of this operator have a deploy form, *folded* if it is folded into such a
layer, otherwise no change.

| operator | opsets | convert | raise opset | explain | train | deploy |
|---|---|---|---|---|---|---|
";

fn convert(operator: &Operator) -> &'static str {
    let has = |wanted: Trait| ops::having(wanted).any(|name| name == operator.name);
    let biased = |slot| {
        matches!(
            slot,
            ops::Formal {
                name: "B" | "bias",
                ..
            }
        )
    };
    match operator.name {
        name if layers::OPERATORS.contains(&name) => "B-cos layer",
        _ if has(Trait::Quantised) => "refused",
        _ if has(Trait::Weights) => "stays linear",
        _ if has(Trait::Norm) && operator.newest().inputs().any(biased) => "unbiased",
        "GlobalMaxPool" | "MaxPool" => "averaged",
        _ if has(Trait::Copy) => "removed",
        _ => "kept",
    }
}

fn raise_opset(operator: &Operator) -> String {
    let changes = opset::changes().iter();
    let mut refused = changes.filter(|c| c.op == operator.name && c.obstacle().is_some());
    match refused.next() {
        Some(change) => format!("to {}", change.since - 1),
        None => "yes".to_owned(),
    }
}

fn explain(rule: Option<Rule>, operator: &Operator) -> &'static str {
    let name = operator.name;
    let exempt = WITHOUT_BACKWARD_RULE.iter().any(|(n, _)| *n == name);
    let has = |wanted: Trait| ops::having(wanted).any(|n| n == name);
    match rule {
        _ if exempt => "not yet",
        None if has(Trait::Random) || has(Trait::Quantised) => "no",
        None if operator.newest().inputs().next().is_none() => "constant",
        None | Some(Rule::Factor) => "factor",
        Some(Rule::ShapeOnly) => "shape",
        Some(Rule::Attention) => "attention",
        Some(Rule::Norm { .. }) => "norm",
        Some(Rule::Gate { .. }) => "gate",
        Some(Rule::Scaling | Rule::Product | Rule::Quotient) => "product",
        Some(
            Rule::Linear
            | Rule::Sum
            | Rule::Choice
            | Rule::Winner
            | Rule::WinnerOfAll
            | Rule::Written,
        ) => "linear",
    }
}

fn train(name: &str) -> &'static str {
    match name {
        _ if derivative::operators().any(|n| n == name) => "yes",
        _ if derivative::flat().any(|n| n == name) => "zero",
        _ => "no",
    }
}

fn deploy(name: &str) -> &'static str {
    match name {
        "Conv" => "fast form",
        "BatchNormalization" => "folded",
        _ => "",
    }
}

fn page() -> String {
    let rules = linearity();
    let head = HEAD.replace("OLDEST", &ops::OLDEST.to_string());
    let mut page = head.replace("NEWEST", &ops::NEWEST.to_string());
    for operator in ops::all() {
        let name = operator.name;
        let opsets: Vec<String> = operator.since_versions.iter().map(i64::to_string).collect();
        let (opsets, convert) = (opsets.join(", "), convert(operator));
        let (raise, explain) = (
            raise_opset(operator),
            explain(rules.get(name).copied(), operator),
        );
        let (train, deploy) = (train(name), deploy(name));
        // Writing to a text cannot fail.
        let _ = writeln!(
            page,
            "| {name} | {opsets} | {convert} | {raise} | {explain} | {train} | {deploy} |"
        );
    }
    page
}

#[test]
fn the_page_for_users_says_what_the_tables_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operators.md");
    let page = page();
    if std::env::var_os("BCOSC_UPDATE_DOCS").is_some() {
        if let Err(error) = std::fs::write(&path, &page) {
            panic!("{}: {error}", path.display());
        }
        return;
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written.replace('\r', "") == page,
        "docs/operators.md is not what the tables say: run BCOSC_UPDATE_DOCS=1 cargo test --test operators"
    );
}
