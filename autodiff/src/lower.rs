//! Writes the gradients of convolutions as standard operators.
//!
//! ```text
//! dx = bcosc.ConvInputGradient (dy, w)    dx = ConvTranspose <window, group> (dy, w)
//! dw = bcosc.ConvWeightGradient (x, dy)   dw = products of matrices
//! ```

mod weight_gradient;

use std::collections::BTreeSet;

use bcosc_ir::{Model, Operand, Patch};
use bcosc_passes::dialect::{ConvInputGradient, ConvWeightGradient};
use bcosc_passes::{PassError, Reason};

use crate::context::RuleContext;
use crate::transpose::convolution::input_gradient;
use crate::transpose::window::{Ends, Source, result_sizes, spatial};

/// Replaces the gradients of convolutions in the domain `bcosc` by standard operators.
///
/// # Errors
/// If the rank of an input is not known.
pub fn lower(model: &mut Model) -> Result<(), PassError> {
    let opset = model.opset("").unwrap_or(0);
    let wanted = BTreeSet::new();
    for node in model.graph.ops() {
        let graph = &model.graph;
        let Some(op) = graph.op(node) else {
            continue;
        };
        let mut cx = RuleContext {
            graph,
            opset,
            node,
            op,
            wanted: &wanted,
            cotangents: Vec::new(),
            patch: Patch::at(node),
        };
        let result = if let Some(gradient) = ConvInputGradient::of(graph, node) {
            of_input(&mut cx, &gradient)
        } else if let Some(gradient) = ConvWeightGradient::of(graph, node) {
            weight_gradient::lower(&mut cx, &gradient)
        } else {
            continue;
        };
        let result = result.map_err(|reason| PassError::unsupported(model, node, reason))?;
        if let Some(found) = graph.value_type(cx.y()) {
            cx.patch.typed(result, found);
        }
        let y = cx.y();
        cx.patch.replace(y, result);
        let patch = cx.patch;
        model.graph.apply(patch)?;
    }
    Ok(())
}

fn of_input(cx: &mut RuleContext<'_>, gradient: &ConvInputGradient) -> Result<Operand, Reason> {
    let window = &gradient.window;
    let from = spatial(cx, cx.y(), window.rank())?;
    let ends = Ends {
        x: Source::Shape(gradient.shape),
        to: result_sizes(cx, window, &from, gradient.dy),
        from,
    };
    let operands = [gradient.dy.into(), gradient.w.into()];
    input_gradient(cx, operands, window, gradient.group, &ends)
}
