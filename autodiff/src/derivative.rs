//! Full derivatives: reverse mode through every floating-point operand, for training.
//!
//! Nothing is held fixed. The rules here come before the shared transposes, and cover what is not linear in
//! all of its operands: quotients, norms, activations.
//!
//! ```text
//! y = f(x)         s_x = s_y * f'(x)
//! y = f(a, b)      s_a and s_b likewise, each summed over what it was repeated along
//! ```
//!
//! Where a function has a kink, the derivative is PyTorch's: 0 for `Abs` and `Relu` at 0.

mod activations;
mod arithmetic;
mod attention;
mod clip;
mod convolution;
mod neighbours;
mod norms;
mod reductions;
mod sigmoids;
mod softmax;
mod trigonometry;

#[cfg(test)]
mod tests;

use bcosc_ir::ops::{self, Trait};
use bcosc_ir::{Graph, Model, NodeId, Op, Value};

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
pub(crate) const RULES: Table = &[
    ("Abs", arithmetic::abs),
    ("Acos", trigonometry::acos),
    ("Acosh", trigonometry::acosh),
    ("Asin", trigonometry::asin),
    ("Asinh", trigonometry::asinh),
    ("Atan", trigonometry::atan),
    ("Atanh", trigonometry::atanh),
    ("Attention", attention::attention),
    ("BatchNormalization", norms::batch),
    ("Celu", activations::celu),
    ("Clip", clip::clip),
    ("Conv", convolution::conv),
    ("ConvTranspose", convolution::conv_transpose),
    ("Cos", trigonometry::cos),
    ("Cosh", trigonometry::cosh),
    ("Div", arithmetic::div),
    ("Elu", activations::elu),
    ("Erf", sigmoids::erf),
    ("Exp", arithmetic::exp),
    ("Gelu", activations::gelu),
    ("GroupNormalization", norms::group),
    ("HardSigmoid", activations::hard_sigmoid),
    ("HardSwish", activations::hard_swish),
    ("InstanceNormalization", norms::instance),
    ("LRN", neighbours::lrn),
    ("LayerNormalization", norms::layer),
    ("Log", arithmetic::log),
    ("LogSoftmax", softmax::log_softmax),
    ("LpNormalization", norms::length),
    ("MeanVarianceNormalization", norms::mean_variance),
    ("Mish", activations::mish),
    ("Pow", arithmetic::pow),
    ("RMSNormalization", norms::rms),
    ("Reciprocal", arithmetic::reciprocal),
    ("ReduceL1", reductions::l1),
    ("ReduceL2", reductions::l2),
    ("ReduceLogSum", reductions::log_sum),
    ("ReduceLogSumExp", reductions::log_sum_exp),
    ("ReduceProd", reductions::product),
    ("ReduceSumSquare", reductions::sum_square),
    ("Selu", activations::selu),
    ("Shrink", activations::shrink),
    ("Sigmoid", sigmoids::sigmoid),
    ("Sin", trigonometry::sin),
    ("Sinh", trigonometry::sinh),
    ("Softmax", softmax::softmax),
    ("Softplus", sigmoids::softplus),
    ("Softsign", sigmoids::softsign),
    ("Sqrt", arithmetic::sqrt),
    ("Swish", activations::swish),
    ("Tan", trigonometry::tan),
    ("Tanh", trigonometry::tanh),
    ("ThresholdedRelu", activations::thresholded_relu),
];

/// Operators that nothing flows through: their slope is 0 almost everywhere, or they do not give floating-point
/// numbers.
pub(crate) const FLAT: &[&str] = &[
    "And",
    "ArgMax",
    "ArgMin",
    "BitShift",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "Ceil",
    "ConstantOfShape",
    "Equal",
    "Floor",
    "Greater",
    "GreaterOrEqual",
    "Hardmax",
    "IsInf",
    "IsNaN",
    "Less",
    "LessOrEqual",
    "NonMaxSuppression",
    "NonZero",
    "Not",
    "Or",
    "Round",
    "Sign",
    "Xor",
];

/// Adds to a model the operators that compute the gradients with respect to `wrt` of outputs, given as pairs of
/// an output and its cotangent: for a scalar loss, the number 1. `None` where no output depends on a value, or
/// only through operators whose slope is 0.
///
/// The types of all values must be known; the new ones are not inferred.
///
/// # Errors
/// If an operator on the way has no derivative rule, or none for an operand that depends on `wrt`.
pub fn gradients(
    model: &mut Model,
    outputs: &[(Value, Value)],
    wrt: &[Value],
) -> Result<Vec<Option<Value>>, PassError> {
    let typed = model.graph.clone();
    let mode = Mode {
        rules: TABLES,
        markers: &[MARKERS],
        follows: &|node, slot, value| follows(&typed, node, slot, value),
    };
    reverse::cotangents(model, &typed, outputs, wrt, &mode)
}

/// Whether an output may change with small changes of an operand.
fn follows(graph: &Graph, node: NodeId, slot: u32, value: Value) -> bool {
    let found = graph.value_type(value);
    let is_float = found.is_none_or(|found| found.dtype.is_float());
    is_float && !graph.op(node).is_some_and(|op| ignores(op, slot))
}

/// Whether an operator reads nothing of an operand but its shape or type, or gives steps.
fn ignores(op: &Op, slot: u32) -> bool {
    let is_type = op.has(Trait::Cast) && slot > 0;
    // The ratio of a `Dropout` has no effect in inference.
    let is_ratio = op.is("Dropout") && slot > 0;
    let is_flat = op.domain().is_empty() && FLAT.contains(&op.op_type());
    is_type || is_ratio || is_flat || op.has(Trait::ShapeOnly)
}

/// The standard operators that have a derivative rule, table by table.
pub fn operators() -> impl Iterator<Item = &'static str> {
    TABLES
        .iter()
        .flat_map(|table| table.iter())
        .map(|(name, _)| *name)
}

/// The standard operators that nothing flows through: their slope is 0, or they read nothing but shapes.
pub fn flat() -> impl Iterator<Item = &'static str> {
    FLAT.iter().copied().chain(ops::having(Trait::ShapeOnly))
}
