//! Identity transposes, and pairs of transposes.
//!
//! With `y = Transpose <p> (x)`, axis `i` of `y` is axis `p[i]` of `x`. So after
//! `Transpose <q> (x)`, axis `i` is axis `q[p[i]]` of `x`.
//!
//! ```text
//! Transpose <perm = [0, 1, 2]> (x)       = x
//! Transpose <p> (Transpose <q> (x))      = Transpose <q[p]> (x)
//! ```

use bcosc_ir::{Graph, NodeId, Op, Patch};

use super::trivial::shape_of;
use crate::Reason;
use crate::canonical::worklist::Site;

pub(super) fn in_order(site: &Site<'_>) -> Result<Patch, Reason> {
    let perm = perm_of(site.graph, site.node, site.op)?;
    if !is_in_order(&perm) {
        return Err(Reason::Needed("it changes the order"));
    }
    site.bypass(site.input(0)?)
}

pub(super) fn twice(site: &Site<'_>) -> Result<Patch, Reason> {
    let Site {
        graph, node, op, ..
    } = *site;
    let (first, first_op) = graph
        .producer(site.input(0)?)
        .filter(|(_, op)| op.is("Transpose"))
        .ok_or(Reason::Needed("its input is not transposed"))?;
    let x = graph.input(first, 0).ok_or(Reason::Malformed)?;
    let (inner, outer) = (perm_of(graph, first, first_op)?, perm_of(graph, node, op)?);
    let perm = outer.iter().map(|&i| inner.get(i).copied());
    let perm = perm
        .collect::<Option<Vec<usize>>>()
        .ok_or(Reason::Malformed)?;
    if is_in_order(&perm) && site.bypass(x).is_ok() {
        return site.bypass(x);
    }
    let perm: Vec<i64> = perm.into_iter().map(|i| i as i64).collect();
    let mut patch = Patch::at(node);
    let merged = patch.op(
        Op::new("", "Transpose").with_ints("perm", &perm),
        &[x.into()],
    );
    patch.replace(site.output(), merged);
    Ok(patch)
}

fn is_in_order(perm: &[usize]) -> bool {
    perm.iter().copied().eq(0..perm.len())
}

/// The permutation; by default the axes are reversed.
fn perm_of(graph: &Graph, node: NodeId, op: &Op) -> Result<Vec<usize>, Reason> {
    let Some(perm) = op.get::<&[i64]>("perm") else {
        let x = graph.input(node, 0).ok_or(Reason::Malformed)?;
        return Ok((0..shape_of(graph, x)?.len()).rev().collect());
    };
    let perm: Option<Vec<usize>> = perm.iter().map(|&i| usize::try_from(i).ok()).collect();
    let perm = perm.ok_or(Reason::Malformed)?;
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if is_in_order(&sorted) {
        Ok(perm)
    } else {
        Err(Reason::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{Attribute, DataType, ModelBuilder};

    use super::super::{RULES, SIMPLIFY};
    use super::*;
    use crate::testing::{model, refusal, rewritten, text};

    fn transposed(perms: &[&[i64]]) -> bcosc_ir::Model {
        let start = ModelBuilder::new(17)
            .input("x", DataType::Float, "batch,2,3")
            .op("Neg", &["x"], "t0", []);
        let steps = perms.iter().enumerate();
        let builder = steps.fold(start, |builder, (i, perm)| {
            let perm = [Attribute::ints("perm", perm)];
            builder.op(
                "Transpose",
                &[&format!("t{i}")],
                &format!("t{}", i + 1),
                perm,
            )
        });
        let last = format!("t{}", perms.len());
        model(builder.op("Relu", &[&last], "y", []).output("y"))
    }

    #[test]
    fn two_become_one() {
        let before = transposed(&[&[1, 2, 0], &[0, 2, 1]]);
        insta::assert_snapshot!(text(&rewritten(&SIMPLIFY, &before)), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,2,3] x) => (y) {
           t0 = Neg (x)
           ["t2.transpose"] "t2.transpose" = Transpose <perm = [1, 0, 2]> (t0)  # from t2
           y = Relu ("t2.transpose")
        }
        "#);
    }

    #[test]
    fn two_that_undo_each_other_go() {
        let before = transposed(&[&[1, 2, 0], &[2, 0, 1], &[0, 1, 2]]);
        insta::assert_snapshot!(text(&rewritten(&SIMPLIFY, &before)), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,2,3] x) => (y) {
           t0 = Neg (x)
           y = Relu (t0)
        }
        "#);
    }

    #[test]
    fn one_alone_stays() {
        let reason = refusal(RULES, &transposed(&[&[1, 0, 2]]), "Transpose");
        assert_eq!(reason, Reason::Needed("it changes the order"));
    }
}
