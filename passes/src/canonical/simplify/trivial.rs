//! Operators that pass their input on.
//!
//! ```text
//! Identity (x)                      = x
//! Dropout (x)                       = x     when not training
//! Concat (x)                        = x     likewise Sum, Mean, Max, Min of one
//! Slice <every step 1> (x)          = x     where the shape stays
//! Expand (x, s)                     = x     where the shape stays
//! ```

use bcosc_ir::{Dim, Graph, Patch, Shape, Value};

use super::super::constants;
use super::super::worklist::Site;
use crate::Reason;

pub(super) fn identity(site: &Site<'_>) -> Result<Patch, Reason> {
    site.bypass(site.input(0)?)
}

pub(super) fn dropout(site: &Site<'_>) -> Result<Patch, Reason> {
    let Site { graph, node, .. } = *site;
    if let Some(mode) = graph.input(node, 2) {
        let training = constants::integer(graph, mode);
        if training.is_none_or(|training| training != 0) {
            return Err(Reason::Training);
        }
    }
    if graph.output_count(node) > 1 {
        let mask = graph.output(node, 1);
        if !graph.uses(mask).is_empty() {
            return Err(Reason::UsedElsewhere(graph.value_name(mask).to_owned()));
        }
    }
    site.bypass(site.input(0)?)
}

pub(super) fn one_input(site: &Site<'_>) -> Result<Patch, Reason> {
    match site.graph.inputs_of(site.node)[..] {
        [Some(x)] => site.bypass(x),
        _ => Err(Reason::Needed("it has several inputs")),
    }
}

pub(super) fn slice(site: &Site<'_>) -> Result<Patch, Reason> {
    let x = site.input(0)?;
    keeps_shape(site.graph, x, site.output())?;
    // A step of -1 keeps the shape and turns the axis round.
    let steps = constants::list(site.graph, site.node, "steps", 4)?;
    if steps.is_some_and(|steps| steps.iter().any(|&step| step != 1)) {
        return Err(Reason::Needed("it changes the order"));
    }
    site.bypass(x)
}

pub(super) fn expand(site: &Site<'_>) -> Result<Patch, Reason> {
    let x = site.input(0)?;
    keeps_shape(site.graph, x, site.output())?;
    site.bypass(x)
}

/// Whether every dimension of two values is known to be the same.
pub(super) fn keeps_shape(graph: &Graph, x: Value, y: Value) -> Result<(), Reason> {
    let (before, after) = (shape_of(graph, x)?, shape_of(graph, y)?);
    let same = before.iter().zip(&after).all(|(a, b)| a == b && *a != Dim::Unknown);
    if before.len() == after.len() && same {
        return Ok(());
    }
    Err(Reason::Needed("it changes the shape"))
}

pub(super) fn shape_of(graph: &Graph, value: Value) -> Result<Shape, Reason> {
    let shape = graph.value_type(value).and_then(|t| t.shape);
    shape.ok_or_else(|| Reason::UnknownShape(graph.value_name(value).to_owned()))
}
