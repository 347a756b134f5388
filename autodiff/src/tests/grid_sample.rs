use bcosc_ir::{Attribute, ModelBuilder, Tensor};

use crate::testing::{Law, holds_in_single, refusal};
use bcosc_passes::Reason;
use bcosc_testing::{input, noise};

/// Why these cases run in single precision only.
const SAMPLED_IN_SINGLE: &str = "tract takes samples in single precision whatever its input";

fn grid(dims: &[u64]) -> Tensor {
    let count = dims.iter().product::<u64>() as usize;
    let at = noise(7, count as u64).into_iter().map(|g| 1.6 * g as f32);
    Tensor::f32s(dims, at.collect())
}

fn sampled(size: &str, dims: &[u64], mode: &str, outside: &str, corners: i64) -> ModelBuilder {
    input(20, size).param("grid", grid(dims)).op(
        "GridSample",
        &["x", "grid"],
        "y",
        [
            Attribute::string("mode", mode),
            Attribute::string("padding_mode", outside),
            Attribute::int("align_corners", corners),
        ],
    )
}

#[test]
fn samples_go_back_to_their_pixels() {
    for mode in ["nearest", "linear", "cubic"] {
        for outside in ["zeros", "border", "reflection"] {
            for corners in [0, 1] {
                // There tract computes something else, and says so.
                if (mode, outside) == ("cubic", "border") {
                    continue;
                }
                for size in ["2,3,5,4", "2,3,height,width"] {
                    let builder = sampled(size, &[2, 3, 5, 2], mode, outside, corners);
                    let what = format!("{mode} {outside} {corners} {size}");
                    holds_in_single(&what, Law::Affine, builder, SAMPLED_IN_SINGLE);
                }
            }
        }
    }
    let space = sampled("2,2,3,4,5", &[2, 2, 3, 2, 3], "linear", "zeros", 0);
    holds_in_single("space", Law::Affine, space, SAMPLED_IN_SINGLE);
    let line = sampled("2,2,6", &[2, 3, 1], "linear", "border", 1);
    holds_in_single("line", Law::Affine, line, SAMPLED_IN_SINGLE);
}

#[test]
fn a_grid_may_depend_on_the_image() {
    let builder = input(20, "batch,2,3,4")
        .op("Sin", &["x"], "sine", [])
        .op(
            "Transpose",
            &["sine"],
            "grid",
            [Attribute::ints("perm", &[0, 2, 3, 1])],
        )
        .op("GridSample", &["x", "grid"], "y", []);
    holds_in_single("computed", Law::Dynamic, builder, SAMPLED_IN_SINGLE);
}

#[test]
fn cubic_interpolation_of_volumes_is_refused() {
    let builder = sampled("2,2,3,4,5", &[2, 2, 3, 2, 3], "cubic", "zeros", 0);
    let expected = Reason::NoBackwardRuleFor("a GridSample with mode cubic of other than two axes");
    assert_eq!(refusal(builder), expected);
}
