//! Repeats operands that are broadcast, where tract has no kernel for how they are.
//!
//! ```text
//! [N, C, H, W] * [1, C, 1, 1]    [N, C, H, W] * [N, C, 1, 1]    a number for each run of the other operand
//! [N, C, H, W] * [N, 1, H, W]    [N, C, H, W] * [N, C, H, W]
//! ```
//!
//! tract's kernels take a number for each run of the other operand, and a row that all of the other operand
//! repeats. Other operands it follows element by element with an index each, which takes several times as long as
//! copying them out.

use tract_onnx::prelude::tract_data::internal::vector_size;
use tract_onnx::prelude::{DatumType, TractResult, TypedModel};
use tract_onnx::tract_core::broadcast::multi_broadcast;
use tract_onnx::tract_core::ops::array::MultiBroadcastTo;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_hir::internal::{
    ShapeFact, TVec, ToDim, TypedFact, TypedModelPatch, TypedNode,
};

/// Smaller results are not worth another operator.
const WORTH_REPEATING: usize = 1 << 12;

/// Shorter runs are no work for a kernel.
const SHORTEST_RUN: usize = 8;

/// tract has no kernel for shorter rows.
const SHORTEST_ROW: usize = 33;

type Shape = TVec<usize>;

/// Makes operands of a shape for which there is a kernel.
pub(crate) fn repeat(model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
    let shapes = better(model, node)?;
    shapes
        .map(|shapes| repeated(model, node, &shapes))
        .transpose()
}

/// The shapes that a node's operands should have, if they do not.
fn better(model: &TypedModel, node: &TypedNode) -> TractResult<Option<Vec<Shape>>> {
    let has_kernel = node
        .op_as::<TypedBinOp>()
        .is_some_and(|TypedBinOp(op, _)| op.as_linalg_binop().is_some());
    if !has_kernel {
        return Ok(None);
    }
    let facts = model.node_input_facts(node.id)?;
    let Some(shapes) = facts
        .iter()
        .map(|fact| known(fact))
        .collect::<Option<Vec<_>>>()
    else {
        return Ok(None);
    };
    let all = multi_broadcast(&shapes)?;
    if all.iter().product::<usize>() < WORTH_REPEATING {
        return Ok(None);
    }
    let wanted = for_kernels(&shapes, &all);
    Ok((wanted != shapes).then_some(wanted))
}

/// Shapes that one of tract's kernels takes: one operand is whole.
fn for_kernels(shapes: &[Shape], all: &Shape) -> Vec<Shape> {
    let sizes = shapes.iter().map(|shape| shape.iter().product::<usize>());
    // The first of the largest.
    let largest = sizes.enumerate().rev().max_by_key(|(_, size)| *size);
    let shapes = shapes.iter().enumerate().map(|(slot, shape)| {
        match largest.is_some_and(|(largest, _)| largest == slot) {
            true => all.clone(),
            false => beside_whole(shape, all),
        }
    });
    shapes.collect()
}

/// What an operand becomes beside one of the shape `all`.
fn beside_whole(shape: &Shape, all: &Shape) -> Shape {
    let is_one = |&axis: &usize| shape[axis] == 1;
    let rank = all.len();
    let row = (0..rank).find(|axis| !is_one(axis)).unwrap_or(rank);
    let is_row = shape[row..] == all[row..];
    let elements = shape.iter().product::<usize>();
    // tract repeats rows of whole vectors only.
    if is_row && elements.is_multiple_of(vector_size()) && elements >= SHORTEST_ROW {
        return shape.clone();
    }
    let run = (0..rank)
        .rev()
        .find(|axis| !is_one(axis))
        .map_or(0, |axis| axis + 1);
    if all[run..].iter().product::<usize>() >= SHORTEST_RUN {
        let sizes = all.iter().enumerate();
        let sizes = sizes.map(|(axis, &size)| if axis < run { size } else { 1 });
        return sizes.collect();
    }
    all.clone()
}

/// The shape of an operand in single precision, which alone there are kernels for, where it is known.
fn known(fact: &TypedFact) -> Option<Shape> {
    let plain = fact.datum_type == DatumType::F32;
    let shape = fact.shape.as_concrete().filter(|_| plain)?;
    Some(shape.iter().copied().collect())
}

fn repeated(
    model: &TypedModel,
    node: &TypedNode,
    shapes: &[Shape],
) -> TractResult<TypedModelPatch> {
    let mut patch = TypedModelPatch::new("repeated operands");
    let mut operands = patch.taps(model, &node.inputs)?;
    for (slot, (operand, shape)) in operands.iter_mut().zip(shapes).enumerate() {
        if known(patch.model.outlet_fact(*operand)?).as_ref() == Some(shape) {
            continue;
        }
        let shape = ShapeFact::from_dims(shape.iter().map(ToDim::to_dim));
        let name = format!("{}.repeated.{slot}", node.name);
        *operand = patch.wire_node(name, MultiBroadcastTo { shape }, &[*operand])?[0];
    }
    let results = patch.wire_node(&node.name, node.op.clone(), &operands)?;
    patch.shunt_outside(model, node.id.into(), results[0])?;
    // tract takes a repetition back where it finds no kernel after all.
    patch.dont_apply_twice = Some(format!("repeat {} {shapes:?}", node.name));
    Ok(patch)
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{Attribute, DataType};
    use bcosc_testing::{input, weight};

    use super::super::lower::testing::{assert_same, operators};
    use super::*;

    fn for_two(a: &[usize], b: &[usize]) -> Vec<Vec<usize>> {
        let shapes = [a, b].map(Shape::from_slice);
        let all = multi_broadcast(&shapes).unwrap();
        let wanted = for_kernels(&shapes, &all).into_iter();
        wanted.map(|shape| shape.to_vec()).collect()
    }

    #[test]
    fn operands_become_runs_rows_or_whole() {
        let image = [2, 3, 8, 8];
        for (other, wanted) in [
            ([1, 3, 1, 1], [2, 3, 1, 1]),
            ([2, 1, 1, 1], [2, 1, 1, 1]),
            ([1, 1, 1, 1], [1, 1, 1, 1]),
            ([1, 1, 8, 8], [1, 1, 8, 8]),
            ([1, 3, 8, 8], [1, 3, 8, 8]),
            ([2, 1, 8, 8], [2, 3, 8, 8]),
            ([1, 3, 1, 8], [2, 3, 8, 8]),
        ] {
            assert_eq!(for_two(&image, &other), [&image, &wanted]);
            assert_eq!(for_two(&other, &image), [&wanted, &image]);
        }
        // Neither is whole: the larger one becomes so.
        assert_eq!(for_two(&[2, 1, 64], &[1, 3, 1]), [[2, 3, 64], [2, 3, 1]]);
        // Rows of 49 numbers.
        assert_eq!(for_two(&[2, 3, 7, 7], &[1, 1, 7, 7]), [[2, 3, 7, 7]; 2]);
        // Runs of three numbers.
        assert_eq!(for_two(&[2, 64, 3], &[1, 64, 1]), [[2, 64, 3], [2, 64, 3]]);
    }

    fn arithmetic(sizes: &str, other: &[u64]) -> bcosc_ir::Model {
        input(17, sizes)
            .param("other", weight(1, other))
            .op("Sub", &["other", "x"], "difference", [])
            .op("Relu", &["difference"], "relu", [])
            .op("Mul", &["relu", "other"], "product", [])
            .op("Div", &["product", "other"], "y", [])
            .output("y")
            .finish()
            .unwrap()
    }

    /// Operators that follow their operands element by element.
    fn slow(model: &bcosc_ir::Model) -> Vec<String> {
        let found = operators(model).into_iter();
        let slow = found.filter(|op| ["Mul", "Sub", "SubF"].contains(&op.as_str()));
        slow.collect()
    }

    #[test]
    fn repeated_operands_give_the_same() {
        for other in [
            [1, 8, 1, 1],
            [4, 1, 16, 16],
            [1, 1, 16, 16],
            [1, 8, 1, 16],
            [1, 1, 1, 1],
        ] {
            let model = arithmetic("4,8,16,16", &other);
            assert_eq!(slow(&model), Vec::<String>::new(), "{other:?}");
            assert_same(&model, &[4, 8, 16, 16]);
        }
        let rows = arithmetic("4,32,14,14", &[1, 1, 14, 14]);
        assert_eq!(slow(&rows), Vec::<String>::new());
        assert_same(&rows, &[4, 32, 14, 14]);
    }

    #[test]
    fn small_results_are_left_alone() {
        assert!(!slow(&arithmetic("1,8,16,16", &[1, 8, 1, 16])).is_empty());
    }

    /// x times its largest channel.
    fn scaled(dtype: DataType) -> bcosc_ir::Model {
        let to = |dtype: DataType| [Attribute::int("to", dtype.to_i32().into())];
        let channels = Attribute::ints("axes", &[1]);
        input(17, "4,8,16,16")
            .op("Cast", &["x"], "cast", to(dtype))
            .op("ReduceMax", &["cast"], "largest", [channels])
            .op("Mul", &["cast", "largest"], "product", [])
            .op("Cast", &["product"], "y", to(DataType::Float))
            .output("y")
            .finish()
            .unwrap()
    }

    #[test]
    fn what_the_graph_computes_is_repeated_in_single_precision() {
        let repeats = |model| operators(model).contains(&"MultiBroadcastTo".into());
        let [single, double] = [DataType::Float, DataType::Double].map(scaled);
        assert!(repeats(&single));
        assert!(!repeats(&double));
        assert_same(&single, &[4, 8, 16, 16]);
        assert_same(&double, &[4, 8, 16, 16]);
    }
}
