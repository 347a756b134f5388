//! `simplify`: removes operators without effect and merges pairs of operators.
//!
//! The rules; each is tested in its file:
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
use bcosc_ir::ops::Trait;

use super::worklist::{Ops, Rule, apply_rules};
use crate::{Context, Effect, Outcome, Pass, PassError};

/// The pass.
pub static SIMPLIFY: Pass = Pass {
    name: "simplify",
    summary: "remove operators without effect and merge adjacent ones",
    effect: Effect::Exact,
    requires: &[&crate::canonical::fold::FOLD_CONSTANTS],
    run,
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
        ops: Ops::Named(&["Identity"]),
        what: "removed: no effect",
        rewrite: trivial::identity,
    },
    Rule {
        ops: Ops::Named(&["Dropout"]),
        what: "removed: no effect in inference",
        rewrite: trivial::dropout,
    },
    Rule {
        ops: Ops::Named(&["Concat", "Sum", "Mean", "Max", "Min"]),
        what: "removed: single input",
        rewrite: trivial::one_input,
    },
    Rule {
        ops: Ops::Named(&["Slice"]),
        what: "removed: it slices the whole tensor",
        rewrite: trivial::slice,
    },
    Rule {
        ops: Ops::Named(&["Expand"]),
        what: "removed: it keeps the shape",
        rewrite: trivial::expand,
    },
    Rule {
        ops: Ops::Named(&["Pad"]),
        what: "removed: it adds no padding",
        rewrite: padding::nothing,
    },
    Rule {
        ops: Ops::Named(&["Pad"]),
        what: "merged into its consumer",
        rewrite: padding::merge,
    },
    Rule {
        ops: Ops::Named(&["Cast"]),
        what: "removed: it keeps the type",
        rewrite: casts::same_type,
    },
    Rule {
        ops: Ops::Having(Trait::View),
        what: "removed: it keeps the shape",
        rewrite: views::same_shape,
    },
    Rule {
        ops: Ops::Having(Trait::View),
        what: "removed: it reverts its input",
        rewrite: views::back_again,
    },
    Rule {
        ops: Ops::Named(&["Reshape"]),
        what: "bypasses the reshape of its input",
        rewrite: views::reshape_of_view,
    },
    Rule {
        ops: Ops::Named(&["Transpose"]),
        what: "removed: it keeps the order",
        rewrite: transposes::in_order,
    },
    Rule {
        ops: Ops::Named(&["Transpose"]),
        what: "merged with the Transpose before it",
        rewrite: transposes::twice,
    },
    Rule {
        ops: Ops::Named(&["Gather"]),
        what: "removed: it gathers everything in order",
        rewrite: strided::in_order,
    },
    Rule {
        ops: Ops::Named(&["Add", "Sub", "Mul", "Div"]),
        what: "removed: its constant has no effect",
        rewrite: algebra::neutral,
    },
    Rule {
        ops: Ops::Named(&["Conv", "ConvTranspose", "Gemm"]),
        what: "removed the zero bias",
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
