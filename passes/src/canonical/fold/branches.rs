//! Replaces an `If` with a constant condition by its branch.
//!
//! TorchScript exports `squeeze` of an axis of unknown size as such an `If`.
//!
//! ```text
//! y = If <then_branch = g1 () => (a) { a = Squeeze (x, {0}) }, else_branch = ...> ({true})
//! y = Squeeze (x, {0})
//! ```

use std::collections::BTreeMap;

use bcosc_ir::{Graph, Model, Node, NodeId, Op, Operand, ParameterData, Patch, Value};

use crate::canonical::constants;
use crate::canonical::worklist::{Site, can_stand_for};
use crate::{Outcome, PassError, Reason};

/// Inlines branches and returns how many.
pub(super) fn inline(model: &mut Model, outcome: &mut Outcome) -> Result<usize, PassError> {
    let mut count = 0;
    for node in model.graph.ops() {
        if !model.graph.contains(node) {
            continue;
        }
        let Some(site) = Site::new(model, node).filter(|site| site.op.is("If")) else {
            continue;
        };
        let label = model.graph.label(node);
        match branch(&site) {
            Ok(patch) => {
                outcome.changed(label, "replaced by its constant branch");
                model.graph.apply(patch)?;
                count += 1;
            }
            Err(reason) => outcome.skipped(label, reason),
        }
    }
    Ok(count)
}

fn branch(site: &Site<'_>) -> Result<Patch, Reason> {
    let condition = site.input(0)?;
    let name = || site.graph.value_name(condition).to_owned();
    let taken =
        constants::integer(site.graph, condition).ok_or_else(|| Reason::NotConstant(name()))?;
    let inner = branch_named(
        site.op,
        if taken != 0 {
            "then_branch"
        } else {
            "else_branch"
        },
    );
    let inner = inner.ok_or(Reason::Malformed)?;
    let outer: BTreeMap<&str, Value> = site
        .op
        .captures()
        .iter()
        .map(String::as_str)
        .zip(site.graph.captured_by(site.node))
        .collect();
    let mut patch = Patch::at(site.node);
    let mut known: BTreeMap<Value, Operand> = BTreeMap::new();
    for id in inner.nodes() {
        let operand = match inner.node(id) {
            Node::Op(op) => copy(&mut patch, inner, id, op, &known)?,
            Node::Parameter(parameter) => match &parameter.data {
                ParameterData::Dense(tensor) => patch.parameter(&inner.label(id), tensor.clone()),
                ParameterData::Sparse(_) => return Err(Reason::Sparse),
            },
            Node::Capture(label) => {
                Operand::Old(*outer.get(label.as_str()).ok_or(Reason::Malformed)?)
            }
            Node::Input(_) => return Err(Reason::Malformed),
        };
        for slot in 0..inner.output_count(id) {
            let operand = match operand {
                Operand::New { node, .. } => Operand::New { node, slot },
                old => old,
            };
            known.insert(inner.output(id, slot), operand);
        }
    }
    for (slot, output) in inner.outputs().iter().enumerate() {
        let old = site.graph.output(site.node, slot as u32);
        let new = *known.get(&output.value).ok_or(Reason::Malformed)?;
        match new {
            Operand::New { .. } => patch.replace(old, new),
            // A value that the branch passes through already has the right type.
            Operand::Old(value) => {
                can_stand_for(site.graph, old, value)?;
                patch.replace_retyped(old, value);
            }
        }
    }
    Ok(patch)
}

fn branch_named<'a>(op: &'a Op, name: &str) -> Option<&'a Graph> {
    let names = op.attributes().iter().map(bcosc_ir::Attribute::name);
    let mut branches = names.filter(|n| n.ends_with("_branch")).zip(op.subgraphs());
    branches.find(|(n, _)| *n == name).map(|(_, graph)| graph)
}

fn copy(
    patch: &mut Patch,
    inner: &Graph,
    id: NodeId,
    op: &Op,
    known: &BTreeMap<Value, Operand>,
) -> Result<Operand, Reason> {
    if op.subgraphs().next().is_some() {
        return Err(Reason::NestedGraph);
    }
    let operands = inner.inputs_of(id).into_iter().map(|value| match value {
        Some(value) => known
            .get(&value)
            .copied()
            .map(Some)
            .ok_or(Reason::Malformed),
        None => Ok(None),
    });
    let operands = operands.collect::<Result<Vec<_>, _>>()?;
    let named = |slot: &u32| !inner.value_name(inner.output(id, *slot)).is_empty();
    let outputs = (0..inner.output_count(id))
        .rev()
        .find(named)
        .map_or(1, |slot| slot + 1);
    Ok(patch.multi_op(op.clone(), &operands, outputs))
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{DataType, ModelBuilder, Tensor};
    use bcosc_testing::message::{branch, if_node, node, untyped};

    use super::super::FOLD_CONSTANTS;
    use super::*;
    use crate::testing::{apply, assert_same_function, model, reasons, text};

    fn start(dims: &str) -> ModelBuilder {
        ModelBuilder::new(17)
            .input("x", DataType::Float, dims)
            .param("axis", Tensor::i64_vec(&[1]))
            .op("Relu", &["x"], "r", [])
    }

    fn choice(builder: ModelBuilder, condition: &str) -> ModelBuilder {
        let squeezed = branch(vec![node("Squeeze", &["r", "axis"], &["a"])], &["a"]);
        let kept = branch(vec![node("Identity", &["r"], &["b"])], &["b"]);
        let choice = if_node(condition, untyped(squeezed), untyped(kept), "y");
        builder.node(choice).output("y")
    }

    /// `squeeze` as exported by TorchScript: removes the axis if its size is 1.
    fn squeeze(dims: &str) -> ModelBuilder {
        let builder = start(dims)
            .param("one", Tensor::i64_vec(&[1]))
            .op("Shape", &["r"], "shape", [])
            .op("Gather", &["shape", "axis"], "size", [])
            .op("Equal", &["size", "one"], "is_one", []);
        choice(builder, "is_one")
    }

    /// The engine requires both branches to have one shape, so the expected graph is compared instead.
    fn folded(dims: &str, expected: ModelBuilder) -> String {
        let mut after = model(squeeze(dims));
        apply(&FOLD_CONSTANTS, &mut after);
        assert_same_function(&model(expected.output("y")), &after, 0.0);
        text(&after)
    }

    #[test]
    fn the_branch_that_is_taken_stays() {
        let expected = start("batch,1,3").op("Squeeze", &["r", "axis"], "y", []);
        insta::assert_snapshot!(folded("batch,1,3", expected), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,1,3] x) => (y)
        <
           int64[1] axis = {1}
        >
        {
           r = Relu (x)
           ["y.squeeze"] y = Squeeze (r, axis)  # from y
        }
        "#);
    }

    #[test]
    fn the_other_branch_stays_where_the_condition_is_false() {
        let expected = start("batch,2,3").op("Identity", &["r"], "y", []);
        insta::assert_snapshot!(folded("batch,2,3", expected), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,2,3] x) => (y) {
           r = Relu (x)
           ["y.identity"] y = Identity (r)  # from y
        }
        "#);
    }

    #[test]
    fn a_condition_that_depends_on_the_input_stays() {
        let builder = start("batch,2,3").input("c", DataType::Bool, "");
        let mut model = model(choice(builder, "c"));
        let outcome = apply(&FOLD_CONSTANTS, &mut model);
        assert_eq!(outcome.changes, []);
        assert_eq!(reasons(outcome), [Reason::NotConstant("c".to_owned())]);
    }
}
