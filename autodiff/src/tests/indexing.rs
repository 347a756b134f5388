use bcosc_ir::{Attribute, DataType, Tensor};

use super::{OPEN, SIZED, list};
use crate::testing::{Law, holds, holds_against, refusal};
use bcosc_passes::Reason;
use bcosc_testing::{input, model, weight};

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
            input(18, SIZED)
                .param("k", list(&[3]))
                .op("TopK", &["x", "k"], "y,i", attributes);
        holds("TopK", Law::Piecewise, builder);
    }
}

#[test]
fn picked_elements() {
    let indices = Tensor::i64s(&[2, 2, 3], vec![0, 1, 1, 2, 0, 2, 1, 1, 1, 0, 2, 0]);
    let elements = input(18, "2,3,4").param("i", indices);
    let elements = elements.op("GatherElements", &["x", "i"], "y", axis(1));
    holds("GatherElements", Law::Affine, elements);
    let indices = Tensor::i64s(&[3, 2], vec![0, 2, 1, 0, 0, 2]);
    let rows = input(18, "2,3,4").param("i", indices);
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
        let builder = input(18, "3,4,4").op("ArgMax", &["x"], "i", places).op(
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
        let rows = input(18, "3,4").param("i", indices);
        let rows = rows
            .param("rows", list(&[1, 2]))
            .op("Gather", &["x", "rows"], "u", axis(0))
            .op("ScatterND", &["x", "i", "u"], "y", how());
        holds(reduction, Law::Affine, rows);
        let indices = Tensor::i64s(&[1, 4], vec![2, 0, 1, 1]);
        let elements = input(18, "3,4")
            .param("i", indices)
            .param("u", weight(0, &[1, 4]));
        let elements = elements.op("ScatterElements", &["x", "i", "u"], "y", how());
        holds(reduction, Law::Affine, elements);
    }
    let multiplied = input(18, "3,4")
        .param("i", Tensor::i64s(&[1, 1], vec![2]))
        .param("u", weight(0, &[1, 4]));
    let how = [Attribute::string("reduction", "mul")];
    let multiplied = multiplied.op("ScatterND", &["x", "i", "u"], "y", how);
    let why = "a scatter that multiplies or compares";
    assert_eq!(refusal(multiplied), Reason::NoBackwardRuleFor(why));
}

#[test]
fn sums_and_triangles() {
    for (exclusive, reverse) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        let attributes = [
            Attribute::int("exclusive", exclusive),
            Attribute::int("reverse", reverse),
        ];
        let along = input(18, SIZED).param("axis", Tensor::i64s(&[], vec![2]));
        let builder = along.op("CumSum", &["x", "axis"], "y", attributes);
        holds("CumSum", Law::Affine, builder);
    }
    for upper in [0, 1] {
        let builder = input(18, SIZED).param("k", Tensor::i64s(&[], vec![1]));
        let attributes = [Attribute::int("upper", upper)];
        holds(
            "Trilu",
            Law::Affine,
            builder.op("Trilu", &["x", "k"], "y", attributes),
        );
    }
}

#[test]
fn places_in_batches() {
    let indices = Tensor::i64s(&[2, 3, 1], vec![2, 0, 2, 1, 1, 0]);
    let builder = input(18, "2,3,4").param("i", indices);
    let batch = [Attribute::int("batch_dims", 1)];
    let builder = builder.op("GatherND", &["x", "i"], "y", batch);
    holds("GatherND in batches", Law::Affine, builder);
}

fn condition(elements: &[bool]) -> Tensor {
    let bytes: Vec<u8> = elements.iter().map(|&holds| holds.into()).collect();
    Tensor::from_bytes(DataType::Bool, &[elements.len() as u64], bytes.into())
}

#[test]
fn elements_that_are_kept() {
    let kept = [false, true, true, false];
    for size in [SIZED, OPEN] {
        for along in [1, 2] {
            // The axis may be longer than the condition.
            let forward = input(18, SIZED).param("i", list(&[1, 2]));
            let forward = forward.op("Gather", &["x", "i"], "y", axis(along));
            let [channels, rows] = if along == 1 { [2, 9] } else { [4, 2] };
            let given = input(18, size).param("c", condition(&kept));
            let given = given.op("Compress", &["x", "c"], "y", axis(along));
            let dims = format!("batch,{channels},{rows},8");
            let given = given.output_as("y", DataType::Float, &dims);
            holds_against("Compress", Law::Affine, forward, model(given));
        }
        let forward = input(18, SIZED)
            .param("flat", list(&[-1]))
            .param("i", list(&[1, 2]))
            .op("Reshape", &["x", "flat"], "f", [])
            .op("Gather", &["f", "i"], "y", []);
        let given = input(18, size).param("c", condition(&kept));
        let given = given.op("Compress", &["x", "c"], "y", []);
        let given = given.output_as("y", DataType::Float, "2");
        holds_against(
            "Compress of a flat value",
            Law::Affine,
            forward,
            model(given),
        );
    }
}

#[test]
fn reversed_sequences() {
    let forward = |size: &str| {
        input(18, size)
            .param("zero", list(&[0]))
            .param("one", list(&[1]))
            .param("back", list(&[2, 1, 0]))
            .op("Gather", &["x", "zero"], "kept", axis(0))
            .op("Gather", &["x", "one"], "row", axis(0))
            .op("Gather", &["row", "back"], "turned", axis(1))
            .op("Concat", &["kept", "turned"], "y", axis(0))
    };
    for size in ["2,3,4", "2,time,4"] {
        // The first row stays, the second turns.
        let given = input(18, size).param("lens", list(&[1, 3])).op(
            "ReverseSequence",
            &["x", "lens"],
            "y",
            [
                Attribute::int("batch_axis", 0),
                Attribute::int("time_axis", 1),
            ],
        );
        let given = model(given.output_as("y", DataType::Float, size));
        holds_against("ReverseSequence", Law::Affine, forward("2,3,4"), given);
    }
}
