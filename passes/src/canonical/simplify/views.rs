//! Operators that give the same elements another shape.
//!
//! None of them changes the order of the elements, so only the last shape counts:
//!
//! ```text
//! Reshape (x, s)                  = x               where the shape stays
//! Squeeze (Unsqueeze (x, a), b)   = x               where the shape is back
//! Reshape (view (x), t)           = Reshape (x, t)
//! ```

use bcosc_ir::{Dim, Patch, Tensor};

use super::super::constants;
use super::super::worklist::Site;
use super::trivial::{keeps_shape, shape_of};
use crate::Reason;

/// The operators.
pub(super) const OPS: &[&str] = &["Reshape", "Flatten", "Squeeze", "Unsqueeze"];

pub(super) fn same_shape(site: &Site<'_>) -> Result<Patch, Reason> {
    let x = site.input(0)?;
    let copied = site.op.is("Reshape") && copies_shape(site);
    if !copied {
        keeps_shape(site.graph, x, site.output())?;
    }
    site.bypass(x)
}

/// Whether a `Reshape` names every dimension as it is: also where sizes are not known.
fn copies_shape(site: &Site<'_>) -> bool {
    let operand = site.graph.input(site.node, 1);
    let spec = operand.and_then(|operand| constants::integers(site.graph, operand));
    let from = site.graph.input(site.node, 0).and_then(|x| shape_of(site.graph, x).ok());
    let (Some(spec), Some(from)) = (spec, from) else { return false };
    let zero_copies = site.op.int("allowzero", 0) == 0;
    let named = |(size, dim): (&i64, &Dim)| match *size {
        0 => zero_copies,
        // One open size is what the others leave.
        -1 => true,
        size => dim.known() == u64::try_from(size).ok(),
    };
    spec.len() == from.len() && spec.iter().zip(&from).all(named)
}

pub(super) fn back_again(site: &Site<'_>) -> Result<Patch, Reason> {
    let before = site.graph.producer(site.input(0)?);
    let (view, _) = before
        .filter(|(_, op)| op.domain().is_empty() && OPS.contains(&op.op_type()))
        .ok_or(Reason::Needed("its input is not a view"))?;
    let x = site.graph.input(view, 0).ok_or(Reason::Malformed)?;
    keeps_shape(site.graph, x, site.output())?;
    site.bypass(x)
}

pub(super) fn reshape_of_view(site: &Site<'_>) -> Result<Patch, Reason> {
    let Site { graph, node, .. } = *site;
    let middle = site.input(0)?;
    let (view, _) = graph
        .producer(middle)
        .filter(|(_, op)| op.domain().is_empty() && OPS.contains(&op.op_type()))
        .ok_or(Reason::Needed("its input is not a view"))?;
    let x = graph.input(view, 0).ok_or(Reason::Malformed)?;
    let operand = site.input(1)?;
    let spec = constants::integers(graph, operand);
    let spec = spec.ok_or_else(|| Reason::NotConstant(graph.value_name(operand).to_owned()))?;
    let mut patch = Patch::at(node);
    patch.set_input(node, 0, Some(x.into()));
    if site.op.int("allowzero", 0) != 0 || !spec.contains(&0) {
        return Ok(patch);
    }
    // A 0 copies a size of the middle shape: it has to mean the same of x.
    let (from, through) = (shape_of(graph, x)?, shape_of(graph, middle)?);
    let mut moved = Vec::with_capacity(spec.len());
    let mut open = spec.contains(&-1);
    for (i, &size) in spec.iter().enumerate() {
        let copied = through.get(i).ok_or(Reason::Malformed)?;
        moved.push(match copied.known() {
            _ if size != 0 => size,
            Some(known) if known > 0 => i64::try_from(known).map_err(|_| Reason::Malformed)?,
            _ if from.get(i) == Some(copied) && *copied != Dim::Unknown => 0,
            _ if !open => {
                open = true;
                -1
            }
            _ => return Err(Reason::ShapeArithmetic(graph.value_name(middle).to_owned())),
        });
    }
    if moved != spec {
        let operand = patch.parameter("shape", Tensor::i64_vec(&moved));
        patch.set_input(node, 1, Some(operand));
    }
    Ok(patch)
}
