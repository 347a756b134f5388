//! Backward rules of explanations: reverse mode along the linear path of a graph.
//!
//! The graph is W(x)x plus constants, W(x) a product of weights and of factors that are held fixed
//! ([`Linearity`] says which). From a cotangent s of an output comes W(x)^T s, of ordinary operators:
//!
//! ```text
//! y = A x            s_x = A^T s_y          a layer, a sum, a view: `transpose`
//! y = g(u) * x       s_x = g(u) * s_y       u detached: read from the forward pass
//! y = f(x)           s_x = (f(x) / x) * s_y an activation
//! x used twice       s_x is the sum over its uses
//! ```
//!
//! Sizes that are not known stay dynamic: rules then read them from the values of the graph. Constant
//! terms do not affect W(x) and are ignored.

mod activations;
mod attention;
mod norms;

use bcosc_ir::{Model, NodeId, Value};

use crate::reverse::{self, Mode};
use crate::rules::Table;
use crate::transpose;
use bcosc_passes::analysis::linearity::{Linearity, Standing};
use bcosc_passes::{PassError, Reason};

/// The tables of explanations: detached rules first, then the shared transposes.
const TABLES: &[Table] = &[RULES, transpose::RULES];

/// Operators that are not linear, with their factors held fixed.
pub(crate) const RULES: Table = &[
    ("Attention", attention::attention),
    ("BatchNormalization", norms::batch),
    ("Celu", activations::celu),
    ("Clip", activations::bounded),
    ("Elu", activations::elu),
    ("Gelu", activations::gelu),
    ("GroupNormalization", norms::group),
    ("HardSwish", activations::hard_swish),
    ("InstanceNormalization", norms::instance),
    ("LRN", activations::scaled_by_neighbours),
    ("LayerNormalization", norms::layer),
    ("LpNormalization", norms::length),
    ("MeanVarianceNormalization", norms::mean_variance),
    ("Mish", activations::mish),
    ("Pow", activations::power),
    ("RMSNormalization", norms::rms),
    ("Selu", activations::selu),
    ("Shrink", activations::vanishing),
    ("Softsign", activations::softsign),
    ("Swish", activations::swish),
    ("Tanh", activations::bounded),
    ("ThresholdedRelu", activations::vanishing),
];

/// Adds to a model the operators that compute the cotangents of `wrt` from those of outputs, given as pairs
/// of an output and its cotangent; `None` if no output is linear in a value. The types of all values must
/// be known; the new ones are not inferred.
///
/// # Errors
/// If an operator on the way has no backward rule.
pub fn cotangents(
    model: &mut Model,
    outputs: &[(Value, Value)],
    wrt: &[Value],
) -> Result<Vec<Option<Value>>, PassError> {
    let typed = model.graph.clone();
    let linearity = Linearity::of(&typed);
    let follows = |node: NodeId, slot: u32, value: Value| {
        linearity.standing(value) == Standing::Linear && !linearity.is_detached(node, slot)
    };
    let mode = Mode {
        rules: TABLES,
        markers: &[],
        follows: &follows,
    };
    reverse::cotangents(model, &typed, outputs, wrt, &mode)
}

/// As [`cotangents`], of one value from one output, which must be linear in it.
///
/// # Errors
/// If the output is not linear in `wrt`, or an operator on the way has no backward rule.
pub fn cotangent(
    model: &mut Model,
    output: Value,
    seed: Value,
    wrt: Value,
) -> Result<Value, PassError> {
    let found = cotangents(model, &[(output, seed)], &[wrt])?;
    found.into_iter().next().flatten().ok_or_else(|| {
        let verdict = Linearity::of(&model.graph).verdict(output);
        PassError::Model(Reason::NotLinear {
            output: verdict.output,
            broken_by: verdict.broken_by.join(", "),
        })
    })
}

/// The standard operators that have a backward rule, table by table.
pub fn operators() -> impl Iterator<Item = &'static str> {
    TABLES
        .iter()
        .flat_map(|table| table.iter())
        .map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_can_be_searched_and_share_no_operator() {
        for table in TABLES {
            for pair in table.windows(2) {
                assert!(
                    pair[0].0 <= pair[1].0,
                    "not in alphabetical order: {}, {}",
                    pair[0].0,
                    pair[1].0
                );
            }
        }
        let mut names: Vec<&str> = operators().collect();
        names.sort_unstable();
        for pair in names.windows(2) {
            assert!(pair[0] != pair[1], "{} twice", pair[0]);
        }
    }
}
