use bcosc_ir::{Attribute, Tensor};

use super::{OPEN, SIZED, ints, list};
use crate::testing::{Law, backward, holds};
use bcosc_testing::{input, model, weight};

#[test]
fn structural_operators() {
    let cases: Vec<(&str, &str, Vec<Tensor>, Vec<Attribute>)> = vec![
        ("Reshape", SIZED, vec![list(&[0, 2, -1])], vec![]),
        ("Reshape", OPEN, vec![list(&[0, 4, -1])], vec![]),
        ("Flatten", SIZED, vec![], vec![]),
        ("Transpose", OPEN, vec![], vec![ints("perm", &[0, 2, 3, 1])]),
        ("Unsqueeze", OPEN, vec![list(&[1])], vec![]),
        ("Expand", "batch,4,1", vec![list(&[1, 4, 3])], vec![]),
        ("Tile", SIZED, vec![list(&[1, 2, 1, 3])], vec![]),
        ("Pad", OPEN, vec![list(&[0, 1, 2, 0, 0, 0, 1, 3])], vec![]),
        (
            "Gather",
            SIZED,
            vec![list(&[2, 0])],
            vec![Attribute::int("axis", 1)],
        ),
        (
            "Gather",
            SIZED,
            vec![list(&[1, 1, 3])],
            vec![Attribute::int("axis", 1)],
        ),
        (
            "Gather",
            OPEN,
            vec![Tensor::i64s(&[], vec![0])],
            vec![Attribute::int("axis", 2)],
        ),
        (
            "Gather",
            OPEN,
            vec![Tensor::i64s(&[], vec![-1])],
            vec![Attribute::int("axis", 2)],
        ),
    ];
    for (op, size, operands, attributes) in cases {
        let mut builder = input(18, size);
        let names = ["a", "b", "c", "d"];
        let mut inputs = vec!["x"];
        for (name, tensor) in names.iter().zip(operands) {
            builder = builder.param(name, tensor);
            inputs.push(name);
        }
        holds(op, Law::Affine, builder.op(op, &inputs, "y", attributes));
    }
    let computed =
        input(18, OPEN)
            .op("Shape", &["x"], "sizes", [])
            .op("Tile", &["x", "sizes"], "y", []);
    holds("Tile", Law::Affine, computed);
    for (size, [starts, ends, axes, steps]) in [
        (SIZED, [[1, -5], [-2, 7], [2, 3], [1, 1]]),
        (SIZED, [[0, 1], [9, 8], [2, 3], [2, 3]]),
        (OPEN, [[1, -3], [4, 99], [2, 3], [1, 1]]),
    ] {
        let builder = input(18, size)
            .param("starts", list(&starts))
            .param("ends", list(&ends))
            .param("axes", list(&axes))
            .param("steps", list(&steps))
            .op("Slice", &["x", "starts", "ends", "axes", "steps"], "y", []);
        holds("Slice", Law::Affine, builder);
    }
    let computed = input(18, "batch,4")
        .op("Shape", &["x"], "shape", [])
        .param("other", list(&[0, 0]))
        .op("Min", &["shape", "other"], "places", [])
        .op("Gather", &["x", "places"], "y", []);
    holds("Gather at computed places", Law::Affine, computed);
    let blocks = vec![
        Attribute::string("coordinate_transformation_mode", "asymmetric"),
        Attribute::string("nearest_mode", "floor"),
    ];
    let enlarged = input(18, SIZED)
        .param("scales", Tensor::f32s(&[4], vec![1.0, 1.0, 2.0, 3.0]))
        .op("Resize", &["x", "", "scales"], "y", blocks);
    holds("Resize", Law::Affine, enlarged);
    let axis = || [Attribute::int("axis", 1)];
    let parts = input(18, OPEN)
        .param("sizes", list(&[1, 3]))
        .param("c", weight(0, &[1]))
        .op("Split", &["x", "sizes"], "a,b", axis())
        .op("Mul", &["b", "c"], "m", [])
        .op("Concat", &["m", "b"], "y", axis());
    holds("Split and Concat", Law::Affine, parts);
    let rows = input(18, OPEN).op("Neg", &["x"], "n", []).op(
        "Concat",
        &["x", "n"],
        "y",
        [Attribute::int("axis", 2)],
    );
    holds("Concat of open sizes", Law::Affine, rows);
}

#[test]
fn cells_go_back_in_the_order_they_came_in() {
    let mode = || Attribute::string("mode", "CRD");
    let builder = input(18, "batch,2,4,4").op(
        "SpaceToDepth",
        &["x"],
        "y",
        [Attribute::int("blocksize", 2), mode()],
    );
    let (_, both) = backward("cells", model(builder.output("y")));
    let mut ops = both.graph.ops().into_iter();
    let back = ops.find_map(|id| both.graph.op(id).filter(|op| op.is("DepthToSpace")));
    assert_eq!(back.and_then(|op| op.get("mode")), Some("CRD"));
}
