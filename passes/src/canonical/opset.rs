//! Upgrading the model's opset.
//!
//! Between opsets, attributes of operators become inputs, defaults change, or operators are replaced. Each
//! change is one row of `rules::RULES`; a node is rewritten by every row between the model's opset and the
//! requested one, oldest first. Downgrading is not supported.

mod rules;
mod softmax;
#[cfg(test)]
mod tests;

use bcosc_ir::ops::NEWEST;
use bcosc_ir::{Graph, Model, Op};

pub use rules::Rule;

use crate::{Context, Effect, Outcome, Pass, PassError, Reason};
use rules::Change;

/// The pass.
pub static RAISE_OPSET: Pass = Pass {
    name: "raise-opset",
    summary: "with --opset: upgrade operators to the requested opset",
    effect: Effect::Exact,
    requires: &[],
    run,
};

fn run(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
    let mut outcome = Outcome::default();
    let (from, to) = match (model.opset(""), cx.settings.opset) {
        (Some(from), Some(to)) => (from, to),
        _ => return Ok(outcome),
    };
    if to == from {
        return Ok(outcome);
    }
    if to < from || to > NEWEST {
        return Err(PassError::Model(Reason::OpsetOutOfRange {
            from,
            to,
            newest: NEWEST,
        }));
    }
    cx.infer(model)?;
    for rule in rules::RULES
        .iter()
        .filter(|rule| from < rule.since && rule.since <= to)
    {
        for node in model.graph.ops() {
            let graph = &model.graph;
            let Some(op) = graph.op(node) else { continue };
            if op.subgraphs().any(|body| contains(body, rule.op)) {
                return Err(PassError::unsupported(
                    model,
                    node,
                    Reason::OldSubgraph(rule.op),
                ));
            }
            if !op.is(rule.op) {
                continue;
            }
            let rewritten = match rule.change {
                Change::Rewrite(rewrite) => rewrite(graph, node),
                Change::Refused(why) => Err(Reason::NoRewrite(why)),
            };
            match rewritten {
                Ok(None) => {}
                Ok(Some(patch)) => {
                    outcome.changed(
                        graph.label(node),
                        format!("{} as of opset {}", rule.op, rule.since),
                    );
                    model.graph.apply(patch)?;
                }
                Err(reason) => return Err(PassError::unsupported(model, node, reason)),
            }
        }
    }
    model.set_opset("", to);
    model.set_ir_version(model.ir_version().max(ir_version(to)));
    outcome.changed(model.graph.name(), format!("opset {from} raised to {to}"));
    Ok(outcome)
}

/// What changed between opsets, oldest first.
pub fn changes() -> &'static [Rule] {
    rules::RULES
}

fn contains(graph: &Graph, op_type: &str) -> bool {
    let mut ops = graph.unordered().filter_map(|id| graph.op(id));
    ops.any(|op: &Op| op.is(op_type) || op.subgraphs().any(|body| contains(body, op_type)))
}

/// The file format version that came with an opset, from the ONNX release table.
fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=8 => 3,
        9 => 4,
        10 => 5,
        11 => 6,
        12..=14 => 7,
        15..=18 => 8,
        19 | 20 => 9,
        21 | 22 => 10,
        23 => 11,
        24 => 12,
        25..=27 => 13,
        _ => 14,
    }
}
