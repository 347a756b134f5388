//! Strided views, as some exporters write them: a `Gather` of all elements in order.
//!
//! ```text
//! y = Gather (Reshape (x, [-1]), Range (0, n) * c + [0, 1 ... c-1]) = x
//! ```
//!
//! for x of n times c elements, and y of the shape of x.

use bcosc_ir::ops::Trait;
use bcosc_ir::{Graph, Patch, Value};

use super::trivial::keeps_shape;
use crate::Reason;
use crate::analysis::scalars::scalar;
use crate::canonical::worklist::Site;

const NO_VIEW: Reason = Reason::Needed("it gathers in another order");

pub(super) fn in_order(site: &Site<'_>) -> Result<Patch, Reason> {
    let graph = site.graph;
    let (flat, indices) = (site.input(0)?, site.input(1)?);
    let (reshape, _) = graph
        .producer(flat)
        .filter(|(_, op)| op.is("Reshape"))
        .ok_or(NO_VIEW)?;
    let x = graph.input(reshape, 0).ok_or(Reason::Malformed)?;
    let is_flat = graph.value_type(flat).and_then(|t| t.rank()) == Some(1);
    if site.op.get("axis") != Some(0_i64) || !is_flat {
        return Err(NO_VIEW);
    }
    keeps_shape(graph, x, site.output())?;
    let shape = graph.value_type(x).and_then(|t| t.shape).ok_or(NO_VIEW)?;
    let inner = shape.iter().skip(1).map(|d| d.known());
    let inner: u64 = inner.product::<Option<u64>>().ok_or(NO_VIEW)?;
    let (start, offsets) = sum_with_constant(graph, indices).ok_or(NO_VIEW)?;
    let counts = (0..).zip(&offsets).all(|(i, offset)| i == *offset);
    if !counts || offsets.len() as u64 != inner || stride(graph, start) != Some(inner as f64) {
        return Err(NO_VIEW);
    }
    site.bypass(x)
}

/// The computed and the constant operand of a sum of indices.
fn sum_with_constant(graph: &Graph, indices: Value) -> Option<(Value, Vec<i64>)> {
    let (node, _) = graph.producer(indices).filter(|(_, op)| op.is("Add"))?;
    let &[Some(a), Some(b)] = &graph.inputs_of(node)[..] else {
        return None;
    };
    let integers = |v| graph.constant(v)?.to_i64s().ok();
    match (integers(a), integers(b)) {
        (None, Some(offsets)) => Some((a, offsets)),
        (Some(offsets), None) => Some((b, offsets)),
        _ => None,
    }
}

/// The step of `Range (0, n, 1)`, optionally times a constant.
fn stride(graph: &Graph, mut value: Value) -> Option<f64> {
    let mut step = 1.0;
    loop {
        let (node, op) = graph.producer(value)?;
        if op.is("Range") {
            let number = |slot| scalar(graph, graph.input(node, slot)?);
            return (number(0) == Some(0.0) && number(2) == Some(1.0)).then_some(step);
        }
        if op.is("Mul") {
            let operands: Vec<Value> = graph.inputs_of(node).into_iter().flatten().collect();
            let &[a, b] = &operands[..] else { return None };
            let (factor, rest) = match (scalar(graph, a), scalar(graph, b)) {
                (Some(factor), None) => (factor, b),
                (None, Some(factor)) => (factor, a),
                _ => return None,
            };
            step *= factor;
            value = rest;
        } else if op.has_any(&[Trait::View, Trait::Copy, Trait::Cast]) {
            value = graph.input(node, 0)?;
        } else {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{Attribute, DataType, Model, ModelBuilder, Tensor};

    use super::super::SIMPLIFY;
    use super::*;
    use crate::testing::{infer, model, rewritten};

    /// [batch, 3, 1, 1] gathered from its elements in a row, `step` apart from image to image.
    fn view(step: i64, offsets: [i64; 3]) -> Model {
        let number = |x: i64| Tensor::i64s(&[], vec![x]);
        let builder = ModelBuilder::new(17)
            .input("x", DataType::Float, "batch,3,1,1")
            .param("row", Tensor::i64_vec(&[-1]))
            .op("Reshape", &["x", "row"], "flat", [])
            .op("Shape", &["x"], "shape", [])
            .param("zero", number(0))
            .op(
                "Gather",
                &["shape", "zero"],
                "n",
                [Attribute::int("axis", 0)],
            )
            .param("one", number(1))
            .op("Range", &["zero", "n", "one"], "range", [])
            .param("step", number(step))
            .op("Mul", &["range", "step"], "starts", [])
            .param("axes", Tensor::i64_vec(&[1, 2, 3]))
            .op("Unsqueeze", &["starts", "axes"], "column", [])
            .param("offsets", Tensor::i64s(&[1, 3, 1, 1], offsets.to_vec()))
            .op("Add", &["column", "offsets"], "indices", [])
            .op(
                "Gather",
                &["flat", "indices"],
                "view",
                [Attribute::int("axis", 0)],
            )
            .op("Relu", &["view"], "y", [])
            .value("view", DataType::Float, "batch,3,1,1")
            .output_as("y", DataType::Float, "batch,3,1,1");
        model(builder)
    }

    #[test]
    fn a_view_of_everything_in_order_goes() {
        let after = rewritten(&SIMPLIFY, &view(3, [0, 1, 2]));
        let graph = &after.graph;
        let relu = graph
            .ops()
            .into_iter()
            .find(|id| graph.op(*id).is_some_and(|op| op.is("Relu")));
        assert_eq!(
            relu.and_then(|id| graph.input(id, 0)),
            graph.inputs().first().copied()
        );
    }

    #[test]
    fn a_view_in_another_order_stays() {
        for (step, offsets) in [(3, [0, 2, 1]), (1, [0, 1, 2]), (3, [1, 2, 3])] {
            let mut typed = view(step, offsets);
            infer(&mut typed);
            let view = typed.graph.value_named("view").map(|v| v.node);
            let site = view.and_then(|node| Site::new(&typed, node));
            assert_eq!(site.map(|site| in_order(&site).err()), Some(Some(NO_VIEW)));
        }
    }
}
