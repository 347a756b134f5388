//! Arithmetic with neutral constants.
//!
//! ```text
//! x + 0 = 0 + x = x - 0 = x        x * 1 = 1 * x = x / 1 = x       where the shape stays
//! Conv (x, w, 0) = Conv (x, w)     likewise ConvTranspose and Gemm
//! ```
//!
//! The sign of a zero may change: `-0 + 0` is `+0`.

use bcosc_ir::Patch;
use bcosc_ir::ops::Trait;

use super::trivial::{keeps_shape, shape_of};
use crate::Reason;
use crate::canonical::constants;
use crate::canonical::worklist::Site;

pub(super) fn neutral(site: &Site<'_>) -> Result<Patch, Reason> {
    let number = if matches!(site.op.op_type(), "Add" | "Sub") {
        0
    } else {
        1
    };
    let commutes = site.op.has(Trait::Commutative);
    let (a, b) = (site.input(0)?, site.input(1)?);
    let is_neutral = |value| {
        constants::constant(site.graph, value)
            .is_some_and(|t| constants::is_filled_with(&t, number))
    };
    let (kept, constant) = match () {
        () if is_neutral(b) => (a, b),
        () if commutes && is_neutral(a) => (b, a),
        () => return Err(Reason::Needed("it changes the value")),
    };
    // A scalar constant keeps the shape of the other operand.
    if shape_of(site.graph, constant)?.is_empty() {
        return site.bypass(kept);
    }
    keeps_shape(site.graph, kept, site.output())?;
    site.bypass(kept)
}

pub(super) fn zero_bias(site: &Site<'_>) -> Result<Patch, Reason> {
    let bias = site
        .graph
        .input(site.node, 2)
        .ok_or(Reason::Needed("it has no bias"))?;
    if !site.op.can_omit(2, site.opset) {
        return Err(Reason::Needed("its bias is required in this opset"));
    }
    let is_zero =
        constants::constant(site.graph, bias).is_some_and(|t| constants::is_filled_with(&t, 0));
    if !is_zero {
        return Err(Reason::Needed("its bias is not zero"));
    }
    let mut patch = Patch::at(site.node);
    patch.set_input(site.node, 2, None);
    Ok(patch)
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{DataType, ModelBuilder, Tensor};

    use super::super::{RULES, SIMPLIFY};
    use super::*;
    use crate::testing::{apply, model, refusal, rewritten, text, weight};

    fn start() -> ModelBuilder {
        let row = |number: f32| Tensor::f32s(&[1, 4], vec![number; 4]);
        let builder = ModelBuilder::new(17).input("x", DataType::Float, "batch,4");
        builder.param("zeros", row(0.0)).param("ones", row(1.0))
    }

    fn end(builder: ModelBuilder, from: &str) -> bcosc_ir::Model {
        model(builder.op("Relu", &[from], "y", []).output("y"))
    }

    #[test]
    fn zeros_and_ones_go() {
        let builder = start()
            .op("Add", &["zeros", "x"], "a", [])
            .op("Sub", &["a", "zeros"], "b", [])
            .op("Mul", &["b", "ones"], "c", [])
            .op("Div", &["c", "ones"], "d", []);
        insta::assert_snapshot!(text(&rewritten(&SIMPLIFY, &end(builder, "d"))), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,4] x) => (y) {
           y = Relu (x)
        }
        "#);
    }

    #[test]
    fn a_number_goes_though_sizes_are_not_known() {
        let builder = ModelBuilder::new(17)
            .input("x", DataType::Float, "?,?")
            .param("one", Tensor::f32s(&[], vec![1.0]))
            .op("Div", &["x", "one"], "d", []);
        let mut found = end(builder, "d");
        apply(&SIMPLIFY, &mut found);
        assert_eq!(found.graph.ops().len(), 1);
    }

    #[test]
    fn a_bias_of_zeros_goes() {
        let builder =
            start()
                .param("w", weight(1, &[4, 4]))
                .op("Gemm", &["x", "w", "zeros"], "g", []);
        insta::assert_snapshot!(text(&rewritten(&SIMPLIFY, &end(builder, "g"))), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,4] x) => (y)
        <
           float[1,4] ones = {1.0, 1.0, 1.0, 1.0},
           float[4,4] w = {-0.14761274, -0.20840575, -0.4877265, -0.7881713, ... 1ec444fc}
        >
        {
           g = Gemm (x, w)
           y = Relu (g)
        }
        "#);
    }

    #[test]
    fn a_bias_with_a_number_stays() {
        let builder =
            start()
                .param("w", weight(1, &[4, 4]))
                .op("Gemm", &["x", "w", "ones"], "g", []);
        assert_eq!(
            refusal(RULES, &end(builder, "g"), "Gemm"),
            Reason::Needed("its bias is not zero")
        );
    }

    #[test]
    fn zero_minus_x_stays() {
        let model = end(start().op("Sub", &["zeros", "x"], "s", []), "s");
        assert_eq!(
            refusal(RULES, &model, "Sub"),
            Reason::Needed("it changes the value")
        );
    }

    #[test]
    fn zeros_that_broadcast_stay() {
        let builder = start()
            .param("wide", Tensor::f32s(&[3, 1, 4], vec![0.0; 12]))
            .op("Add", &["x", "wide"], "a", []);
        assert_eq!(
            refusal(RULES, &end(builder, "a"), "Add"),
            Reason::Needed("it changes the shape")
        );
    }
}
