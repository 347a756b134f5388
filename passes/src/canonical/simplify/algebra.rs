//! Constants that change nothing.
//!
//! ```text
//! x + 0 = 0 + x = x - 0 = x        x * 1 = 1 * x = x / 1 = x       where the shape stays
//! Conv (x, w, 0) = Conv (x, w)     likewise ConvTranspose and Gemm
//! ```
//!
//! The sign of a zero may change: `-0 + 0` is `+0`.

use bcosc_ir::Patch;

use super::super::constants;
use super::super::worklist::Site;
use super::trivial::keeps_shape;
use crate::Reason;

/// `Gemm` can do without its third operand from here.
const OPTIONAL_GEMM_BIAS: i64 = 11;

pub(super) fn neutral(site: &Site<'_>) -> Result<Patch, Reason> {
    let number = if matches!(site.op.op_type(), "Add" | "Sub") { 0 } else { 1 };
    let commutes = matches!(site.op.op_type(), "Add" | "Mul");
    let (a, b) = (site.input(0)?, site.input(1)?);
    let is_neutral =
        |value| constants::constant(site.graph, value).is_some_and(|t| constants::is_filled_with(&t, number));
    let kept = match () {
        () if is_neutral(b) => a,
        () if commutes && is_neutral(a) => b,
        () => return Err(Reason::Needed("it changes the value")),
    };
    keeps_shape(site.graph, kept, site.output())?;
    site.bypass(kept)
}

pub(super) fn zero_bias(site: &Site<'_>) -> Result<Patch, Reason> {
    let bias = site.graph.input(site.node, 2).ok_or(Reason::Needed("it has no bias"))?;
    if site.op.is("Gemm") && site.opset < OPTIONAL_GEMM_BIAS {
        return Err(Reason::Needed("Gemm has to have a bias in this opset"));
    }
    let is_zero = constants::constant(site.graph, bias).is_some_and(|t| constants::is_filled_with(&t, 0));
    if !is_zero {
        return Err(Reason::Needed("its bias is not zero"));
    }
    let mut patch = Patch::at(site.node);
    patch.set_input(site.node, 2, None);
    Ok(patch)
}
