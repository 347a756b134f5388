//! `simplify`: operators that do nothing go, and pairs that one operator can do become one.
//!
//! The table below reads like the algebra it is; each file proves its own lines.
//!
//! ```text
//! Identity (x)                          = x
//! Reshape (Reshape (x, s), t)           = Reshape (x, t)
//! Transpose <p> (Transpose <q> (x))     = Transpose <q[p]> (x)
//! Conv <pads = a> (Pad (x, b, 0), w)    = Conv <pads = a + b> (x, w)
//! ```

mod algebra;
mod casts;
mod padding;
mod strided;
mod transposes;
mod trivial;
mod views;

use bcosc_ir::Model;

use super::worklist::{Rule, apply_rules};
use crate::{Context, Effect, Outcome, Pass, PassError};

/// Removes and merges operators.
pub static SIMPLIFY: Pass = Pass {
    name: "simplify",
    summary: "remove operators that do nothing and merge neighbours",
    effect: Effect::Exact,
    requires: &[&crate::canonical::fold::FOLD_CONSTANTS],
    run: run,
};

fn run(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
    let mut outcome = Outcome::default();
    if !types_are_known(model) {
        cx.infer(model)?;
    }
    apply_rules(model, RULES, &mut outcome)?;
    Ok(outcome)
}

static RULES: &[Rule] = &[
    Rule {
        ops: &["Identity"],
        what: "removed: it does nothing",
        rewrite: trivial::identity,
    },
    Rule {
        ops: &["Dropout"],
        what: "removed: it does nothing when not training",
        rewrite: trivial::dropout,
    },
    Rule {
        ops: &["Concat", "Sum", "Mean", "Max", "Min"],
        what: "removed: it has one input",
        rewrite: trivial::one_input,
    },
    Rule {
        ops: &["Slice"],
        what: "removed: it takes everything",
        rewrite: trivial::slice,
    },
    Rule {
        ops: &["Expand"],
        what: "removed: it keeps the shape",
        rewrite: trivial::expand,
    },
    Rule {
        ops: &["Pad"],
        what: "removed: it pads by nothing",
        rewrite: padding::nothing,
    },
    Rule {
        ops: &["Pad"],
        what: "merged into what reads it",
        rewrite: padding::merge,
    },
    Rule {
        ops: &["Cast"],
        what: "removed: it keeps the type",
        rewrite: casts::same_type,
    },
    Rule {
        ops: views::OPS,
        what: "removed: it keeps the shape",
        rewrite: views::same_shape,
    },
    Rule {
        ops: views::OPS,
        what: "removed: it undoes what its input does",
        rewrite: views::back_again,
    },
    Rule {
        ops: &["Reshape"],
        what: "reads what its input reshapes",
        rewrite: views::reshape_of_view,
    },
    Rule {
        ops: &["Transpose"],
        what: "removed: it keeps the order",
        rewrite: transposes::in_order,
    },
    Rule {
        ops: &["Transpose"],
        what: "merged with the Transpose before it",
        rewrite: transposes::twice,
    },
    Rule {
        ops: &["Gather"],
        what: "removed: it gathers everything in order",
        rewrite: strided::in_order,
    },
    Rule {
        ops: &["Add", "Sub", "Mul", "Div"],
        what: "removed: its constant changes nothing",
        rewrite: algebra::neutral,
    },
    Rule {
        ops: &["Conv", "ConvTranspose", "Gemm"],
        what: "its bias is zero and goes",
        rewrite: algebra::zero_bias,
    },
];

fn types_are_known(model: &Model) -> bool {
    model
        .graph
        .unordered()
        .filter(|&id| model.graph.op(id).is_some())
        .all(|id| {
            let value = model.graph.output(id, 0);
            model
                .graph
                .value_type(value)
                .is_some_and(|t| t.shape.is_some())
        })
}
