//! Full derivatives: reverse mode through every floating-point operand, for training.
//!
//! Nothing is held fixed. The rules here come before the shared transposes, and cover what is not linear in
//! all of its operands: products by both factors, quotients, norms, activations.
//!
//! ```text
//! y = a * b        s_a = s_y * b      s_b = s_y * a
//! y = f(x)         s_x = s_y * f'(x)
//! ```
//!
//! Where a function has a kink, the derivative is PyTorch's: 0 for `Abs` and `Relu` at 0.

mod arithmetic;

use bcosc_ir::{Model, Value};

use crate::reverse::{self, Mode};
use crate::rules::Table;
use crate::training::batch_norm;
use crate::transpose;
use bcosc_passes::PassError;

/// The tables of full derivatives: their own rules first, then the shared transposes.
const TABLES: &[Table] = &[RULES, transpose::RULES];

/// Operators in the domain `bcosc`, which stay whole until the training step is lowered.
const MARKERS: Table = &[(batch_norm::BATCH_NORM, batch_norm::derivative)];

/// Operators that are not linear in all of their operands.
pub(crate) const RULES: Table = &[("Abs", arithmetic::abs), ("Div", arithmetic::div)];

/// Adds to a model the operators that compute the gradients with respect to `wrt` of outputs, given as pairs of
/// an output and its cotangent: for a scalar loss, the number 1. `None` where no output depends on a value.
///
/// The types of all values must be known; the new ones are not inferred.
///
/// # Errors
/// If an operator on the way has no derivative rule.
pub fn gradients(
    model: &mut Model,
    outputs: &[(Value, Value)],
    wrt: &[Value],
) -> Result<Vec<Option<Value>>, PassError> {
    let typed = model.graph.clone();
    let mode = Mode {
        rules: TABLES,
        markers: &[MARKERS],
        follows: &|_, _, value| {
            let found = typed.value_type(value);
            found.is_none_or(|found| found.dtype.is_float())
        },
    };
    reverse::cotangents(model, &typed, outputs, wrt, &mode)
}

/// The standard operators that have a derivative rule, table by table.
pub fn operators() -> impl Iterator<Item = &'static str> {
    TABLES
        .iter()
        .flat_map(|table| table.iter())
        .map(|(name, _)| *name)
}
