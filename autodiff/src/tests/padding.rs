use bcosc_ir::{Attribute, DataType};

use super::{OPEN, SIZED, list};
use crate::testing::{Law, holds, holds_against, refusal};
use bcosc_passes::Reason;
use bcosc_testing::{input, model};

fn mode(mode: &str) -> Vec<Attribute> {
    vec![Attribute::string("mode", mode)]
}

#[test]
fn borders() {
    for border in ["constant", "reflect", "edge"] {
        for size in [SIZED, OPEN] {
            for pads in [
                [0, 0, 2, 1, 0, 0, 3, 2],
                [0, 0, 0, 1, 0, 0, 0, 0],
                [0, 0, 0, 0, 0, 0, 1, 0],
                [0, 1, 0, 0, 0, 2, 0, 0],
            ] {
                let builder = input(18, size).param("pads", list(&pads));
                let builder = builder.op("Pad", &["x", "pads"], "y", mode(border));
                holds(border, Law::Affine, builder);
            }
        }
    }
    // As wide as a mirror gets: all but the outermost row on either side.
    let builder = input(18, "batch,1,3,2").param("pads", list(&[0, 0, 2, 1, 0, 0, 2, 1]));
    let builder = builder.op("Pad", &["x", "pads"], "y", mode("reflect"));
    holds("wide", Law::Affine, builder);
}

#[test]
fn wrapping_around() {
    for size in [SIZED, OPEN] {
        let axis = || [Attribute::int("axis", 2)];
        let forward = input(18, size)
            .param("from", list(&[-3]))
            .param("end", list(&[i64::MAX]))
            .param("zero", list(&[0]))
            .param("to", list(&[2]))
            .param("axis", list(&[2]))
            .op("Slice", &["x", "from", "end", "axis"], "before", [])
            .op("Slice", &["x", "zero", "to", "axis"], "behind", [])
            .op("Concat", &["before", "x", "behind"], "y", axis());
        let [rows, wide] = match size {
            SIZED => ["14", "8"],
            _ => ["rows", "width"],
        };
        let given = input(19, size)
            .param("pads", list(&[0, 0, 3, 0, 0, 0, 2, 0]))
            .op("Pad", &["x", "pads"], "y", mode("wrap"))
            .output_as("y", DataType::Float, &format!("batch,4,{rows},{wide}"));
        holds_against("wrap", Law::Affine, forward, model(given));
    }
}

#[test]
fn more_than_there_is_cannot_be_mirrored() {
    let builder = input(18, "batch,4,3,8").param("pads", list(&[0, 0, 3, 0, 0, 0, 0, 0]));
    let builder = builder.op("Pad", &["x", "pads"], "y", mode("reflect"));
    let expected = Reason::NoBackwardRuleFor("a Pad with more padding than its input has elements");
    assert_eq!(refusal(builder), expected);
}
