use bcosc_ir::{Attribute, Tensor};

use super::{SIZED, list};
use crate::detached::testing::{Law, graph, holds, refusal};
use bcosc_passes::Reason;
use bcosc_testing::weight;

fn axis(axis: i64) -> Vec<Attribute> {
    vec![Attribute::int("axis", axis)]
}

#[test]
fn the_largest() {
    for (along, smallest) in [(-1, 1), (1, 0)] {
        let attributes = axis(along)
            .into_iter()
            .chain([Attribute::int("largest", smallest)]);
        let builder =
            graph(SIZED)
                .param("k", list(&[3]))
                .op("TopK", &["x", "k"], "y,i", attributes);
        holds("TopK", Law::Piecewise, builder);
    }
}

#[test]
fn picked_elements() {
    let indices = Tensor::i64s(&[2, 2, 3], vec![0, 1, 1, 2, 0, 2, 1, 1, 1, 0, 2, 0]);
    let elements = graph("2,3,4").param("i", indices);
    let elements = elements.op("GatherElements", &["x", "i"], "y", axis(1));
    holds("GatherElements", Law::Affine, elements);
    let indices = Tensor::i64s(&[3, 2], vec![0, 2, 1, 0, 0, 2]);
    let rows = graph("2,3,4").param("i", indices);
    holds(
        "GatherND",
        Law::Affine,
        rows.op("GatherND", &["x", "i"], "y", []),
    );
}

#[test]
fn places_along_other_axes() {
    for (along, keep) in [(1, 0), (2, 1)] {
        let places = [Attribute::int("axis", 1), Attribute::int("keepdims", keep)];
        let builder = graph("3,4,4").op("ArgMax", &["x"], "i", places).op(
            "Gather",
            &["x", "i"],
            "y",
            axis(along),
        );
        holds("Gather at computed places", Law::Piecewise, builder);
    }
}

#[test]
fn written_over() {
    for reduction in ["none", "add"] {
        let how = || [Attribute::string("reduction", reduction)];
        let indices = Tensor::i64s(&[2, 1], vec![2, 0]);
        let rows = graph("3,4").param("i", indices);
        let rows = rows
            .param("rows", list(&[1, 2]))
            .op("Gather", &["x", "rows"], "u", axis(0))
            .op("ScatterND", &["x", "i", "u"], "y", how());
        holds(reduction, Law::Affine, rows);
        let indices = Tensor::i64s(&[1, 4], vec![2, 0, 1, 1]);
        let elements = graph("3,4")
            .param("i", indices)
            .param("u", weight(0, &[1, 4]));
        let elements = elements.op("ScatterElements", &["x", "i", "u"], "y", how());
        holds(reduction, Law::Affine, elements);
    }
    let multiplied = graph("3,4")
        .param("i", Tensor::i64s(&[1, 1], vec![2]))
        .param("u", weight(0, &[1, 4]));
    let how = [Attribute::string("reduction", "mul")];
    let multiplied = multiplied.op("ScatterND", &["x", "i", "u"], "y", how);
    assert_eq!(refusal(multiplied), Reason::NoDerivative);
}

#[test]
fn sums_and_triangles() {
    for (exclusive, reverse) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        let attributes = [
            Attribute::int("exclusive", exclusive),
            Attribute::int("reverse", reverse),
        ];
        let along = graph(SIZED).param("axis", Tensor::i64s(&[], vec![2]));
        let builder = along.op("CumSum", &["x", "axis"], "y", attributes);
        holds("CumSum", Law::Affine, builder);
    }
    for upper in [0, 1] {
        let builder = graph(SIZED).param("k", Tensor::i64s(&[], vec![1]));
        let attributes = [Attribute::int("upper", upper)];
        holds(
            "Trilu",
            Law::Affine,
            builder.op("Trilu", &["x", "k"], "y", attributes),
        );
    }
}

#[test]
fn indices_that_count_batches_have_no_rule() {
    let builder = graph("2,3,4").param("i", Tensor::i64s(&[2, 1], vec![2, 0]));
    let attributes = [Attribute::int("batch_dims", 1)];
    let builder = builder.op("GatherND", &["x", "i"], "y", attributes);
    assert_eq!(refusal(builder), Reason::NoDerivative);
}
