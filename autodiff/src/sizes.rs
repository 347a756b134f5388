//! Sizes that exporters of TensorFlow compute in 32 bits are computed in 64, since shape inference only follows those.
//!
//! ```text
//! Reshape (x, Cast<int64> (Concat (Slice (Cast<int32> (Shape (x))), [-1])))
//! Reshape (x, Concat (Slice (Shape (x)), [-1]))
//! ```

use std::collections::{BTreeMap, BTreeSet};

use bcosc_ir::ops::Trait;
use bcosc_ir::{DataType, Graph, Model, NodeId, Op, Operand, Patch, PatchError, Tensor, Value};

/// Whether sizes pass through an operator from its first operand.
fn moves(op: &Op) -> bool {
    op.has_any(&[Trait::View, Trait::Copy]) || op.is("Gather") || op.is("Slice")
}

/// Whether sizes pass through an operator from all operands.
fn combines(op: &Op) -> bool {
    op.has(Trait::Arithmetic) || op.is("Concat") || op.is("Max")
}

/// Removes the casts of sizes.
///
/// # Errors
/// An internal error.
pub(crate) fn widen(model: &mut Model) -> Result<(), PatchError> {
    let graph = &model.graph;
    let mut sizes: BTreeSet<Value> = BTreeSet::new();
    let mut wide: BTreeMap<Value, Operand> = BTreeMap::new();
    let mut patch: Option<Patch> = None;
    let mut replaced = false;
    for node in graph.ops() {
        let Some(op) = graph.op(node).filter(|op| op.domain().is_empty()) else {
            continue;
        };
        let result = graph.output(node, 0);
        let operands = graph.inputs_of(node);
        let first = operands.first().copied().flatten();
        let cast = |to: DataType| op.is("Cast") && op.get("to") == Some(to.to_i32());
        if op.is("Shape") {
            sizes.insert(result);
        } else if cast(DataType::Int32) && first.is_some_and(|first| sizes.contains(&first)) {
            wide.extend(first.map(|first| (result, Operand::Old(first))));
        } else if let (true, Some(found)) = (
            cast(DataType::Int64),
            first.and_then(|first| wide.get(&first)),
        ) {
            let patch = patch.get_or_insert_with(|| Patch::at(node));
            patch.replace_retyped(result, *found);
            sizes.insert(result);
            replaced = true;
        } else if first.is_some_and(|first| sizes.contains(&first)) && moves(op) {
            sizes.insert(result);
        } else if operands
            .iter()
            .flatten()
            .any(|value| wide.contains_key(value))
        {
            let patch = patch.get_or_insert_with(|| Patch::at(node));
            if let Some(found) = widened(graph, patch, node, op, &operands, &wide) {
                wide.insert(result, found);
            }
        }
    }
    if let Some(patch) = patch.filter(|_| replaced) {
        model.graph.apply(patch)?;
        model.graph.remove_dead();
    }
    Ok(())
}

/// An operator on sizes in 64 bits; `None` if it may not be one on sizes.
fn widened(
    graph: &Graph,
    patch: &mut Patch,
    node: NodeId,
    op: &Op,
    operands: &[Option<Value>],
    wide: &BTreeMap<Value, Operand>,
) -> Option<Operand> {
    let all = combines(op);
    if !all && !moves(op) || graph.output_count(node) != 1 {
        return None;
    }
    let mut inputs = Vec::new();
    for (slot, operand) in operands.iter().enumerate() {
        let Some(value) = *operand else {
            inputs.push(None);
            continue;
        };
        inputs.push(Some(match wide.get(&value) {
            Some(found) => *found,
            None if slot > 0 && !all => Operand::Old(value),
            None => {
                let tensor = graph.constant(value)?;
                let elements = tensor.to_i64s().ok()?;
                patch.parameter("size", Tensor::i64s(&tensor.dims(), elements))
            }
        }));
    }
    Some(patch.multi_op(op.clone(), &inputs, 1))
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{Attribute, ModelBuilder};
    use bcosc_testing::{Layers, batch, image, infer, model, outputs};

    use super::*;

    fn flattened(between: impl Fn(ModelBuilder) -> ModelBuilder) -> Model {
        let builder = image("batch,3,4,4")
            .op("Shape", &["x"], "shape", [])
            .op("Cast", &["shape"], "narrow", [Attribute::int("to", 6)])
            .param("zero", Tensor::i64_vec(&[0]))
            .param("one", Tensor::i64_vec(&[1]))
            .op("Slice", &["narrow", "zero", "one"], "count", [])
            .param(
                "rest",
                Tensor::from_bytes(DataType::Int32, &[1], vec![255; 4].into()),
            )
            .op(
                "Concat",
                &["count", "rest"],
                "both",
                [Attribute::int("axis", 0)],
            );
        let builder = between(builder).op("Reshape", &["x", "sizes"], "flat", []);
        model(builder.matmul("flat", "y", &[48, 4]).output("y"))
    }

    #[test]
    fn sizes_in_32_bits_are_followed() {
        let before = flattened(|b| b.op("Cast", &["both"], "sizes", [Attribute::int("to", 7)]));
        let mut after = before.clone();
        widen(&mut after).unwrap();
        assert!(
            after
                .graph
                .ops()
                .iter()
                .all(|id| !after.graph.op(*id).unwrap().is("Cast"))
        );
        let inputs = batch(&before);
        assert_eq!(
            outputs(&after, &inputs)[0].data,
            outputs(&before, &inputs)[0].data
        );
        infer(&mut after);
        let found = after
            .graph
            .value_type(after.graph.outputs()[0].value)
            .unwrap();
        assert_eq!(found.rank(), Some(2));
    }

    #[test]
    fn other_operators_do_not_change() {
        let mut other = flattened(|b| {
            b.op("Abs", &["both"], "positive", []).op(
                "Cast",
                &["positive"],
                "sizes",
                [Attribute::int("to", 7)],
            )
        });
        let before = bcosc_testing::text(&other);
        widen(&mut other).unwrap();
        assert_eq!(bcosc_testing::text(&other), before);
    }
}
