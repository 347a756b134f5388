//! Replaces `CastLike` by `Cast`: only the type of the second operand matters.
//!
//! ```text
//! y = CastLike (c, x)
//! y = Cast <to = 1> (c)
//! ```

use bcosc_ir::{Model, Op, Patch};

use crate::canonical::worklist::{Ops, Rule, Site, apply_rules};
use crate::{Outcome, PassError, Reason};

static RULES: &[Rule] = &[Rule {
    ops: Ops::Named(&["CastLike"]),
    what: "replaced by Cast",
    rewrite: cast,
}];

pub(super) fn resolve(model: &mut Model, outcome: &mut Outcome) -> Result<(), PassError> {
    apply_rules(model, RULES, outcome)
}

fn cast(site: &Site<'_>) -> Result<Patch, Reason> {
    let x = site.input(0)?;
    let like = site.input(1)?;
    let name = || site.graph.value_name(like).to_owned();
    let dtype = site.graph.value_type(like).map(|t| t.dtype);
    let dtype = dtype.ok_or_else(|| Reason::UnknownShape(name()))?;
    if site.graph.value_type(x).is_some_and(|t| t.dtype == dtype) {
        return site.bypass(x);
    }
    let mut op = Op::new("", "Cast").with_int("to", dtype.to_i32().into());
    // Both operators treat values out of range alike.
    for attribute in site.op.attributes() {
        op.set(attribute.clone());
    }
    let mut patch = Patch::at(site.node);
    let cast = patch.op(op, &[x.into()]);
    patch.replace(site.output(), cast);
    Ok(patch)
}
