//! A factor of all biases, so that they can decay away.
//!
//! ```text
//! y = Conv (x, w, b)      y = Conv (x, w, b * bias_scale)
//! ```

use bcosc_ir::{DataType, Model, Op, Patch, TensorType};
use bcosc_passes::PassError;
use bcosc_passes::bcos::biases;

/// The input with the factor.
pub const BIAS_SCALE: &str = "bias_scale";

/// Multiplies every bias by an input of the model; returns the names of the constants. The types of values must be known.
pub(super) fn take(model: &mut Model) -> Result<Vec<String>, PassError> {
    let operands = biases::operands(&model.graph)?;
    let dtype = operands.first().and_then(|&(node, slot)| {
        let bias = model.graph.input(node, slot)?;
        Some(model.graph.value_type(bias)?.dtype)
    });
    let found = TensorType::fixed(dtype.unwrap_or(DataType::Float), &[]);
    let scale = model.graph.add_input(BIAS_SCALE, found);
    let mut names = Vec::new();
    for (node, slot) in operands {
        let Some(bias) = model.graph.input(node, slot) else {
            continue;
        };
        names.push(model.graph.value_name(bias).to_owned());
        let mut patch = Patch::at(node);
        let scaled = Op::new("", "Mul").named("bias");
        let scaled = patch.op(scaled, &[bias.into(), scale.into()]);
        patch.set_input(node, slot, Some(scaled));
        model.graph.apply(patch)?;
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}
