//! Norms with constants of their own.
//!
//! Exporters store equal constants once, so that untrained norms share scales and statistics. Each must be able to
//! learn its own.

use std::collections::BTreeSet;

use bcosc_ir::ops::Trait;
use bcosc_ir::{Model, Patch};
use bcosc_passes::PassError;

/// Copies constants that several norms share: the first keeps the constant and its name.
pub(super) fn norms(model: &mut Model) -> Result<(), PassError> {
    let mut owned = BTreeSet::new();
    for node in model.graph.ops() {
        let graph = &model.graph;
        if !graph.op(node).is_some_and(|op| op.has(Trait::Norm)) {
            continue;
        }
        let mut patch = Patch::at(node);
        let operands = graph.inputs_of(node).into_iter().enumerate().skip(1);
        let mut changed = false;
        for (slot, value) in operands {
            let Some(value) = value else { continue };
            let Some(tensor) = graph.constant(value) else {
                continue;
            };
            if owned.insert(value) {
                continue;
            }
            let copy = patch.parameter("own", tensor);
            patch.set_input(node, slot as u32, Some(copy));
            changed = true;
        }
        if changed {
            model.graph.apply(patch)?;
        }
    }
    Ok(())
}
