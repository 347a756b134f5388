//! Shapes computed at run time that are known except for the batch size.
//!
//! `Reshape` accepts one -1, and 0 for a dimension copied from the input; `Expand` accepts 1 for an unchanged
//! dimension; `Slice` accepts the largest integer for the end of an axis. So shape operands become
//! constants, and the arithmetic that computes them is dead.

use bcosc_ir::{Dim, Facts, Graph, Model, NodeId, Patch, Shape, Tensor, Value};

use crate::canonical::constants;
use crate::canonical::worklist::Site;
use crate::{Outcome, PassError, Reason};

pub(super) fn resolve(
    model: &mut Model,
    facts: &Facts,
    outcome: &mut Outcome,
) -> Result<(), PassError> {
    for node in model.graph.ops() {
        if !model.graph.contains(node) {
            continue;
        }
        let Some(site) = Site::new(model, node) else {
            continue;
        };
        let found = match site.op.op_type() {
            "Reshape" if site.opset >= 5 => reshape(&site, facts),
            "Expand" => expand(&site, facts),
            "Slice" if site.opset >= 10 => slice_ends(&site, facts),
            _ => continue,
        };
        let label = model.graph.label(node);
        match found {
            Ok(patch) => {
                outcome.changed(label, "a constant shape");
                model.graph.apply(patch)?;
            }
            Err(Reason::Needed(_)) => {}
            Err(reason) => outcome.skipped(label, reason),
        }
    }
    Ok(())
}

/// Whether an operand is computed and not folded to a constant anyway.
fn is_computed(graph: &Graph, facts: &Facts, value: Value) -> bool {
    constants::constant(graph, value).is_none()
        && !facts.constants.contains_key(graph.value_name(value))
}

fn shape_of(graph: &Graph, value: Value) -> Result<Shape, Reason> {
    let shape = graph.value_type(value).and_then(|t| t.shape);
    shape.ok_or_else(|| Reason::UnknownShape(graph.value_name(value).to_owned()))
}

/// Whether two sizes are known to be equal.
fn same(a: &Dim, b: &Dim) -> bool {
    a == b && *a != Dim::Unknown
}

fn reshape(site: &Site<'_>, facts: &Facts) -> Result<Patch, Reason> {
    let Site {
        graph, node, op, ..
    } = *site;
    let x = site.input(0)?;
    if !is_computed(graph, facts, site.input(1)?) {
        return Err(Reason::Needed("the shape is a constant"));
    }
    let (from, to) = (shape_of(graph, x)?, shape_of(graph, site.output())?);
    let spec = reshape_spec(&from, &to).ok_or_else(|| Reason::ShapeArithmetic(text(&to)))?;
    let mut patch = set_operand(node, 1, "shape", &spec);
    if op.get("allowzero") != Some(false) {
        patch.unset_attribute(node, "allowzero");
    }
    Ok(patch)
}

/// The shape operand of a `Reshape` from one shape to another.
///
/// A single unknown size becomes -1. If there are several, unchanged ones become 0, and at most one
/// becomes -1.
pub(super) fn reshape_spec(from: &[Dim], to: &[Dim]) -> Option<Vec<i64>> {
    let open = to.iter().filter(|dim| dim.known().is_none()).count();
    let mut inferred = 0;
    let spec = to.iter().enumerate().map(|(i, dim)| match dim.known() {
        // 0 means the size of the input, and -1 is undefined for an empty tensor.
        Some(0) => None,
        Some(size) => i64::try_from(size).ok(),
        None if open > 1 && from.get(i).is_some_and(|source| same(source, dim)) => Some(0),
        None => {
            inferred += 1;
            Some(-1)
        }
    });
    let spec = spec.collect::<Option<Vec<i64>>>()?;
    (inferred <= 1).then_some(spec)
}

fn expand(site: &Site<'_>, facts: &Facts) -> Result<Patch, Reason> {
    let Site { graph, node, .. } = *site;
    let x = site.input(0)?;
    if !is_computed(graph, facts, site.input(1)?) {
        return Err(Reason::Needed("the shape is a constant"));
    }
    let (from, to) = (shape_of(graph, x)?, shape_of(graph, site.output())?);
    let added = to.len().checked_sub(from.len()).ok_or(Reason::Malformed)?;
    let spec = to.iter().enumerate().map(|(i, dim)| match dim.known() {
        Some(size) => i64::try_from(size).ok(),
        None => {
            let source = i.checked_sub(added).map(|i| &from[i])?;
            same(source, dim).then_some(1)
        }
    });
    let spec = spec.collect::<Option<Vec<i64>>>();
    let spec = spec.ok_or_else(|| Reason::ShapeArithmetic(text(&to)))?;
    Ok(set_operand(node, 1, "shape", &spec))
}

/// The ends of a `Slice` that reach to the end of their axes.
fn slice_ends(site: &Site<'_>, facts: &Facts) -> Result<Patch, Reason> {
    let Site { graph, node, .. } = *site;
    let ends = site.input(2)?;
    if !is_computed(graph, facts, ends) {
        return Err(Reason::Needed("the ends are constants"));
    }
    let sizes = facts.symbolic.get(graph.value_name(ends));
    let sizes = sizes.ok_or_else(|| Reason::NotConstant(graph.value_name(ends).to_owned()))?;
    let from = shape_of(graph, site.input(0)?)?;
    let axes = match graph.input(node, 3) {
        Some(axes) => known_integers(graph, facts, axes)?,
        None => (0..sizes.len() as i64).collect(),
    };
    let forward = match graph.input(node, 4) {
        Some(steps) => known_integers(graph, facts, steps)?
            .into_iter()
            .all(|step| step > 0),
        None => true,
    };
    let spec = sizes.iter().zip(axes).map(|(size, axis)| {
        let index = if axis < 0 {
            axis + from.len() as i64
        } else {
            axis
        };
        let whole = usize::try_from(index).ok().and_then(|i| from.get(i))?;
        match size.known() {
            Some(size) => i64::try_from(size).ok(),
            None => (forward && same(size, whole)).then_some(i64::MAX),
        }
    });
    let spec = spec.collect::<Option<Vec<i64>>>();
    let spec = spec.ok_or_else(|| Reason::ShapeArithmetic(text(sizes)))?;
    Ok(set_operand(node, 2, "ends", &spec))
}

fn known_integers(graph: &Graph, facts: &Facts, value: Value) -> Result<Vec<i64>, Reason> {
    let found = facts
        .constants
        .get(graph.value_name(value))
        .and_then(|t| t.to_i64s().ok());
    let found = found.or_else(|| constants::integers(graph, value));
    found.ok_or_else(|| Reason::NotConstant(graph.value_name(value).to_owned()))
}

fn set_operand(node: NodeId, slot: u32, hint: &str, values: &[i64]) -> Patch {
    let mut patch = Patch::at(node);
    let operand = patch.parameter(hint, Tensor::i64_vec(values));
    patch.set_input(node, slot, Some(operand));
    patch
}

fn text(shape: &[Dim]) -> String {
    let dims: Vec<String> = shape.iter().map(Dim::to_string).collect();
    format!("[{}]", dims.join(","))
}
