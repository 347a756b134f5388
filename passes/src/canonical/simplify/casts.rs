//! Casts to the type that is there already.
//!
//! ```text
//! Cast <to = float> (float[..] x) = x
//! ```

use bcosc_ir::Patch;

use super::super::worklist::Site;
use crate::Reason;

pub(super) fn same_type(site: &Site<'_>) -> Result<Patch, Reason> {
    let x = site.input(0)?;
    let to = site.op.attribute("to").and_then(|a| a.proto().i).ok_or(Reason::Malformed)?;
    let from = site.graph.value_type(x).map(|t| t.dtype);
    let from = from.ok_or_else(|| Reason::UnknownShape(site.graph.value_name(x).to_owned()))?;
    if i64::from(from.to_i32()) != to {
        return Err(Reason::Needed("it changes the type"));
    }
    site.bypass(x)
}
